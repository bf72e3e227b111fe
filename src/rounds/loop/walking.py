"""The files that a command line names, in one order, however many they are."""

from __future__ import annotations

import heapq
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rounds.core.errors import CallerFault, Fault

# Names of one folder that are held at once; what is beyond waits on disk, sorted.
HELD = 100_000
# Marks the name of a folder; no name holds it, and it sorts before all that a name may hold.
FOLDER = "\0"


def check(paths: Sequence[Path]) -> None:
    """Refuse, with CallerFault, paths that do not exist: all at once."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        faults = [
            Fault("no such file", str(path), "an image or a folder", "nothing", "check the path") for path in missing
        ]
        raise CallerFault(f"{len(missing)} of {len(paths)} paths do not exist", faults)


def walk(paths: Sequence[Path], besides: Sequence[Path] = ()) -> Iterator[str]:
    """The files, in the order of the paths, those below a folder sorted by the parts of their names.

    Left out are hidden files, links to folders, and what lies at `besides`. A folder that cannot be read stands in its
    own place.
    """
    left = {path.name: path.resolve() for path in besides}
    for path in paths:
        if path.is_dir():
            yield from _below(str(path), left)
        else:
            yield str(path)


def count(paths: Sequence[Path], besides: Sequence[Path] = ()) -> int:
    """How many files `walk` finds, at a fraction of its cost."""
    left = {path.name: path.resolve() for path in besides}
    return sum(_count(str(path), left) if path.is_dir() else 1 for path in paths)


def _below(folder: str, left: Mapping[str, Path]) -> Iterator[str]:
    before = _before(folder)
    try:
        names = _names(folder)
    except OSError:
        yield folder
        return
    for name in names:
        is_folder = name[-1] == FOLDER
        path = before + (name[:-1] if is_folder else name)
        if left and _is_left(path, left):
            continue
        if is_folder:
            yield from _below(path, left)
        else:
            yield path


def _count(folder: str, left: Mapping[str, Path]) -> int:
    before, found = _before(folder), 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = _name(entry)
                if name is None or (left and _is_left(before + entry.name, left)):
                    continue
                found += _count(before + entry.name, left) if name[-1] == FOLDER else 1
    except OSError:
        return 1
    return found


def _before(folder: str) -> str:
    return "" if folder == "." else folder.rstrip("/") + "/"


def _is_left(path: str, left: Mapping[str, Path]) -> bool:
    name = path.rpartition("/")[2]
    return name in left and Path(path).resolve() == left[name]


def _name(entry: os.DirEntry[str]) -> str | None:
    """The name of a file, or of a folder with its mark; None for what is not looked at."""
    if entry.is_dir(follow_symlinks=False):
        return entry.name + FOLDER
    return entry.name if entry.name[0] != "." and entry.is_file() else None


def _names(folder: str) -> Iterable[str]:
    """What lies in a folder and is to be looked at, sorted by name."""
    held, runs = list[str](), list[Iterable[str]]()
    with os.scandir(folder) as entries:
        for name in map(_name, entries):
            if name is not None:
                held.append(name)
            if len(held) == HELD:
                runs.append(_on_disk(sorted(held)))
                held.clear()
    held.sort()
    return heapq.merge(*runs, held) if runs else held


def _on_disk(names: Sequence[str]) -> Iterator[str]:
    file = tempfile.TemporaryFile("w+")  # noqa: SIM115 (the iterator closes it)
    file.writelines(json.dumps(name) + "\n" for name in names)
    file.seek(0)

    def again() -> Iterator[str]:
        with file:
            yield from map(json.loads, file)

    return again()
