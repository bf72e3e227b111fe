"""The OpenAPI description of every route, written by hand: what it says is what tests hold the server to."""

from __future__ import annotations

from typing import Any

from rounds.faces.web import examples
from rounds.faces.web.schemas import PREDICTION_ID, SCHEMAS, TEXT, ref

PROBLEM = "application/problem+json"
JSON = "application/json"
WHY = {
    400: "The image is broken, or the body cannot be read",
    401: "No key that holds",
    403: "The key lacks the scope",
    404: "There is nothing of this id, or no more",
    409: "A rule said no; `report` says why",
    413: "The body or an image is over a limit; it was not read whole",
    415: "Not an image or archive that is taken, or the wrong content type",
    422: "A parameter, field or row is wrong, or an idempotency key was used for another request",
    429: "The key asks too often; see retry-after",
    503: "No champion, overloaded, too late, or the answer could not be kept; nothing was answered; see retry-after",
}
KEYED = (401, 403, 429, 503)
ABOUT = """An image classifier in service: every answer is calibrated, kept, and can be traced and undone.

Every answer bears `x-request-id` (the caller's own where one was sent). Where the workspace has keys
(`rounds keys add`), send one as `authorization: Bearer KEY` or as `x-api-key: KEY`; without keys the server answers
this machine alone, and needs none.
"""


def document(title: str, version: str) -> dict[str, Any]:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": ABOUT, "license": {"name": "MIT"}},
        "security": [{"bearer": []}, {"key": []}],
        "tags": [{"name": name} for name in ("predict", "labels", "models", "watch", "health")],
        "paths": _paths(),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _paths() -> dict[str, Any]:
    return {
        "/v1/predict": {"post": _predict()},
        "/v1/predict/batch": {"post": _batch()},
        "/v1/predictions/{prediction}": {"get": _recall()},
        "/v1/predictions/{prediction}/explanation.png": {"get": _explain()},
        "/v1/labels": {"post": _labels()},
        "/v1/promote": {"post": _promote()},
        "/v1/rollback": {"post": _rollback()},
        "/v1/models": {"get": _get("models", "Who serves, and who served", "Models", examples.MODELS, KEYED)},
        "/v1/findings": {
            "get": _get("findings", "What the watch found", "Findings", examples.FINDINGS, KEYED, "watch")
        },
        "/health/live": {"get": _health("live", "Whether the process should go on", "Live", examples.LIVE)},
        "/health/ready": {"get": _health("ready", "Whether films are answered", "Ready", examples.READY)},
        "/metrics": {"get": _metrics()},
    }


def _operation(name: str, tag: str, summary: str, done: dict[str, Any], *statuses: int, **more: Any) -> dict[str, Any]:
    request_id = {"x-request-id": {"schema": {"type": "string"}, "description": "the caller's own, else a fresh one"}}
    example = examples.PROBLEM
    problem = {PROBLEM: {"schema": ref("Problem"), "example": example}}
    refused = {
        str(one): {"description": WHY[one], "headers": request_id, "content": problem} for one in sorted(statuses)
    }
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        **more,
        "responses": {"200": {**done, "headers": request_id}, **refused},
    }


def _done(description: str, schema: Any, example: Any) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema, "example": example}}}


def _query(name: str, about: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    given = schema or {"type": "string", "pattern": TEXT}
    return {"name": name, "in": "query", "required": False, "description": about, "schema": given}


_ONCE = {
    "name": "idempotency-key",
    "in": "header",
    "required": False,
    "description": "The same key and body again get the same answer, and nothing is done twice; kept for a day",
    "schema": {"type": "string", "format": "idempotency-key", "pattern": "^[!-~]{1,255}$"},
}
_ID = {
    "name": "prediction",
    "in": "path",
    "required": True,
    "description": "The id of an answer",
    "schema": {"type": "string", "pattern": PREDICTION_ID},
}
_SUBJECT = _query("subject", "Whose film it is; stored only as a keyed pseudonym")
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_ENCODED = {"contentType": "image/png, image/jpeg, image/tiff, application/dicom"}
_FORM = {
    "schema": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "one image"},
            "files": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "description": "several images",
            },
        },
    },
    "encoding": {"file": _ENCODED, "files": _ENCODED},
}


