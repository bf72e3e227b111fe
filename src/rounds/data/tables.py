"""CSV and Parquet manifests: a row a film, with its path (or its bytes), label, subject, split and attributes."""

from __future__ import annotations

import posixpath
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rounds.core.errors import BadOverride, Fault
from rounds.core.specs import SPLITS
from rounds.data.items import Item, Source, bad_source
from rounds.data.layout import SPLIT_NAMES
from rounds.data.remote import READERS, Entry, RemoteFile, RemoteFolder, is_address
from rounds.data.rows import RowFaults, Rows, open_rows

# What the columns are usually called, best first; in any case.
_USUAL = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class", "target", "finding"),
    "subject": ("subject", "patient", "patient_id", "patientid", "subject_id"),
    "split": ("split", "set", "fold"),
}


class _Row(NamedTuple):
    number: int
    path: str
    label: str
    subject: str | None
    split: str | None
    attributes: Mapping[str, str]


@contextmanager
def open_table(file: Path | RemoteFile, columns: Sequence[str] = (), root: str | None = None) -> Iterator[Source]:
    """Opens a .csv, .tsv or .parquet whose rows are films; every value is read as text, so that 007 stays 007.

    `columns` are pairs role=column for path, label, subject and split where they do not bear their usual names; any
    other role is an attribute of that name, and `role=` alone says that there is none. Paths are relative to `root`, or
    to the table's folder, and never lead out of it. A Parquet column of images (bytes, or {bytes, path}) is read in
    place of files, a few rows at a time.

    Raises: BadOverride for columns that are not there, BadSource naming each faulty row, StoreAway.
    """
    with open_rows(file) as table:
        roles = _roles(str(file), table.names, columns)
        faults, notes = RowFaults(), _left_out(table.names, roles)
        rows = _rows(table, roles, faults)
        films: Sequence[_Row | Item]
        readers = 1
        if roles["path"] in table.pictures:
            films = held = list(rows)
            items = _embedded(table, roles["path"], held)
        else:
            folder = _folder(file, root)
            films = found = list(_items(_once(rows, folder, faults, notes), folder, faults))
            items = iter(found)
            readers = READERS if isinstance(folder, _Remote) else 1
        faults.check(str(file))
        labels = frozenset(film.label for film in films)
        yield Source(len(films), items, [], notes, "subject" in roles, labels=labels, readers=readers)


