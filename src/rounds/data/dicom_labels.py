"""What a table says of DICOM films: label, split and attributes, joined by an identifier that does not go on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rounds.core.errors import BadOverride, Fault
from rounds.core.specs import SPLITS
from rounds.data.layout import SPLIT_NAMES
from rounds.data.rows import RowFaults, open_rows

# What a row may be joined by, the most telling first, and what such columns are called (letters and digits alone).
JOINS: Mapping[str, tuple[str, ...]] = {
    "SOPInstanceUID": ("sopinstanceuid", "sopuid", "instanceuid"),
    "path": ("path", "file", "filename", "filepath", "image", "dicomid"),
    "SeriesInstanceUID": ("seriesinstanceuid", "seriesuid"),
    "StudyInstanceUID": ("studyinstanceuid", "studyuid"),
    "AccessionNumber": ("accessionnumber", "accession"),
    "PatientID": ("patientid", "patient", "subjectid", "subject"),
}
_LABELS = ("label", "class", "target", "finding")
_SPLITS = ("split", "set", "fold")


class Said(NamedTuple):
    """What is known of a film besides its pixels; `split` is None where nothing says."""

    label: str
    split: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass
class LabelTable:
    """Rows by the value they are joined by; `join` is one of JOINS."""

    join: str
    rows: dict[str, Said] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def of(self, joins: Mapping[str, Sequence[str]]) -> Said | None:
        """What the table says of a film whose values these are, or None."""
        for value in joins.get(self.join, ()):
            if value in self.rows:
                self.used.add(value)
                return self.rows[value]
        return None

    def notes(self) -> Iterator[str]:
        """What the operator should know once every film was looked up."""
        idle = len(self.rows) - len(self.used)
        if idle:
            yield f"{idle} of {len(self.rows)} rows of the label table belong to no film"


def paths_of(files: Iterable[str]) -> dict[str, list[str]]:
    """What a table may call each file: its path, and its name with and without suffix where no other has it."""
    paths = [PurePosixPath(file) for file in files]
    times = Counter(name for path in paths for name in {path.name, path.stem})
    return {str(path): [str(path), *(name for name in (path.name, path.stem) if times[name] == 1)] for path in paths}


def read_labels(table: Path, columns: Sequence[str] = ()) -> LabelTable:
    """Reads a CSV or Parquet of labels; every value is text.

    `columns` are pairs role=column: of label and split, of what the rows are joined by (one of JOINS), or of an
    attribute. Without them the usual names are looked for. Raises: BadOverride for columns that are not there,
    BadSource naming each faulty row.
    """
    faults = RowFaults()
    with open_rows(table) as rows:
        roles = _roles(table, rows.names, columns)
        join = next(role for role in JOINS if role in roles)
        attributes = [role for role in roles if role not in (join, "label", "split")]
        order = [join, "label", *(["split"] if "split" in roles else []), *attributes]
        found = LabelTable(join)
        first: dict[str, int] = {}
        for number, values in rows.texts([roles[role] for role in order], faults):
            said = dict(zip(order, values, strict=True))
            _enter(found, first, number, said, attributes, faults)
    faults.check(str(table))
    return found


def _enter(
    found: LabelTable,
    first: dict[str, int],
    number: int,
    said: Mapping[str, str],
    attributes: Sequence[str],
    faults: RowFaults,
) -> None:
    key = said[found.join].removeprefix("./")
    split = SPLIT_NAMES.get(said.get("split", "").lower())
    if not key:
        faults.add(number, "the row does not say whose it is", f"a {found.join}")
    if not said["label"]:
        faults.add(number, "the row has no label", "the name of a class")
    if said.get("split") and split is None:
        faults.add(number, "no such split", f"one of {', '.join(SPLITS)}", repr(said["split"]))
    row = Said(said["label"], split, tuple((name, said[name]) for name in attributes if said[name]))
    before = found.rows.setdefault(key, row)
    if before[:2] != row[:2]:
        # The value itself would name somebody in a log: the rows say enough.
        what = f"the row contradicts row {first[key]}, which has the same {found.join}"
        faults.add(number, what, "one label and one split each", f"{before.label} and {row.label}")
    first.setdefault(key, number)


def _roles(table: Path, names: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """The column of each role that there is."""
    known = {join.lower(): join for join in JOINS}
    roles: dict[str, str] = {}
    faults: list[Fault] = []
    for pair in columns:
        role, _, column = pair.partition("=")
        role = known.get(role.strip().lower(), role.strip())
        if column.strip() in names:
            roles[role] = column.strip()
        elif column.strip():
            near = get_close_matches(column.strip(), names, 1)
            hint = f"did you mean {near[0]}?" if near else ""
            faults.append(Fault("no such column", column.strip(), f"one of {', '.join(names)}", next=hint))
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(names)}
    for role, usual in (("label", _LABELS), ("split", _SPLITS)):
        there = [plain[name] for name in usual if name in plain]
        if role not in roles and there:
            roles[role] = there[0]
    if not roles.keys() & JOINS.keys():
        joins = [(join, plain[name]) for join, usual in JOINS.items() for name in usual if name in plain]
        roles.update(joins[:1])
    if "label" not in roles and not faults:
        faults.append(Fault("no column of labels", table.name, f"one of {', '.join(_LABELS)}, or label=COLUMN"))
    if not roles.keys() & JOINS.keys() and not faults:
        faults.append(Fault("no column to join by", table.name, f"one of {', '.join(JOINS)}, or one of them=COLUMN"))
    if faults:
        raise BadOverride(f"cannot read labels from {table.name}", faults)
    return roles
