"""Files in one order, from folders of any size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rounds.core.errors import CallerFault
from rounds.loop import walking


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "place"
    for name in ("b/2.png", "b/1.png", "b.png", "a/z/9.png", "a/é.png", "a/.hidden.png", ".h/1.png", "c d.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")
    (place / "a" / os.fsdecode(b"\xff\n.png")).write_bytes(b"")
    (place / "link.png").symlink_to(place / "b.png")
    (place / "around").symlink_to(place)
    monkeypatch.chdir(place)
    return place


def test_files_come_sorted_by_the_parts_of_their_names(place: Path) -> None:
    sorted_as_paths = sorted(p for p in place.rglob("*") if p.is_file() and not p.name.startswith("."))
    assert list(walking.walk([place])) == [str(path) for path in sorted_as_paths]
    found = [".h/1.png", "a/z/9.png", "a/é.png", "a/\udcff\n.png", "b/1.png", "b/2.png", "b.png", "c d.png", "link.png"]
    assert list(walking.walk([Path()])) == found
    assert list(walking.walk([Path("b"), Path("c d.png"), Path("b")])) == [
        "b/1.png",
        "b/2.png",
        "c d.png",
        "b/1.png",
        "b/2.png",
    ]


def test_a_folder_with_more_names_than_are_held_is_sorted_all_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(100):
        (place / f"{i * 37 % 100:02d}\n.png").write_bytes(b"")
    whole = list(walking.walk([place]))
    monkeypatch.setattr(walking, "HELD", 7)
    assert list(walking.walk([place])) == whole
    assert len(whole) == walking.count([place]) == 109


def test_what_is_written_there_is_left_out_and_nothing_else_of_its_name(place: Path) -> None:
    (place / "a" / "b.png").write_bytes(b"")
    found = list(walking.walk([Path()], [place / "b.png", place / "b"]))
    assert "b.png" not in found
    assert "b/1.png" not in found
    assert "a/b.png" in found
    assert walking.count([Path()], [place / "b.png", place / "b"]) == len(found)


def test_every_missing_path_is_named(place: Path) -> None:
    with pytest.raises(CallerFault, match=r"1 of 2 paths do not exist\n  none: no such file; expected an image or a f"):
        walking.check([place, Path("none")])
