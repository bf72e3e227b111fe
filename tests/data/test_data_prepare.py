"""From a source to a data set: counts, splits, groups and notes, and what is refused and how it is said."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from rounds.core.errors import BadOverride, BadSource, LeakFound
from rounds.core.records import Prepared
from rounds.core.specs import DataSpec, ImagingSpec, Limits
from rounds.data.assemble import assemble
from rounds.data.prepare import CHEST_XRAY_SUBJECT, class_order, prepare
from rounds.data.statistics import statistics
from rounds.imaging.packed import Films, stored_png


def png(*seed: int) -> bytes:
    return stored_png(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8))


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def folders(n: int, prefix: str = "") -> dict[str, bytes]:
    """n images of each of two classes, all different."""
    key = sum(prefix.encode())
    return {
        f"{prefix}{label}/{number}.png": png(key, number, place)
        for place, label in enumerate(("normal", "sick"))
        for number in range(n)
    }


def made(source: Path | str, tmp_path: Path, **options: object) -> Prepared:
    spec = DataSpec(source=str(source), name="set", **options)  # type: ignore[arg-type]
    return prepare(spec, folder=tmp_path / "datasets")


def by_split(done: Prepared) -> dict[str, dict[str, int]]:
    opened = Films(done.dataset.path)
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for film in opened:
        counted[film.split][film.label] += 1
    return {split: dict(sorted(counted[split].items())) for split in done.dataset.splits}


def test_class_folders_are_cut_into_four_splits(tmp_path: Path) -> None:
    done = made(write(tmp_path / "in", folders(100)), tmp_path, min_per_class=10)
    assert done.public() == {
        "name": "set",
        "digest": done.dataset.digest,
        "classes": ["normal", "sick"],
        "splits": {"train": 120, "val": 20, "calibration": 30, "test": 30},
        "taken": 200,
        "refused": [],
        "leaks": [],
        "by_class": by_split(done),
        "repaired": [],
        "subjects_known": False,
        "notes": [
            "one image = one subject: no subject expression was given",
            "val, calibration, test cut from train by subject: the source brings none",
        ],
    }
    assert by_split(done) == {
        "train": {"normal": 60, "sick": 60},
        "val": {"normal": 10, "sick": 10},
        "calibration": {"normal": 15, "sick": 15},
        "test": {"normal": 15, "sick": 15},
    }
    film = next(film for film in Films(done.dataset.path) if film.name == "sick/7.png")
    assert (film.label, film.subject, film.data) == ("sick", "sick/7.png", folders(8)["sick/7.png"])


def test_the_same_source_gives_the_same_digest_and_another_seed_another(tmp_path: Path) -> None:
    source = write(tmp_path / "in", folders(20))
    first = made(source, tmp_path).dataset.digest
    assert made(source, tmp_path / "elsewhere").dataset.digest == first
    assert made(source, tmp_path, seed=1).dataset.digest != first


def test_given_splits_are_kept_and_missing_ones_cut_from_train(tmp_path: Path) -> None:
    files = folders(60, "train/") | folders(12, "test/") | folders(11, "valid/")
    done = made(write(tmp_path / "in", files), tmp_path, min_per_class=10)
    assert done.dataset.splits == {"train": 102, "val": 22, "calibration": 18, "test": 24}
    assert done.dataset.notes[1:] == (
        "calibration cut from train by subject: the source brings none",
        "calibration is small (9 normal, 9 sick): the source has too few films for more",
    )
    kept = {film.name for film in Films(done.dataset.path) if film.split in ("val", "test")}
    assert kept == {name for name in files if not name.startswith("train/")}


def test_a_given_split_that_is_too_small_joins_train_and_is_cut_anew(tmp_path: Path) -> None:
    files = folders(100, "train/") | folders(8, "val/")
    done = made(write(tmp_path / "in", files), tmp_path, min_per_class=10)
    assert done.dataset.splits == {"train": 128, "val": 22, "calibration": 34, "test": 32}
    assert done.dataset.notes[1:] == (
        "the source's val (8 normal, 8 sick) has under 10 films of a class: its films join train, and val is cut "
        "from there by subject",
        "calibration, test cut from train by subject: the source brings none",
    )


@pytest.mark.parametrize("given", [("test",), ("val", "test")], ids="-".join)
def test_a_source_without_train_stays_as_it_is(tmp_path: Path, given: tuple[str, ...]) -> None:
    files = {name: data for split in given for name, data in folders(3, f"{split}/").items()}
    done = made(write(tmp_path / "in", files), tmp_path)
    assert done.dataset.splits == dict.fromkeys(given, 6)
    assert done.dataset.notes[1] == f"the source brings {' and '.join(given)} only, kept as it is"


def test_a_source_too_small_for_any_split_becomes_test(tmp_path: Path) -> None:
    done = made(write(tmp_path / "in", folders(3)), tmp_path)
    assert done.dataset.splits == {"test": 6}
    assert done.dataset.notes[1] == (
        "no class has films enough to cut splits from: kept whole as test, to be measured or scored"
    )


def test_a_split_with_no_share_is_not_cut(tmp_path: Path) -> None:
    done = made(write(tmp_path / "in", folders(20)), tmp_path, calibration=0.0, val=0.0)
    assert done.dataset.splits == {"train": 34, "test": 6}


def test_the_films_of_a_subject_stay_together(tmp_path: Path) -> None:
    files = {
        f"{label}/p{number // 4}_{number}.png": png(place, number)
        for place, label in enumerate(("normal", "sick"))
        for number in range(place * 80, place * 80 + 80)
    }
    done = made(write(tmp_path / "in", {**files, "normal/odd.png": png(7)}), tmp_path, subject=r"/(p\d+)_")
    opened = Films(done.dataset.path)
    homes = defaultdict(set)
    for film in opened:
        homes[film.subject].add(film.split)
    assert len(homes) == 41
    assert all(len(splits) == 1 for splits in homes.values())
    assert done.dataset.subjects_known
    assert done.dataset.notes[0] == (
        "1 of 161 names do not match the subject expression: each of these films is its own subject"
    )
    assert done.dataset.splits == {"train": 97, "val": 16, "calibration": 24, "test": 24}


def test_without_groups_the_whole_match_is_the_subject(tmp_path: Path) -> None:
    files = {
        f"{label}/p{number % 5}{label}-{number}.png": png(number, ord(label)) for label in "ab" for number in range(20)
    }
    done = made(write(tmp_path / "in", files), tmp_path, subject=r"p\d[ab]")
    assert {film.subject for film in Films(done.dataset.path)} == {f"p{n}{label}" for n in range(5) for label in "ab"}


def test_exact_duplicates_in_one_split_stay_together(tmp_path: Path) -> None:
    files = folders(40)
    files |= {f"normal/copy{number}.png": files[f"normal/{number}.png"] for number in range(20)}
    done = made(write(tmp_path / "in", files), tmp_path)
    homes = defaultdict(set)
    for film in Films(done.dataset.path):
        homes[film.data].add(film.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert done.taken == 100
    assert "20 images occur more than once (40 films): their films stay together" in done.dataset.notes


def test_names_like_the_chest_films_are_pointed_out(tmp_path: Path) -> None:
    files = {f"NORMAL/IM-{number:04d}-0001.png": png(number) for number in range(6)}
    files |= {f"PNEUMONIA/person{number}_virus_1.png": png(number, 1) for number in range(6)}
    done = made(write(tmp_path / "in", files), tmp_path)
    assert done.dataset.notes[1] == (
        r"12 of 12 names look like those of the Kaggle chest films: --subject '(person\d+|(?:NORMAL2-)?IM-\d+)' keeps "
        "the films of a child on one side of every split"
    )


def test_progress_counts_every_file(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    spec = DataSpec(source=str(write(tmp_path / "in", folders(10))), name="set")
    prepare(spec, folder=tmp_path / "datasets", progress=lambda done, total: heard.append((done, total)))
    assert heard == [(number, 20) for number in range(1, 21)]


def test_what_is_not_an_image_is_listed_as_refused(tmp_path: Path) -> None:
    files = folders(10)
    files |= {
        "normal/notes.png": b"hello, I am a text\n",
        "sick/empty.png": b"",
        "sick/cut.png": files["sick/1.png"][:-40],
    }
    files |= {
        "sick/large.png": files["sick/1.png"] + bytes(5000),
        "normal/wide.png": stored_png(np.zeros((10, 400), np.uint8)),
    }
    done = made(write(tmp_path / "in", files), tmp_path, limits=Limits(max_bytes=5000, max_pixels=1000))
    assert done.taken == 20
    assert [file for file, _ in done.refused] == [
        "normal/notes.png",
        "normal/wide.png",
        "sick/cut.png",
        "sick/empty.png",
        "sick/large.png",
    ]
    reasons = dict(done.refused)
    assert reasons["normal/notes.png"].startswith("not an image we take; expected a PNG, JPEG, TIFF")
    assert "got text that begins 'hello, I am a text'" in reasons["normal/notes.png"]
    assert reasons["normal/wide.png"].startswith("the image is too large; expected at most 1,000 pixels")
    assert "ends early" in reasons["sick/cut.png"]
    assert reasons["sick/empty.png"].startswith("the file is empty")
    assert (
        reasons["sick/large.png"]
        == f"the file is too large; expected at most 5,000 bytes; got {len(files['sick/large.png']):,} bytes"
    )


def test_a_class_of_which_nothing_is_left_is_refused_with_its_files(tmp_path: Path) -> None:
    files = folders(10) | {"flu/1.png": b"text", "flu/2.png": b"text"}
    with pytest.raises(BadSource) as raised:
        made(write(tmp_path / "in", files), tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[1] == "  flu: no film of this class could be taken; expected at least one image that can be decoded"
    assert [line.split(":")[0] for line in lines[2:]] == ["  flu/1.png", "  flu/2.png"]
    assert not list((tmp_path / "datasets").iterdir())


def test_a_class_with_one_image_is_refused(tmp_path: Path) -> None:
    files = folders(30) | {"flu/1.png": png(9, 9, 9), "cold/1.png": png(9, 9, 8), "cold/2.png": png(9, 9, 7)}
    source = write(tmp_path / "in", files)
    with pytest.raises(BadSource) as raised:
        made(source, tmp_path)
    assert raised.value.exit_code == 2
    assert str(raised.value).splitlines() == [
        f"cannot make a data set of {source}",
        "  cold: the class has too few films to be in every split; expected at least 4 films to train on and to cut "
        "the other splits from; got 2 films. Add films of this class or leave it out",
        "  flu: the class has too few films to be in every split; expected at least 4 films to train on and to cut "
        "the other splits from; got 1 film. Add films of this class or leave it out",
    ]


def test_a_class_of_one_subject_is_refused(tmp_path: Path) -> None:
    files = folders(30) | {f"flu/bob{number}.png": png(9, number) for number in range(30)}
    with pytest.raises(
        BadSource, match=r"flu: the class has too few subjects .* at least 4 subjects .* got 1 subject\."
    ):
        made(write(tmp_path / "in", files), tmp_path, subject=r"bob|[a-z]+/\d+")


def test_labels_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    files = folders(10)
    files["sick/same.png"] = files["normal/3.png"]
    source = write(tmp_path / "in", files)
    with pytest.raises(BadSource) as raised:
        made(source, tmp_path)
    assert raised.value.exit_code == 2
    assert str(raised.value) == (
        f"cannot make a data set of {source}\n"
        "  normal/3.png and sick/same.png: the same image carries two labels; expected one label an image; got normal "
        "and sick. Correct one of them, or leave both out: --repair does"
    )


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(BadSource) as raised:
        made(tmp_path / "in", tmp_path)
    assert raised.value.exit_code == 2
    assert str(raised.value) == (
        f"cannot make a data set of {tmp_path / 'in'}\n"
        f"  {tmp_path / 'in'}: no images in class folders; expected class folders (normal/*.png), or train, val and "
        "test folders of class folders, in a folder, .tar or .zip"
    )


def test_images_without_class_folders_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"no images in class folders.*\n  a\.png: lies outside the class folders"):
        made(write(tmp_path / "in", {"a.png": png(1)}), tmp_path)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="only one class; expected at least two class folders with images; got normal"):
        made(write(tmp_path / "in", {"normal/a.png": png(1), "normal/b.png": png(2)}), tmp_path)


def test_duplicates_across_given_splits_are_a_leak_and_each_pair_is_named(tmp_path: Path) -> None:
    files = folders(12, "train/") | folders(12, "test/")
    files["test/sick/copy.png"] = files["train/sick/5.png"]
    files["test/normal/x.png"] = files["train/normal/1.png"]
    source = write(tmp_path / "in", files)
    with pytest.raises(LeakFound) as raised:
        made(source, tmp_path, min_per_class=5)
    assert raised.value.exit_code == 4
    assert set(map(frozenset, raised.value.leaks)) == {
        frozenset({"test/sick/copy.png", "train/sick/5.png"}),
        frozenset({"test/normal/x.png", "train/normal/1.png"}),
    }
    lines = str(raised.value).splitlines()
    assert lines[0] == f"2 leaks between the splits of {source}"
    assert lines[1] == (
        "  test/normal/x.png and train/normal/1.png: the same image in two splits; expected each in one split; got "
        "test and train. Leave one of them out of the source: --repair does"
    )
    assert raised.value.public()["leaks"] == [list(pair) for pair in raised.value.leaks]
    assert not list((tmp_path / "datasets").iterdir())


def test_a_known_subject_in_two_given_splits_is_a_leak(tmp_path: Path) -> None:
    files = {
        **folders(12, "train/"),
        **folders(12, "test/"),
        "train/sick/bob_1.png": png(8),
        "test/sick/bob_2.png": png(9),
    }
    source = write(tmp_path / "in", files)
    with pytest.raises(LeakFound, match="1 leak between") as raised:
        made(source, tmp_path, subject="(bob)_", min_per_class=5)
    assert raised.value.leaks == (("test/sick/bob_2.png", "train/sick/bob_1.png"),)
    assert "one subject in two splits" in str(raised.value)
    assert made(source, tmp_path, min_per_class=5).taken == 50


def test_many_copies_are_all_named_without_naming_every_pair(tmp_path: Path) -> None:
    files = folders(12, "train/") | folders(12, "test/")
    files |= {f"{split}/sick/copy{number}.png": png(99) for split in ("train", "test") for number in range(20)}
    with pytest.raises(LeakFound) as raised:
        made(write(tmp_path / "in", files), tmp_path, min_per_class=5)
    assert len(raised.value.leaks) == 39
    assert {name for pair in raised.value.leaks for name in pair} == {name for name in files if "copy" in name}


def test_a_spec_that_cannot_be_kept_to_is_told_all_at_once(tmp_path: Path) -> None:
    spec = DataSpec(source="phantom:", name="a@b", subject="(", val=0.5, test=0.6, min_per_class=0)
    with pytest.raises(BadOverride) as raised:
        prepare(spec, folder=tmp_path)
    assert raised.value.exit_code == 2
    assert str(raised.value).splitlines() == [
        "cannot prepare data set 'a@b'",
        "  name: not a name for a data set; expected letters, digits, '.', '_', '+' and '-', and none of champion, "
        "latest; got 'a@b'",
        "  val, calibration, test: wrong fractions; expected 0 or more each, below 1 together; got a sum of 1.25",
        "  min_per_class: wrong minimum; expected 1 or more; got 0",
        "  subject: not a regular expression; expected one that Python's re takes; got '(': missing ), unterminated "
        "subpattern at position 0",
    ]
    with pytest.raises(BadOverride, match=r"got val=-0\.1, test=nan"):
        prepare(DataSpec(source="phantom:", name="x", val=-0.1, test=float("nan")), folder=tmp_path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"sick", "normal"}, ["normal", "sick"]),
        ({"bad", "Good"}, ["Good", "bad"]),
        ({"COVID", "NORMAL"}, ["NORMAL", "COVID"]),
        ({"normal", "flu", "cold"}, ["cold", "flu", "normal"]),
        ({str(n) for n in range(12)}, [str(n) for n in range(12)]),
        ({"cat", "dog"}, ["cat", "dog"]),
    ],
)
def test_classes_have_an_order_and_the_negative_comes_first(labels: set[str], expected: list[str]) -> None:
    assert class_order(labels) == expected


def test_films_that_are_checked_already_are_assembled(tmp_path: Path) -> None:
    done = made(write(tmp_path / "in", folders(10)), tmp_path)
    again = assemble("set", Films(done.dataset.path), done.dataset.classes, folder=tmp_path / "b", subjects_known=False)
    assert again.digest == done.dataset.digest


def test_statistics_count_and_measure(tmp_path: Path) -> None:
    done = made("phantom:n=120,size=32", tmp_path)
    told = statistics(done.dataset, imaging=ImagingSpec(16))
    assert told["images"] == 120
    assert told["splits"].keys() == told["measures"].keys() == done.dataset.splits.keys()
    assert {split: part["images"] for split, part in told["splits"].items()} == dict(done.dataset.splits)
    assert sum(part["subjects"] for part in told["splits"].values()) == told["subjects"] < 120
    assert sum(sum(part["classes"].values()) for part in told["splits"].values()) == 120
    assert told["width"] == told["height"] == {"min": 32, "median": 32.0, "max": 32}
    assert set(told["measures"]["train"]) == {"exposure", "contrast", "sharpness", "noise", "geometry"}
    assert 0.2 < told["measures"]["train"]["exposure"]["mean"] < 0.8
    assert told["measures"]["train"]["exposure"]["spread"] > 0


def test_the_chest_films_are_prepared_as_they_are(datasets: Path, tmp_path: Path) -> None:
    done = made(datasets / "chest_xray_224.tar", tmp_path, subject=CHEST_XRAY_SUBJECT)
    assert (done.taken, done.refused, done.leaks) == (5232, (), ())
    assert done.dataset.classes == ("NORMAL", "PNEUMONIA")
    assert done.dataset.splits == {"train": 3136, "val": 525, "calibration": 786, "test": 785}
    assert done.dataset.notes == (
        "24 images occur more than once (50 films): their films stay together",
        "the source's val (8 NORMAL, 8 PNEUMONIA) has under 50 films of a class: its films join train, and val is cut "
        "from there by subject",
        "calibration, test cut from train by subject: the source brings none",
    )
    opened = Films(done.dataset.path)
    homes = defaultdict(set)
    for split in done.dataset.splits:
        rows = opened.rows(split)
        for subject, image in zip(rows.subjects, rows.digests, strict=True):
            homes[subject].add(split)
            homes[image].add(split)
        assert 0.25 < np.mean(rows.labels == 0) < 0.27
    assert all(len(splits) == 1 for splits in homes.values())
    shutil.rmtree(tmp_path / "datasets")


def test_the_films_at_full_size_are_prepared(datasets: Path, tmp_path: Path) -> None:
    done = made(datasets / "chest_xray_fullres.tar", tmp_path)
    assert done.taken == 120
    assert done.dataset.splits == {"train": 72, "val": 12, "calibration": 18, "test": 18}


def test_pneumoniamnist_keeps_its_val_and_loses_the_copies_in_train(datasets: Path, tmp_path: Path) -> None:
    done = made(datasets / "pneumoniamnist_trainval.npz", tmp_path)
    assert done.dataset.classes == ("normal", "pneumonia")
    assert (done.taken, len(done.refused)) == (5222, 10)
    assert done.refused[0] == ("train_images[1435]", "an exact copy of val_images[172], which is in val")
    assert done.dataset.splits == {"train": 3288, "val": 524, "calibration": 705, "test": 705}
    assert done.dataset.notes[0] == "10 films of train are exact copies of films in val: left out of train"
    assert done.dataset.digest == "dfe26a2756a988fb42ef100e3807f15a54344af258ccf5586d666eafca21c2ad"
