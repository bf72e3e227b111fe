"""The files that a command line names, in one order, however many they are."""

from __future__ import annotations

import heapq
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rounds.core.errors import CallerFault, Fault

# Names of one folder that are held at once; what is beyond waits on disk, sorted.
HELD = 100_000


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


def _below(folder: str, left: dict[str, Path]) -> Iterator[str]:
    before = "" if folder == "." else folder.rstrip("/") + "/"
    try:
        names = _names(folder)
    except OSError:
        yield folder
        return
    for name, is_folder in names:
        path = before + name
        if name in left and Path(path).resolve() == left[name]:
            continue
        if is_folder:
            yield from _below(path, left)
        else:
            yield path


def _names(folder: str) -> Iterable[tuple[str, bool]]:
    """What lies in a folder and is a folder (True) or a file to look at, sorted by name."""
    held, runs = list[tuple[str, bool]](), list[Iterable[tuple[str, bool]]]()
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or (not entry.name.startswith(".") and entry.is_file()):
                held.append((entry.name, is_folder))
            if len(held) == HELD:
                runs.append(_on_disk(sorted(held)))
                held.clear()
    held.sort()
    return heapq.merge(*runs, held) if runs else held


def _on_disk(names: Sequence[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    file = tempfile.TemporaryFile("w+")  # noqa: SIM115 (the iterator closes it)
    file.writelines(json.dumps(name) + "\n" for name in names)
    file.seek(0)

    def again() -> Iterator[tuple[str, bool]]:
        with file:
            for line in file:
                name, is_folder = json.loads(line)
                yield name, is_folder

    return again()
