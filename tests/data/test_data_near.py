"""Near copies are found whatever was done to them, nothing else is; leaks between splits are refused or repaired."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.support.planted import CHANGES, jpeg, phantom_folders, resized

from rounds.core.errors import BadSource, LeakFound
from rounds.core.records import Prepared
from rounds.core.specs import DataSpec
from rounds.data import near
from rounds.data.prepare import CHEST_XRAY_SUBJECT, prepare
from rounds.imaging.decode import decode
from rounds.imaging.likeness import look, signatures
from rounds.imaging.packed import Films, stored_png

SUBJECT = r"(phantom-\d+-\d+)_"


def made(source: Path | str, tmp_path: Path, **options: object) -> Prepared:
    spec = DataSpec(source=str(source), name="set", min_per_class=3, **options)  # type: ignore[arg-type]
    return prepare(spec, folder=tmp_path / "datasets")


def plant(root: Path) -> dict[str, str]:
    """Copies of films of train in test, changed in every way; the original of each."""
    originals = sorted((root / "train").rglob("*.png"))[:: len(CHANGES)]
    planted: dict[str, str] = {}
    for original, (kind, (change, _)) in zip(originals, CHANGES.items(), strict=False):
        place = root / "test" / original.parent.name / f"{kind}.img"
        data = change(decode(original.read_bytes()))
        place = place.with_suffix(".png" if data.startswith(b"\x89PNG") else ".jpg")
        place.write_bytes(data)
        planted[place.relative_to(root).as_posix()] = original.relative_to(root).as_posix()
    return planted


def pairs_of(leaks: tuple[tuple[str, str], ...]) -> set[frozenset[str]]:
    return set(map(frozenset, leaks))


def test_every_planted_copy_is_a_leak_and_nothing_else_is(tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in")
    assert made(root, tmp_path).leaks == ()
    planted = plant(root)
    with pytest.raises(LeakFound) as raised:
        made(root, tmp_path)
    assert raised.value.exit_code == 4
    assert pairs_of(raised.value.leaks) == {frozenset(pair) for pair in planted.items()}
    said = {
        fault.where.partition(" and ")[0].rsplit("/", 1)[-1].partition(".")[0]: fault for fault in raised.value.faults
    }
    assert {kind: said[kind].got for kind in CHANGES if kind != "exact"} == {
        kind: f"test and train ({how})" for kind, (_, how) in CHANGES.items() if kind != "exact"
    }


def test_near_copies_in_the_films_to_be_cut_stay_on_one_side(tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 80, splits=())
    for index, place in enumerate(sorted(root.rglob("*.png"))[::2]):
        change, _ = list(CHANGES.values())[index % len(CHANGES)]
        place.with_name(f"copy-{index:03d}.png").write_bytes(change(decode(place.read_bytes())))
    done = made(root, tmp_path, subject=SUBJECT)
    assert done.dataset.notes[-2:] == (
        "32 pictures occur in near copies (64 films): their films stay together",
        "val, calibration, test cut from train by subject: the source brings none",
    )
    films = Films(done.dataset.path)
    home = {film.name: film.split for film in films}
    for index, place in enumerate(sorted(root.rglob("phantom*.png"))[::2]):
        name = place.relative_to(root).as_posix()
        assert home[name] == home[name.replace(place.name, f"copy-{index:03d}.png")]


def test_the_order_of_the_source_changes_nothing(tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 40, splits=())
    for place in sorted(root.rglob("*.png"))[::4]:
        place.with_suffix(".jpg").write_bytes(jpeg(decode(place.read_bytes()), 90))
    again = tmp_path / "again"
    for place in sorted(root.rglob("*.*"), reverse=True):
        (again / place.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (again / place.relative_to(root)).write_bytes(place.read_bytes())
    assert made(root, tmp_path / "a").dataset.digest == made(again, tmp_path / "b").dataset.digest


def test_repair_keeps_test_as_it_is_and_drops_or_moves_the_rest(tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 120, splits=("train", "val", "test"))
    planted = plant(root)
    moved = sorted((root / "train").rglob("*.png"))[-1]
    subject = moved.name.rpartition("_")[0]
    for place in sorted((root / "train").rglob(f"{subject}_*.png"))[:1]:
        place.rename(root / "val" / place.parent.name / place.name)
    with pytest.raises(LeakFound):
        made(root, tmp_path, subject=SUBJECT)
    done = made(root, tmp_path, subject=SUBJECT, repair=True)
    did = {row["file"]: row["did"] for row in done.public()["repaired"]}
    assert {name: did[name] for name in planted.values()} == dict.fromkeys(planted.values(), "dropped")
    assert Counter(did.values())["moved to val"] == len(sorted((root / "train").rglob(f"{subject}_*.png")))
    assert all(name.startswith("train/") for name in did)
    assert done.dataset.splits["test"] == len(sorted((root / "test").rglob("*.*")))
    assert done.dataset.notes[0] == "repaired: 5 films of train dropped: copies of films in test"
    assert {film.name for film in Films(done.dataset.path)} & set(planted.values()) == set()


def test_repair_drops_every_film_of_a_picture_with_two_labels(tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 60, splits=())
    one, other, *_ = sorted((root / "normal").glob("*.png"))[::8]
    (root / "opacity" / "exact.png").write_bytes(one.read_bytes())
    (root / "opacity" / "near.jpg").write_bytes(jpeg(decode(other.read_bytes()), 85))
    with pytest.raises(BadSource, match="the same image carries two labels"):
        made(root, tmp_path)
    done = made(root, tmp_path, repair=True)
    names = (f"normal/{one.name}", f"normal/{other.name}", "opacity/exact.png", "opacity/near.jpg")
    assert done.public()["repaired"] == [
        {"file": names[0], "did": "dropped", "why": _why("normal", names[2], "opacity")},
        {"file": names[1], "did": "dropped", "why": _why("normal", names[3], "opacity")},
        {"file": names[2], "did": "dropped", "why": _why("opacity", names[0], "normal")},
        {"file": names[3], "did": "dropped", "why": _why("opacity", names[1], "normal")},
    ]
    assert done.taken == 58


def _why(label: str, other: str, theirs: str) -> str:
    return f"is labelled {label}, and {other}, which shows the same picture, {theirs}"


def test_near_copies_with_two_labels_are_told_but_do_not_stop(tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 60, splits=())
    place = sorted((root / "normal").glob("*.png"))[0]
    (root / "opacity" / "near.jpg").write_bytes(jpeg(decode(place.read_bytes()), 85))
    notes = made(root, tmp_path).dataset.notes
    said = f"near copies carry different labels: normal/{place.name} is normal and opacity/near.jpg is opacity"
    assert said in notes


def test_in_a_sealed_array_near_copies_of_val_leave_train(tmp_path: Path) -> None:
    films = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8)
    films = np.stack([resized(film, 28) for film in films])
    labels = np.arange(60) % 2
    val = films[:8].copy()
    val[2:5] = np.clip(val[2:5].astype(int) + 2, 0, 255)
    val[5:8] = val[5:8, :, ::-1]
    rest = np.stack([255 - film[::-1] for film in films[8:16]])
    np.savez(
        tmp_path / "a.npz",
        train_images=films,
        train_labels=labels,
        val_images=np.concatenate([val, rest]),
        val_labels=labels[:16],
    )
    done = made(tmp_path / "a.npz", tmp_path)
    assert done.dataset.splits["val"] == 16
    assert done.refused[:3] == (
        ("train_images[0]", "an exact copy of val_images[0], which is in val"),
        ("train_images[1]", "an exact copy of val_images[1], which is in val"),
        ("train_images[2]", "a near copy of val_images[2] (shifted by +2.0 gray levels), which is in val"),
    )
    assert done.refused[7] == ("train_images[7]", "a near copy of val_images[7] (mirrored), which is in val")
    assert done.dataset.notes[:2] == (
        "2 films of train are exact copies of films in val: left out of train",
        "6 films of train are near copies of films in val: left out of train",
    )


def test_blank_films_are_no_copies_of_each_other(tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 40)
    for index in range(6):
        blank = np.full((64, 64), index, np.uint8)
        (root / ("train", "test")[index % 2] / "normal" / f"blank{index}.png").write_bytes(stored_png(blank))
    assert made(root, tmp_path).leaks == ()


def test_hundreds_of_versions_of_one_film_are_one_group() -> None:
    base = resized(np.random.default_rng(1).integers(60, 200, (6, 6), np.uint8), 28)
    noise = np.random.default_rng(2).integers(-2, 3, (700, 28, 28))
    films = np.clip(base + noise, 0, 255).astype(np.uint8)
    found = near.find(signatures([look(film) for film in films]), np.zeros(700, bool), lambda index: films[index])
    assert len(near.groups(700, [(pair.one, pair.other) for pair in found.pairs])[0]) == 700
    assert found.unsearched > 0


@pytest.mark.slow
def test_real_films_that_were_changed_are_all_found_and_no_other(datasets: Path, tmp_path: Path) -> None:
    done = made(datasets / "chest_xray_224.tar", tmp_path, subject=CHEST_XRAY_SUBJECT)
    films = [film for film in Films(done.dataset.path) if film.split == "train"]
    chosen = np.random.default_rng(0).permutation(len(films))[:200]
    root = tmp_path / "planted"
    expected: set[frozenset[str]] = set()
    for film in films:
        place = root / "train" / film.label / Path(film.name).name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(film.data)
    for number, index in enumerate(chosen):
        film = films[index]
        change, _ = list(CHANGES.values())[number % len(CHANGES)]
        place = root / "test" / film.label / f"planted-{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        gray = decode(film.data)
        place.write_bytes(film.data if number % len(CHANGES) == 0 else change(gray))
        original = f"train/{film.label}/{Path(film.name).name}"
        expected.add(frozenset({place.relative_to(root).as_posix(), original}))
    with pytest.raises(LeakFound) as raised:
        made(root, tmp_path)
    assert expected <= pairs_of(raised.value.leaks)
    # films that the set itself holds twice are leaks through their planted twin
    twice = Counter(film.data for film in films)
    double = {f"train/{film.label}/{Path(film.name).name}" for film in films if twice[film.data] > 1}
    assert all(pair & double for pair in pairs_of(raised.value.leaks) - expected)
