"""Labels that come later, the audit's draw, and subjects who are to be forgotten."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rounds.core.errors import BadLabel, Fault, UnknownId
from rounds.core.ids import from_rfc3339, hash01, rfc3339
from rounds.core.ports import Captures, Ports
from rounds.core.records import Captured, Label

PAGE = 10_000
COLUMNS = ("prediction", "reference", "label", "by", "at")


@dataclass
class Attached:
    """How many labels were kept, and each refused one by its row (from 0) with the reason."""

    accepted: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)

    def public(self) -> dict[str, Any]:
        return {"accepted": self.accepted, "refused": self.refused}


def pseudonym(secret: str, subject: str) -> str:
    """The name under which a subject is stored: HMAC-SHA256 under the workspace's key, 32 hex digits."""
    return hmac.new(secret.encode(), subject.encode(), hashlib.sha256).hexdigest()[:32]


def audited(secret: str, prediction: str, share: float) -> bool:
    """Whether the audit draws this prediction: settled by its id alone, before outcome and alarm."""
    return hash01(secret, "audit", prediction) < share


def attach(ports: Ports, labels: Sequence[Label | str], classes: Sequence[str], now: datetime) -> Attached:
    """Keep the good labels in one transaction and refuse the others by row; text in place of a label is its reason.

    A reference that several predictions share labels all of them. A label that repeats what is known is refused as a
    duplicate, one that contradicts it as contradictory: the first label of a prediction stays.
    """
    done, kept = Attached(), dict[str, Label]()
    places = [_places(ports, label) for label in labels]
    known = ports.captures.labels([row.prediction for rows in places for row in rows])
    for row, (label, rows) in enumerate(zip(labels, places, strict=True)):
        reason = label if isinstance(label, str) else _reason(label, rows, classes, now, {**known, **kept})
        if reason or isinstance(label, str):
            done.refused.append({"row": row, "reason": reason})
            continue
        kept.update({found.prediction: label for found in rows if found.prediction not in known})
        done.accepted += 1
    ports.captures.attach(list(kept.items()))
    return done


def erase(ports: Ports, subject: str, who: str) -> dict[str, Any]:
    """Drop a subject's rows, labels and images, and append `erased` with the pseudonym alone.

    Raises UnknownId where nothing of that subject is kept.
    """
    name = pseudonym(ports.secret, subject)
    rows = [row for row in _every(ports.captures) if row.subject == name]
    if not rows:
        fault = Fault(
            "nothing is kept of this subject", "--subject", "a subject named at prediction", "none", "check the name"
        )
        raise UnknownId("no such subject", [fault])
    images = {row.image for row in rows}
    images -= {row.image for row in _every(ports.captures) if row.image in images and row.subject != name}
    ports.blobs.delete_many(sorted(images))
    # The rows go last: as long as they stand, an erasure that was killed can be done again whole.
    late = set(ports.captures.erase(name)) - images
    ports.blobs.delete_many(sorted(late))
    answer = {"subject": name, "predictions": len(rows), "images": len(images | late)}
    ports.events.append("erased", who=who, why="a subject asked to be forgotten", evidence=answer)
    return answer


def read_labels(path: Path) -> list[Label]:
    """Labels of a CSV file with a header, or of JSON lines; BadLabel names every faulty row at once."""
    found, faults = list[Label](), list[Fault]()
    for number, row in _rows(path):
        try:
            found.append(_label(row))
        except (ValueError, TypeError) as error:
            fault = Fault(
                str(error), f"{path.name} row {number}", f"columns {', '.join(COLUMNS)}", json.dumps(row), "correct it"
            )
            faults.append(fault)
    if faults:
        raise BadLabel(f"{len(faults)} rows of {path.name} are no labels", faults)
    return found


def _every(captures: Captures) -> Iterator[Captured]:
    # A page that is not full is the last: with films coming in, there would be one more for ever.
    seq, full = 0, True
    while full:
        rows = captures.since(seq, PAGE)
        yield from rows
        seq, full = rows[-1].seq if rows else seq, len(rows) == PAGE


def _places(ports: Ports, label: Label | str) -> Sequence[Captured]:
    if isinstance(label, str) or bool(label.prediction) == bool(label.reference):
        return ()
    if label.reference:
        return ports.captures.by_reference(label.reference)
    found = ports.captures.find(label.prediction or "")
    return (found,) if found else ()


def _reason(
    label: Label, rows: Sequence[Captured], classes: Sequence[str], now: datetime, known: Mapping[str, Label]
) -> str | None:
    """Why a label is refused; None where it is good."""
    if bool(label.prediction) == bool(label.reference):
        return "one of prediction and reference is needed, and not both"
    if not rows:
        what = "prediction" if label.prediction else "reference"
        return f"unknown {what} {label.prediction or label.reference!r}"
    if label.label not in classes:
        return f"unknown class {label.label!r}; known are {', '.join(classes)}"
    if label.at is not None and label.at > now:
        return f"dated in the future: {rfc3339(label.at)}"
    others = {known[row.prediction].label for row in rows if row.prediction in known}
    if others - {label.label}:
        return f"contradictory: already labelled {', '.join(sorted(others - {label.label}))}"
    return "duplicate: already labelled so" if all(row.prediction in known for row in rows) else None


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fault = Fault(
            "the labels cannot be read", str(path), "a CSV or JSON lines file in UTF-8", str(error), "check the path"
        )
        raise BadLabel(f"cannot read {path}", [fault]) from error
    if path.suffix == ".csv":
        try:
            yield from enumerate(csv.DictReader(io.StringIO(text, newline="")), 2)
        except csv.Error as error:
            fault = Fault("not CSV", str(path), "a header and rows", str(error), "write the file anew")
            raise BadLabel(f"cannot read {path}", [fault]) from error
        return
    # JSON text may hold U+2028, at which str.splitlines would cut a row in two.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _parsed(line)


def _parsed(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    return row if isinstance(row, dict) else {"not JSON": line}


def _label(row: Mapping[str, Any]) -> Label:
    strange = [str(key) for key in row if key not in COLUMNS]
    if strange:
        raise ValueError(f"unknown column {', '.join(strange)}")
    if not row.get("label"):
        raise ValueError("label is missing")
    strange = [key for key in COLUMNS if not isinstance(row.get(key) or "", str)]
    if strange:
        raise ValueError(f"{', '.join(strange)} must be text")
    if bool(row.get("prediction")) == bool(row.get("reference")):
        raise ValueError("one of prediction and reference is needed, and not both")
    at = from_rfc3339(row["at"]) if row.get("at") else None
    return Label(row["label"], row.get("prediction") or None, row.get("reference") or None, row.get("by") or "", at)
