"""The body of POST /v1/labels: each row is taken or refused by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rounds.core.errors import BadRequest, Fault
from rounds.core.ids import from_rfc3339
from rounds.core.records import Label

KEYS = ("prediction", "reference", "label", "by", "at")


def read_rows(body: bytes) -> list[Label | str]:
    """For each row its label, or the reason why it is none.

    Raises BadRequest: 400 where the body is not JSON, 422 where it is not a list.
    """
    try:
        rows = json.loads(body)
    except ValueError as error:
        fault = Fault("the body is not JSON", "body", "a JSON list of labels", str(error))
        raise BadRequest("the labels cannot be read", [fault]) from error
    if not isinstance(rows, list):
        example = 'send [{"prediction": "p_...", "label": "normal"}]'
        fault = Fault("the body is not a list", "body", "a JSON list of labels", _kind(rows), example)
        raise BadRequest("the labels cannot be read", [fault], status=422)
    return [_label(row) for row in rows]


def _label(row: Any) -> Label | str:
    if not isinstance(row, Mapping):
        return f"not an object but {_kind(row)}"
    faults = [f"unknown key {key!r}" for key in row if key not in KEYS]
    faults += [f"{key} is not text but {_kind(row[key])}" for key in KEYS if key in row and not _is_text(row[key], key)]
    faults += ["label is missing"] if not row.get("label") else []
    if bool(row.get("prediction")) == bool(row.get("reference")):
        faults.append("one of prediction and reference is needed, and not both")
    if faults:
        return "; ".join(faults)
    try:
        at = from_rfc3339(row["at"]) if row.get("at") else None
    except ValueError as error:
        return f"at is not an RFC 3339 time: {error}"
    return Label(row["label"], row.get("prediction"), row.get("reference"), row.get("by") or "", at)


def _is_text(value: Any, key: str) -> bool:
    return isinstance(value, str) or (value is None and key != "label")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
