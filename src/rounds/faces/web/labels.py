"""The body of POST /v1/labels: each row is taken or refused by itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rounds.core.errors import BadRequest, Fault
from rounds.core.ids import from_rfc3339
from rounds.core.records import Label
from rounds.faces.web.orders import parsed
from rounds.faces.web.predict import LONGEST, TEXT

KEYS = ("prediction", "reference", "label", "by", "at")
CSV = "text/csv"
MOST_ROWS = 10_000


def read_rows(body: bytes, content_type: str = "", by: str | None = None) -> list[Label | str]:
    """For each row its label, or the reason why it is none; with `by`, whatever a row says, that is who says it.

    The body is a JSON list of labels or one of them, or with the type text/csv a table with a header. Raises
    BadRequest: 400 where the body cannot be read, 413 for too many rows, 422 where it is neither object nor list.
    """
    if content_type.split(";", 1)[0].strip().lower() == CSV:
        rows: Any = _table(body)
    else:
        rows = parsed(body)
    rows = [rows] if isinstance(rows, Mapping) else rows
    if not isinstance(rows, list):
        example = 'send [{"prediction": "p_...", "label": "normal"}]'
        fault = Fault("the body is not a list", "body", "a JSON list of labels", _kind(rows), example)
        raise BadRequest("the labels cannot be read", [fault], status=422)
    if len(rows) > MOST_ROWS:
        fault = Fault("too many rows", "body", f"at most {MOST_ROWS:,}", f"{len(rows):,}", "send them in parts")
        raise BadRequest("too many labels at once", [fault], status=413)
    return [_label(row, by) for row in rows]


def _table(body: bytes) -> Sequence[Mapping[str, Any]]:
    try:
        text = io.StringIO(body.decode("utf-8-sig"), newline="")
        table = csv.DictReader(text, strict=True)
        rows = [{str(key): value for key, value in row.items() if value} for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        fault = Fault("the body is not CSV", "body", "a header and rows in UTF-8", str(error)[:200])
        raise BadRequest("the labels cannot be read", [fault]) from error
    head = set(table.fieldnames or ())
    if "label" not in head or not head & {"prediction", "reference"}:
        wanted = "a first line that names label and one of prediction and reference"
        fault = Fault("columns are missing", "body", wanted, ", ".join(map(str, table.fieldnames or ()))[:200])
        raise BadRequest("the labels cannot be read", [fault], status=422)
    return rows


def _label(row: Any, by: str | None) -> Label | str:
    if not isinstance(row, Mapping):
        return f"not an object but {_kind(row)}"
    faults = [f"unknown key {key[:40]!r}" for key in row if key not in KEYS]
    for key in KEYS:
        value = row.get(key)
        if not (isinstance(value, str) or (value is None and (key != "label" or key not in row))):
            faults.append(f"{key} is not text but {_kind(value)}")
        elif value and not TEXT.fullmatch(value):
            faults.append(f"{key} is not 1 to {LONGEST} printable characters")
    faults += ["label is missing"] if not row.get("label") else []
    if bool(row.get("prediction")) == bool(row.get("reference")):
        faults.append("one of prediction and reference is needed, and not both")
    if faults:
        return "; ".join(faults)
    try:
        at = from_rfc3339(row["at"]) if row.get("at") else None
    except (ValueError, OverflowError) as error:
        return f"at is not an RFC 3339 time: {error}"
    who = row.get("by") or "" if by is None else by
    return Label(row["label"], row.get("prediction") or None, row.get("reference") or None, who, at)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
