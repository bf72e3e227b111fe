"""Sources by kind: folder, archive, array file, table, DICOM tree, MedMNIST, phantoms; here or behind an address."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rounds.core.errors import BadOverride, Fault
from rounds.core.specs import DataSpec
from rounds.data import archives, medmnist, rows
from rounds.data.archives import open_archive
from rounds.data.arrays import open_arrays
from rounds.data.dicom import open_dicom
from rounds.data.items import Item, Source, bad_source
from rounds.data.layout import is_clutter, place, walk
from rounds.data.merged import merged, renamed, short_names, with_subjects
from rounds.data.remote import READERS, RemoteFile, RemoteFolder, is_address, is_web
from rounds.data.tables import open_table
from rounds.imaging.dicom import is_dicom
from rounds.imaging.packed import stored_png
from rounds.imaging.phantom import CLASSES, Phantom, Scanner, draw

_FILES = (*archives.SUFFIXES, ".npz", *rows.SUFFIXES)
_KINDS = f"a folder, one of {', '.join(_FILES)}, dicom:FOLDER, medmnist:NAME[_SIZE], or phantom:[n=4000,...]"
_TAG = "tag:"
_LOOKED_AT = 32


class Access(NamedTuple):
    """What sources need beside their description: the key of pseudonyms, where fetched files are kept, the place that
    stands in for their publisher, and who hears of bytes fetched and their total."""

    key: str = ""
    cache: Path = Path("cache")
    mirror: str | None = None
    progress: Callable[[int, int], None] | None = None


@contextmanager
def open_sources(spec: DataSpec, access: Access, subject: re.Pattern[str] | None = None) -> Iterator[Source]:
    """Opens the source of a data set, or several as one, with classes named and subjects found as the spec says.

    Raises: as `open_source`; BadOverride for what fits none of the sources, BadSource for sources that do not fit each
    other.
    """
    given = (spec.source, *spec.more)
    _check_options(spec, given)
    names = short_names(given) if spec.more else [""]
    with ExitStack() as stack:
        opened = [stack.enter_context(open_source(source, spec, access)) for source in given]
        sources = [with_subjects(source, subject) for source in renamed(opened, spec.classes)]
        names = [
            f"dicom-{number}" if source.nameless else name
            for number, (name, source) in enumerate(zip(names, sources, strict=True), 1)
        ]
        both = dict(zip(names, sources, strict=True))
        yield merged(both, shared_subjects=spec.shared_subjects) if spec.more else sources[0]


def _check_options(spec: DataSpec, given: Sequence[str]) -> None:
    tables = any(source.partition("?")[0].lower().endswith(rows.SUFFIXES) for source in given)
    faults = []
    if spec.root and not tables:
        faults.append(Fault("only a table has paths", "root", f"a source that is one of {', '.join(rows.SUFFIXES)}"))
    if spec.columns and not (tables or spec.labels):
        faults.append(
            Fault("only a table has columns", "columns", f"a source that is one of {', '.join(rows.SUFFIXES)}")
        )
    if spec.shared_subjects and not spec.more:
        faults.append(Fault("one source shares its subjects with none", "shared_subjects", "several sources"))
    if faults:
        raise BadOverride(f"cannot prepare data set {spec.name!r}", faults)


def open_source(
    source: str,
    spec: DataSpec = DataSpec(),  # noqa: B008 (frozen)
    access: Access = Access(),  # noqa: B008 (immutable)
) -> AbstractContextManager[Source]:
    """Opens a folder, archive, array file or table by path or address, a folder that `dicom:` names, a set that
    `medmnist:` names, or what `phantom:` describes.

    Raises: BadSource for what is none of them or cannot be read, BadOverride for options that it has not, StoreAway and
    WorldFault for addresses that cannot be reached, DamagedData for official files that are not.
    """
    kind, _, rest = source.partition(":")
    if kind == "dicom":
        return _open_dicom(rest, spec, access)
    if kind == "phantom":
        return _open_phantoms(rest)
    if kind == "medmnist":
        path = medmnist.fetch(rest, cache=access.cache, mirror=access.mirror, progress=access.progress)
        return open_arrays(path)
    if is_address(source):
        named = source.partition("?")[0].lower()
        if is_web(source) or named.endswith(_FILES):
            return _open_file(RemoteFile(source), spec)
        return _open_remote_folder(RemoteFolder(source.rstrip("/")))
    path = Path(source).expanduser()
    if not source or not path.exists():
        raise bad_source(repr(source), Fault("no such file or folder", source, _KINDS))
    if path.is_dir():
        return _open_dicom(source, spec, access) if _holds_dicom(path) else _open_folder(path, spec)
    return _open_file(path, spec)


def _open_dicom(folder: str, spec: DataSpec, access: Access) -> AbstractContextManager[Source]:
    path = Path(folder).expanduser()
    if not path.is_dir():
        then = "copy it to a folder of this machine first" if is_address(folder) else ""
        raise bad_source(repr(folder), Fault("no such folder", folder, "a folder of DICOM files", next=then))
    told = spec.labels or ""
    tag = told.removeprefix(_TAG) if told.startswith(_TAG) else None
    labels = Path(told).expanduser() if told and tag is None else None
    if labels and not labels.is_file():
        raise bad_source(
            repr(folder), Fault("no such table of labels", str(labels), f"one of {', '.join(rows.SUFFIXES)}")
        )
    return open_dicom(
        path,
        key=access.key,
        labels=labels,
        columns=spec.columns,
        tag=tag,
        limits=spec.limits,
        burned_in=spec.burned_in,
    )


def _holds_dicom(folder: Path) -> bool:
    """Whether most of the first files are DICOM, by their mark; what a reader leaves beside them does not count."""
    looked, marks = 0, 0
    for name, path in walk(folder, lambda _: None):
        if any(map(is_clutter, name.split("/"))) or path.suffix.lower() in rows.SUFFIXES or not path.is_file():
            continue
        with suppress(OSError), path.open("rb") as file:
            looked, marks = looked + 1, marks + is_dicom(file.read(132))
        if looked == _LOOKED_AT:
            break
    return 2 * marks > looked


def _open_file(file: Path | RemoteFile, spec: DataSpec) -> AbstractContextManager[Source]:
    name = file.name.lower()
    if name.endswith(".npz"):
        return open_arrays(file)
    if name.endswith(archives.SUFFIXES):
        return open_archive(file)
    if name.endswith(rows.SUFFIXES):
        return open_table(file, spec.columns, spec.root)
    raise bad_source(str(file), Fault("not a kind of source we take", str(file), _KINDS, file.suffix or "no suffix"))


@contextmanager
def _open_folder(path: Path, spec: DataSpec) -> Iterator[Source]:
    if spec.labels:
        then = "give the table itself as the source, with this folder as its --root"
        raise bad_source(
            str(path), Fault("labels are for DICOM films", spec.labels, "a folder of DICOM files", next=then)
        )
    refused: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        refused.append((str(error.filename), error.strerror or str(error)))

    files = dict(walk(path, unreadable))
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
    yield Source(len(items), iter(items), refused, layout.notes, labels=layout.labels)


@contextmanager
def _open_remote_folder(folder: RemoteFolder) -> Iterator[Source]:
    files = folder.files()
    layout = place(files)
    items = (Item(name, label, split, *files[name]) for name, (split, label) in layout.places.items())
    yield Source(len(layout.places), items, layout.refused, layout.notes, labels=layout.labels, readers=READERS)


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
def _open_phantoms(text: str) -> Iterator[Source]:
    options = _phantom_options(text)
    scanner = Scanner(**{key: value for key, value in options.items() if key in Scanner.__dataclass_fields__})
    n, seed, size = (int(options.get(key, default)) for key, default in (("n", 4000), ("seed", 0), ("size", 64)))
    films = draw(n, seed=seed, size=size, positive=options.get("positive", 0.5), scanner=scanner)
    yield Source(n, map(_phantom_item, films), subjects_known=True, labels=frozenset(CLASSES))


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
