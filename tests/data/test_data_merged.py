"""Several sources as one data set: names and subjects apart, order of no account, labels that mean the same."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rounds.core.errors import BadOverride, BadSource, LeakFound
from rounds.core.records import Prepared
from rounds.core.specs import DataSpec
from rounds.data.merged import short_names
from rounds.data.prepare import prepare
from rounds.imaging.packed import Films, stored_png


def png(*seed: int) -> bytes:
    return stored_png(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8))


def folder(root: Path, key: int, labels: tuple[str, ...] = ("normal", "sick"), n: int = 12) -> Path:
    """n images a class of n/2 subjects, all different, of class folders."""
    for place, label in enumerate(labels):
        (root / label).mkdir(parents=True)
        for number in range(n):
            (root / label / f"p{number // 2}{label}-{number}.png").write_bytes(png(key, place, number))
    return root


def arrays(path: Path, n: int = 24) -> Path:
    images = np.random.default_rng(5).integers(0, 256, (n, 12, 12), dtype=np.uint8)
    np.savez(path, train_images=images, train_labels=np.arange(n, dtype=np.uint8) % 2)
    return path


def made(tmp_path: Path, *sources: Path | str, **options: Any) -> Prepared:
    first, *more = map(str, sources)
    spec = DataSpec(first, "set", min_per_class=1, more=tuple(more), **options)
    return prepare(spec, folder=tmp_path / "out")


def test_any_order_of_the_sources_gives_the_same_data_set(tmp_path: Path) -> None:
    sources = [folder(tmp_path / "a/films", 0), folder(tmp_path / "b/films", 1), arrays(tmp_path / "c.npz")]
    classes = ("0=normal", "1=sick")
    done = [made(tmp_path, *order, classes=classes, subject=r"^\w+/(p\d)") for order in permutations(sources)]
    assert len({one.dataset.digest for one in done}) == 1
    assert done[0].taken == 72
    films = {film.name: film for film in Films(done[0].dataset.path)}
    film = films["a/films/sick/p2sick-5.png"]
    assert (film.label, film.subject, film.attributes) == ("sick", "a/films/p2", {"source": "a/films"})
    assert films["c.npz/train_images[3]"].label == "sick"
    assert {film.attributes["source"] for film in films.values()} == {"a/films", "b/films", "c.npz"}


def test_subjects_of_different_sources_are_different_people_unless_they_are_shared(tmp_path: Path) -> None:
    sources = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    apart = Films(made(tmp_path, *sources, subject="(p[0-9]+)").dataset.path)
    shared = Films(made(tmp_path, *sources, subject="(p[0-9]+)", shared_subjects=True).dataset.path)
    assert {film.subject for film in apart} == {f"{name}/p{number}" for name in "ab" for number in range(6)}
    assert {film.subject for film in shared} == {f"p{number}" for number in range(6)}
    assert len({film.split for film in shared if film.subject == "p3"}) == 1


def test_sources_with_other_classes_are_refused_naming_both_sets(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1, ("NORMAL", "PNEUMONIA"))
    with pytest.raises(BadSource) as raised:
        made(tmp_path, one, other)
    assert raised.value.exit_code == 2
    expected = "NORMAL, PNEUMONIA, normal, sick"
    assert str(raised.value).splitlines() == [
        "cannot make a data set of a and b",
        f"  a: its classes are not those of the others; expected {expected}; got normal, sick",
        f"  b: its classes are not those of the others; expected {expected}; got NORMAL, PNEUMONIA",
        "  one of the sources must have all the classes. Rename with --classes OLD=NEW,...",
    ]
    done = made(tmp_path, one, other, classes=("NORMAL=normal", "PNEUMONIA=sick"))
    assert (done.dataset.classes, done.taken) == (("normal", "sick"), 48)


def test_a_source_with_some_of_the_classes_is_taken_with_a_warning(tmp_path: Path) -> None:
    done = made(tmp_path, folder(tmp_path / "a", 0), folder(tmp_path / "b", 1, ("normal",)))
    assert done.dataset.notes[0] == (
        "b: brings no sick: a model may learn to tell the sources apart instead of the classes"
    )
    with pytest.raises(BadSource, match="only one class"):
        made(tmp_path, folder(tmp_path / "c", 2, ("normal",)), folder(tmp_path / "d", 3, ("normal",)))


def test_what_a_source_refuses_is_listed_with_its_name(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    (one / "stray.png").write_bytes(png(9))
    (other / "sick/text.png").write_text("text")
    done = made(tmp_path, one, other)
    assert [file for file, _ in done.refused] == ["a/stray.png", "b/sick/text.png"]


def test_a_copy_in_another_sources_test_split_is_a_leak(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "a", 0), folder(tmp_path / "b/test", 1)
    (other / "sick/copy.png").write_bytes(png(0, 1, 3))
    with pytest.raises(LeakFound) as raised:
        made(tmp_path, one, tmp_path / "b")
    assert raised.value.leaks == (("a/sick/p1sick-3.png", "b/test/sick/copy.png"),)


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (("/x/a", "/x/b"), ["a", "b"]),
        (("/x/films", "/y/films/"), ["x/films", "y/films"]),
        (("/films", "/y/films"), ["films", "y/films"]),
        (("s3://one/films", "gs://two/films"), ["one/films", "two/films"]),
        (("phantom:n=8", "medmnist:pneumoniamnist_64"), ["phantom:n=8", "medmnist:pneumoniamnist_64"]),
        (("/x/a/f.zip", "/x/a/f.tar"), ["f.zip", "f.tar"]),
    ],
)
def test_sources_are_called_by_the_last_parts_that_tell_them_apart(sources: tuple[str, ...], names: list[str]) -> None:
    assert short_names(sources) == names
    assert short_names(sources[::-1]) == names[::-1]


def test_one_source_given_twice_is_refused(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", 0)
    with pytest.raises(BadSource, match="the source is given twice; expected each once"):
        made(tmp_path, one, f"{one}/")


def test_labels_by_number_get_names_and_named_ones_may_be_joined(tmp_path: Path) -> None:
    path = arrays(tmp_path / "films.npz")
    assert made(tmp_path, path).dataset.classes == ("0", "1")
    assert made(tmp_path, path, classes=("well", "ill", "unused")).dataset.classes == ("ill", "well")
    three = folder(tmp_path / "three", 3, ("bacteria", "normal", "virus"))
    done = made(tmp_path, three, classes=("bacteria=pneumonia", "virus=pneumonia"))
    assert done.by_class["train"].keys() == {"normal", "pneumonia"}


@pytest.mark.parametrize(
    ("classes", "faults"),
    [
        (("well",), [("1", "the label has no name")]),
        (("0=well", "ill"), [("ill", "not a new name for a class"), ("ill", "no film bears this label")]),
        (("2=ill",), [("2", "no film bears this label")]),
        (("0=",), [("0=", "not a new name for a class")]),
    ],
)
def test_names_for_classes_that_fit_nothing_are_refused(
    tmp_path: Path, classes: tuple[str, ...], faults: list[tuple[str, str]]
) -> None:
    with pytest.raises(BadOverride) as raised:
        made(tmp_path, arrays(tmp_path / "films.npz"), classes=classes)
    assert [(fault.where, fault.what) for fault in raised.value.faults] == faults
