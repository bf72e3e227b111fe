"""The records that cross the API, as JSON schemas."""

from __future__ import annotations

from typing import Any

TEXT = "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,256}$"
WORDS = "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,1000}$"
REF = "^[A-Za-z0-9][A-Za-z0-9@_.-]{0,127}$"
PREDICTION_ID = "^p_[0-9a-f]{21}$"


def _object(required: str, optional: str = "", **properties: Any) -> dict[str, Any]:
    """An object; what may be absent is named in `optional`."""
    named = {key.rstrip("_"): value for key, value in properties.items()}
    assert set(named) == {*required.split(), *optional.split()}, set(named)
    return {"type": "object", "required": required.split(), "properties": named}


def ref(name: str) -> dict[str, str]:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


_STRING, _NUMBER, _INTEGER, _BOOLEAN = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_TIME = {"type": "string", "format": "date-time"}
_MAYBE_STRING, _MAYBE_NUMBER = {"type": ["string", "null"]}, {"type": ["number", "null"]}
_MAYBE_TIME = {"type": ["string", "null"], "format": "date-time"}

_ANSWER: dict[str, Any] = {
    "id": _STRING,
    "class_": {"type": "string", "description": "at the model's operating point"},
    "probabilities": {"type": "object", "additionalProperties": _SHARE, "description": "calibrated, by class"},
    "set_": {**_list(_STRING), "description": "the classes that are likely enough (conformal)"},
    "refer": {"type": "boolean", "description": "whether a person should look"},
    "reason": {**_MAYBE_STRING, "description": "why a person should look"},
    "ood": {**_SHARE, "description": "share of reference films at least as far out: near 0 is far out"},
    "version": _STRING,
    "bundle": {"type": "string", "description": "digest of the model that answered"},
    "ms": {"type": "number", "description": "milliseconds to the decision"},
    "reference": {"type": "string", "description": "the caller's own number of the film"},
    "path": {"type": "string", "description": "its name in an archive or form"},
}
_ALWAYS = "id class probabilities set refer reason ood version bundle ms"
_REFUSED_FILM = _object("path reason", path=_STRING, reason=_STRING)
_REFUSED_ROW = _object("row reason", row=_INTEGER, reason=_STRING)
_CHECK = _object(
    "name value limit passed note",
    name=_STRING,
    value=_MAYBE_NUMBER,
    limit=_MAYBE_NUMBER,
    passed=_BOOLEAN,
    note=_STRING,
)
_FAULT = _object(
    "what where expected got next", what=_STRING, where=_STRING, expected=_STRING, got=_STRING, next=_STRING
)

SCHEMAS: dict[str, Any] = {
    "Prediction": _object(_ALWAYS, "reference path", **_ANSWER),
    "Predictions": _object("predictions", predictions=_list(ref("Prediction"))),
    "Batch": _object("predictions refused", predictions=_list(ref("Prediction")), refused=_list(_REFUSED_FILM)),
    "Truth": _object("label by at", label=_STRING, by=_STRING, at=_MAYBE_TIME),
    "Recalled": _object(
        f"{_ALWAYS} at label",
        "reference path",
        **_ANSWER,
        at=_TIME,
        label={"anyOf": [ref("Truth"), {"type": "null"}], "description": "what the film truly showed, once known"},
    ),
    "Label": _object(
        "label",
        "prediction reference by at",
        label={"type": "string", "pattern": TEXT, "description": "a class of the model"},
        prediction={"type": "string", "description": "an answer's id; this or the reference"},
        reference={"type": "string", "pattern": TEXT, "description": "the number that the film was sent with"},
        by={"type": "string", "description": "who says so; with keys in force the key's name"},
        at=_TIME,
    ),
    "Attached": _object("accepted refused", accepted=_INTEGER, refused=_list(_REFUSED_ROW)),
    "Promote": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "bundle": {"type": "string", "pattern": REF, "description": "a digest, or a unique prefix"},
            "version": {"type": "string", "pattern": REF},
            "data": {"type": "string", "pattern": REF, "description": "test set; default: the one in force"},
            "overrule": {"type": "string", "pattern": WORDS, "description": "promote all the same, for this reason"},
        },
        "oneOf": [{"required": ["bundle"]}, {"required": ["version"]}],
    },
    "Rollback": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "to": {"type": "string", "pattern": REF, "description": "a version that once passed the gate"},
            "why": {"type": "string", "pattern": WORDS},
        },
    },
    "Moved": _object(
        "version from to passed checks seconds",
        "bundle candidate alpha power",
        version=_STRING,
        from_=_MAYBE_STRING,
        to=_STRING,
        passed=_BOOLEAN,
        checks=_list(_CHECK),
        seconds=_NUMBER,
        bundle=_STRING,
        candidate=_INTEGER,
        alpha=_NUMBER,
        power=_MAYBE_NUMBER,
    ),
    "Models": _object(
        "champion versions",
        champion=_MAYBE_STRING,
        versions=_list(
            _object("version bundle since until", version=_STRING, bundle=_STRING, since=_TIME, until=_MAYBE_TIME)
        ),
    ),
    "Findings": _object(
        "watching_since n findings", watching_since=_MAYBE_TIME, n=_INTEGER, findings=_list(ref("Finding"))
    ),
    "Finding": _object(
        "id kind alarm",
        "n at alpha log_e moved harm why",
        id=_STRING,
        kind=_STRING,
        alarm=_BOOLEAN,
        n=_INTEGER,
        at=_TIME,
        alpha=_NUMBER,
        log_e=_NUMBER,
        moved=_list(_object("what size", what=_STRING, size=_NUMBER)),
        harm={"type": "string", "enum": ["yes", "no", "unknown"]},
        why=_STRING,
    ),
    "Live": _object("status", status={"type": "string", "const": "live"}),
    "Ready": _object(
        "status version bundle", status={"type": "string", "const": "ready"}, version=_STRING, bundle=_STRING
    ),
    "Problem": _object(
        "type title status detail kind faults request_id",
        "report",
        type={"type": "string", "format": "uri"},
        title=_STRING,
        status=_INTEGER,
        detail=_STRING,
        kind=_STRING,
        faults=_list(_FAULT),
        request_id=_STRING,
        report={"type": "object", "description": "the gate's whole answer, where it refused"},
    ),
}
