"""Which split and which class a file belongs to, from where it lies."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

EXPECTED = "class folders (normal/*.png), or train, val and test folders of class folders, in a folder, .tar or .zip"

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "calibration": "calibration",
    "test": "test",
    "testing": "test",
}
_CLUTTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}
_IMAGES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".dcm", ".dicom"}


@dataclass(frozen=True)
class Layout:
    """Split (None where the source has no splits) and class of each file that lies in a class folder."""

    places: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(label for _, label in self.places.values())


def place(names: Iterable[str]) -> Layout:
    """Recognises class folders, or split folders of class folders, below any wrapper folders.

    Names are paths inside the source with forward slashes. Hidden files and the clutter that desktops leave are passed
    over; images that lie outside the class folders are refused.
    """
    paths = [(name, tuple(name.split("/"))) for name in names]
    paths = [(name, parts) for name, parts in paths if not any(map(is_clutter, parts))]
    depth = _wrappers([parts for _, parts in paths])
    splits = _split_folders([parts[depth:] for _, parts in paths])
    layout = Layout()
    beside: Counter[str] = Counter()
    for name, parts in paths:
        inner = parts[depth:]
        if splits and len(inner) > 2 and inner[0] in splits:
            layout.places[name] = (SPLIT_NAMES[inner[0].lower()], inner[1])
        elif not splits and len(inner) > 1:
            layout.places[name] = (None, inner[0])
        elif len(inner) > 1 and inner[0] not in splits:
            beside[inner[0]] += 1
        elif PurePosixPath(name).suffix.lower() in _IMAGES:
            layout.refused.append((name, "lies outside the class folders"))
    for folder, count in sorted(beside.items()):
        layout.notes.append(
            f"folder {folder!r} lies beside {', '.join(sorted(splits))}: its {count} files are left out"
        )
    return layout


def walk(root: Path, unreadable: Callable[[OSError], None]) -> Iterator[tuple[str, Path]]:
    """Files below the folder by their path inside it, in order; linked folders are entered, each once."""
    seen: set[tuple[int, int]] = set()
    for folder, inner, names in os.walk(root, followlinks=True, onerror=unreadable):
        info = Path(folder).stat()
        if (info.st_dev, info.st_ino) in seen:
            inner.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        inner.sort()
        for name in sorted(names):
            path = Path(folder, name)
            inside = path.relative_to(root).as_posix()
            yield inside.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), path


def is_clutter(part: str) -> bool:
    """Whether a file or folder of this name is hidden, or left by a desktop."""
    return part.startswith(".") or part.lower() in _CLUTTER


def _wrappers(paths: Sequence[tuple[str, ...]]) -> int:
    """How many folders, one inside the other, hold everything and name neither a split nor a class."""
    depth = 0
    while True:
        inner = [parts[depth:] for parts in paths if len(parts) > depth + 1]
        only_one = len({parts[0] for parts in inner}) == 1
        if not only_one or not any(len(parts) > 2 for parts in inner) or _split_folders(inner):
            return depth
        depth += 1


def _split_folders(paths: Iterable[tuple[str, ...]]) -> set[str]:
    """The top folders that are named like a split and hold class folders."""
    return {parts[0] for parts in paths if len(parts) > 2 and parts[0].lower() in SPLIT_NAMES}