def _predict() -> dict[str, Any]:
    one = {"summary": "one image", "value": examples.PREDICTION}
    many = {"summary": "several images", "value": {"predictions": [examples.PREDICTION]}}
    schema = {"anyOf": [ref("Prediction"), ref("Predictions")]}
    content = {JSON: {"schema": schema, "examples": {"one": one, "many": many}}}
    done = {"description": "One prediction; for several files, a list under `predictions`", "content": content}
    reference = _query("reference", "The caller's own number of the film; labels may name it later")
    types = ("image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream")
    return _operation(
        "predict",
        "predict",
        "Answer one film, or several",
        done,
        *(400, 413, 415, 422, *KEYED),
        parameters=[reference, _SUBJECT, _ONCE],
        requestBody={"required": True, "content": {**dict.fromkeys(types, _BINARY), "multipart/form-data": _FORM}},
    )


def _batch() -> dict[str, Any]:
    done = _done("Each film's answer or refusal, by its name", ref("Batch"), examples.BATCH)
    types = ("application/zip", "application/x-tar", "application/gzip")
    return _operation(
        "predict_batch",
        "predict",
        "Answer the films of an archive, or of a form of many files",
        done,
        *(400, 413, 415, 422, *KEYED),
        description="At most 1,000 entries; a film that is not taken is refused by name and does not stop the others.",
        parameters=[_SUBJECT, _ONCE],
        requestBody={"required": True, "content": {**dict.fromkeys(types, _BINARY), "multipart/form-data": _FORM}},
    )


def _recall() -> dict[str, Any]:
    done = _done("The answer as it was given, and its true label once known", ref("Recalled"), examples.RECALLED)
    return _operation("recall", "predict", "Give an answer again", done, 404, *KEYED, parameters=[_ID])


def _explain() -> dict[str, Any]:
    style = _query("style", "How it is drawn", {"type": "string", "enum": ["heat", "contour"], "default": "heat"})
    number = {"type": "number", "minimum": 0, "maximum": 1, "default": 0.6}
    done = {"description": "The film with the map laid over it", "content": {"image/png": _BINARY}}
    return _operation(
        "explain",
        "predict",
        "Show where the model looked",
        done,
        *(404, 422, *KEYED),
        parameters=[
            _ID,
            _query("class", "For which class; default: the one that was answered"),
            style,
            _query("opacity", "How much of the film is covered", number),
        ],
    )


def _labels() -> dict[str, Any]:
    row = {"anyOf": [ref("Label"), {"description": "any other row is refused by its number"}]}
    one = {"anyOf": [ref("Label"), {"type": "object"}]}
    schema = {"anyOf": [{"type": "array", "items": row}, one]}
    content = {
        JSON: {"schema": schema, "example": examples.LABELS},
        "text/csv": {
            "schema": {"type": "string", "format": "csv"},
            "example": "prediction,label\np_0193a4c5e1f3b0c1d2e4f,normal\n",
        },
    }
    return _operation(
        "label",
        "labels",
        "Say what films truly showed",
        _done("How many were kept, and why each other row was not", ref("Attached"), examples.ATTACHED),
        *(400, 413, 422, *KEYED),
        parameters=[_ONCE],
        requestBody={"required": True, "content": content},
    )


def _promote() -> dict[str, Any]:
    return _operation(
        "promote",
        "models",
        "Ask the gate, and put a bundle in service where it passes",
        _done("It is champion now", ref("Moved"), examples.MOVED),
        *(400, 404, 409, 413, 415, 422, *KEYED),
        description="Needs the scope operate; `overrule` needs admin, and its reason is recorded.",
        parameters=[_ONCE],
        requestBody={"required": True, "content": {JSON: {"schema": ref("Promote"), "example": {"version": "v4"}}}},
    )


def _rollback() -> dict[str, Any]:
    example = {"why": "it misses what the old one saw"}
    return _operation(
        "rollback",
        "models",
        "Put the version before back in service",
        _done("It is champion again", ref("Moved"), examples.ROLLED_BACK),
        *(400, 404, 409, 413, 415, 422, *KEYED),
        description="Needs the scope operate.",
        parameters=[_ONCE],
        requestBody={"required": True, "content": {JSON: {"schema": ref("Rollback"), "example": example}}},
    )


def _get(
    name: str, summary: str, schema: str, example: Any, statuses: tuple[int, ...], tag: str = "models"
) -> dict[str, Any]:
    return _operation(name, tag, summary, _done(summary, ref(schema), example), *statuses)


def _health(name: str, summary: str, schema: str, example: Any) -> dict[str, Any]:
    return _operation(name, "health", summary, _done("It is", ref(schema), example), 503, security=[])


def _metrics() -> dict[str, Any]:
    done = {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}
    about = "Open to all where the server listens on loopback alone; elsewhere it needs a key of any scope."
    return _operation(
        "metrics", "health", "Metrics in the Prometheus text format", done, *KEYED, description=about, security=[]
    )