def _roles(source: str, names: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """The column of each role: as `columns` says, else by its usual name; raises for every one that cannot be found."""
    pairs = [pair.partition("=") for pair in columns]
    roles = {role: column for role, _, column in pairs}
    faults = [
        Fault("not a column of the table", column, f"one of {', '.join(names)}", next=_near(column, names))
        for role, _, column in pairs
        if column and column not in names
    ]
    faults += [Fault("not a column by its role", "".join(pair), "role=column") for pair in pairs if not pair[1]]
    if faults:
        raise BadOverride(f"cannot read the columns of {source}", faults)
    given = set(roles.values())
    by_name = {name.casefold(): name for name in reversed(names) if name not in given}
    for role, usual in _USUAL.items():
        found = [by_name[name] for name in usual if name in by_name]
        if found and role not in roles:
            roles[role] = found[0]
    roles = {role: column for role, column in roles.items() if column}
    missing = [role for role in ("path", "label") if role not in roles]
    if missing:
        raise bad_source(source, *(_no_column(role, names) for role in missing))
    return roles


def _near(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else ""


def _no_column(role: str, names: Sequence[str]) -> Fault:
    hint = f"name it: --column {role}=NAME"
    return Fault(f"no column for the {role}", "the header", " or ".join(_USUAL[role]), ", ".join(names), hint)


def _left_out(names: Sequence[str], roles: Mapping[str, str]) -> list[str]:
    left = [name for name in names if name not in roles.values()]
    return [f"columns left out: {', '.join(left)} (--attributes makes slices of them)"] if left else []


def _rows(table: Rows, roles: Mapping[str, str], faults: RowFaults) -> Iterator[_Row]:
    """The rows that have a path, a label and a split that is one."""
    for number, values in table.texts(list(roles.values()), faults):
        said = dict(zip(roles, values, strict=True))
        path, label, split = said.pop("path"), said.pop("label"), said.pop("split", None)
        subject = said.pop("subject", None)
        if not path and roles["path"] not in table.pictures:
            faults.add(number, "no path", f"the path of an image in column {roles['path']}")
        if not label:
            faults.add(number, "no label", f"the class in column {roles['label']}")
        if split is not None and split.casefold() not in SPLIT_NAMES:
            then = f"if column {roles['split']} is something else: --column split="
            faults.add(number, "unknown split", f"one of {', '.join(SPLITS)}", repr(split), then)
        place = None if split is None else SPLIT_NAMES.get(split.casefold())
        yield _Row(number, path, label, subject or None, place, said)


def _embedded(table: Rows, column: str, rows: Sequence[_Row]) -> Iterator[Item]:
    """Items whose bytes are in the table, in its order."""
    often = Counter(row.path for row in rows)
    for row, (number, data) in zip(rows, table.images(column), strict=True):
        name = row.path if row.path and often[row.path] == 1 else f"{row.path or column}[{number}]"
        yield _item(row._replace(path=name), Entry(len(data or b""), partial(_bytes, data)))


def _bytes(data: bytes | None) -> bytes:
    if data is None:
        raise OSError("the row holds no image")
    return data


def _item(row: _Row, entry: Entry) -> Item:
    return Item(row.path, row.label, row.split, entry.size, entry.read, row.subject, row.attributes)


class _Local:
    """The folder that paths of a table are relative to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.address = root.absolute().as_posix()

    def entry(self, path: str) -> Entry | None:
        place = self._root / path
        try:
            info = place.stat()
        except (OSError, ValueError):  # ValueError: no path at all, with a NUL in it
            return None
        return Entry(info.st_size, place.read_bytes) if stat.S_ISREG(info.st_mode) else None


class _Remote:
    """The same behind an address, listed once."""

    def __init__(self, root: RemoteFolder) -> None:
        self._files = root.files()
        self.address = root.address

    def entry(self, path: str) -> Entry | None:
        return self._files.get(path)


def _folder(file: Path | RemoteFile, root: str | None) -> _Local | _Remote:
    if root is None:
        return _Remote(file.parent) if isinstance(file, RemoteFile) else _Local(file.parent)
    if is_address(root):
        return _Remote(RemoteFolder(root.rstrip("/")))
    if not Path(root).expanduser().is_dir():
        raise bad_source(str(file), Fault("no such folder", root, "the folder that its paths are relative to"))
    return _Local(Path(root).expanduser())


def _once(rows: Iterable[_Row], folder: _Local | _Remote, faults: RowFaults, notes: list[str]) -> Iterator[_Row]:
    """Each path once, as a path inside the folder; rows that say the same again are counted, others are faults."""
    first: dict[str, _Row] = {}
    again = 0
    for row in rows:
        path = _inside(row.path, folder.address)
        if path is None:
            then = f"name a folder that holds it: --root DIR (now {folder.address})"
            faults.add(row.number, "the path leads out of the folder", "a path inside it", row.path, then)
            continue
        row = row._replace(path=path)
        before = first.setdefault(path, row)
        if before is row:
            yield row
        elif before[2:] == row[2:]:
            again += 1
        elif path:
            _contradiction(before, row, faults)
    if again:
        notes.append(f"{again} rows say what an earlier row said of the same path: taken once")


def _contradiction(before: _Row, row: _Row, faults: RowFaults) -> None:
    kind = "label" if before.label != row.label else "split" if before.split != row.split else "subject or attribute"
    here, there = (f"{row.label}", f"{before.label}") if kind == "label" else ("another", "one")
    got = f"{here} here and {there} in row {before.number}, for {row.path}"
    faults.add(row.number, f"the path has a second {kind}", "one a path", got)


def _inside(path: str, root: str) -> str | None:
    """The path relative to the root, or None where it leads out; backslashes are those of another system."""
    path = path.replace("\\", "/")
    if path.startswith("/") or "://" in path:
        if not path.startswith(f"{root.rstrip('/')}/"):
            return None
        path = path[len(root.rstrip("/")) + 1 :]
    clean = posixpath.normpath(path) if path else ""
    return None if clean.split("/")[0] == ".." else clean


def _items(rows: Iterable[_Row], folder: _Local | _Remote, faults: RowFaults) -> Iterator[Item]:
    for row in rows:
        entry = folder.entry(row.path) if row.path else None
        if entry is not None:
            yield _item(row, entry)
        elif row.path:
            faults.add(row.number, "no such file", f"an image below {folder.address}", row.path)
