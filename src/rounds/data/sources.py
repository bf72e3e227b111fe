"""Sources by kind: folder, archive, array file, phantoms."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from rounds.core.errors import BadOverride, Fault
from rounds.data.archives import SUFFIXES, open_archive
from rounds.data.arrays import open_arrays
from rounds.data.items import Item, Source, bad_source
from rounds.data.layout import place
from rounds.imaging.packed import stored_png
from rounds.imaging.phantom import Phantom, Scanner, draw

_KINDS = f"a folder, one of {', '.join(SUFFIXES)}, .npz, or phantom:[n=4000,...]"


def open_source(source: str) -> AbstractContextManager[Source]:
    """Opens a folder, archive or array file by path, or `phantom:` with options.

    Raises: BadSource for what is none of them or cannot be read, BadOverride for unknown phantom options.
    """
    if source == "phantom" or source.startswith("phantom:"):
        return _open_phantoms(source)
    path = Path(source).expanduser()
    if "://" in source or not source or not path.exists():
        what = "this kind of address is not taken yet" if "://" in source else "no such file or folder"
        raise bad_source(repr(source), Fault(what, source, _KINDS))
    if path.is_dir():
        return _open_folder(path)
    if path.name.lower().endswith(".npz"):
        return open_arrays(path)
    if path.name.lower().endswith(SUFFIXES):
        return open_archive(path)
    raise bad_source(source, Fault("not a kind of source we take", source, _KINDS, path.suffix or "no suffix"))


@contextmanager
def _open_folder(path: Path) -> Iterator[Source]:
    refused: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        refused.append((str(error.filename), error.strerror or str(error)))

    files = dict(_walk(path, unreadable))
    layout = place(files)
    refused += layout.refused
    items: list[Item] = []
    for name, (split, label) in layout.places.items():
        try:
            info = files[name].stat()
        except OSError as error:
            refused.append((name, error.strerror or str(error)))
            continue
        if stat.S_ISREG(info.st_mode):
            items.append(Item(name, label, split, info.st_size, files[name].read_bytes))
        else:
            refused.append((name, "not a plain file"))
    yield Source(len(items), iter(items), refused, layout.notes)


def _walk(root: Path, unreadable: Callable[[OSError], None]) -> Iterator[tuple[str, Path]]:
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


# Each option of phantom:, and the values that make sense for it.
_OPTIONS = {
    "n": (8, 1_000_000),
    "seed": (0, 2**31 - 1),
    "size": (16, 1024),
    "positive": (0.01, 0.99),
    "exposure": (0.05, 10.0),
    "gamma": (0.1, 10.0),
    "blur": (0.0, 20.0),
    "noise": (0.0, 1.0),
    "crop": (0.0, 0.45),
}
_WHOLE = ("n", "seed", "size")


@contextmanager
def _open_phantoms(source: str) -> Iterator[Source]:
    options = _phantom_options(source.partition(":")[2])
    scanner = Scanner(**{key: value for key, value in options.items() if key in Scanner.__dataclass_fields__})
    n, seed, size = (int(options.get(key, default)) for key, default in (("n", 4000), ("seed", 0), ("size", 64)))
    films = draw(n, seed=seed, size=size, positive=options.get("positive", 0.5), scanner=scanner)
    yield Source(n, map(_phantom_item, films), subjects_known=True)


def _phantom_item(film: Phantom) -> Item:
    read = partial(stored_png, film.pixels)
    return Item(f"{film.name}.png", film.label, None, film.pixels.size, read, film.subject)


def _phantom_options(text: str) -> dict[str, float]:
    options: dict[str, float] = {}
    faults: list[Fault] = []
    for part in filter(None, map(str.strip, text.strip("[] ").split(","))):
        key, _, value = part.partition("=")
        if key not in _OPTIONS:
            near = get_close_matches(key, _OPTIONS, 1)
            hint = f"did you mean {near[0]}?" if near else ""
            faults.append(Fault("no such phantom option", key, f"one of {', '.join(_OPTIONS)}", key, hint))
            continue
        low, high = _OPTIONS[key]
        try:
            options[key] = int(value) if key in _WHOLE else float(value)
            fits = low <= options[key] <= high
        except ValueError:
            fits = False
        if not fits:
            kind = "a whole number" if key in _WHOLE else "a number"
            faults.append(Fault("wrong phantom option", key, f"{kind} from {low:,} to {high:,}", repr(value)))
    if faults:
        raise BadOverride(f"cannot draw phantom:{text}", faults)
    return options
