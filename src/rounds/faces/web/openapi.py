"""The description of POST /v1/predict, written by hand because its route is plain ASGI; and the examples of all."""

from __future__ import annotations

from typing import Any

PREDICTION: dict[str, Any] = {
    "id": "p_0193a4c5e1f3b0c1d2e4f5",
    "class": "pneumonia",
    "probabilities": {"normal": 0.0716, "pneumonia": 0.9284},
    "set": ["pneumonia"],
    "refer": False,
    "reason": None,
    "ood": 0.62,
    "version": "v3",
    "bundle": "9f2c4e0d7a61b3858e0c9a7d2f41c6b5e8d3072f1a9b4c6d5e7f80912a3b4c5d",
    "ms": 2.4,
    "reference": "film-0042",
}
PROBLEM: dict[str, Any] = {
    "type": "urn:rounds:problem:bad-image",
    "title": "The bytes are not an image that is taken",
    "status": 400,
    "detail": "the image is broken",
    "kind": "BadImage",
    "faults": [
        {
            "what": "the JPEG ends early",
            "where": "",
            "expected": "a whole JPEG",
            "got": "a header that says 2,048 x 2,048 pixels",
            "next": "export or copy the file again",
        }
    ],
    "request_id": "r_0193a4c5e1f3b0c1d2e4f5",
}
LABELS: list[dict[str, Any]] = [
    {"prediction": "p_0193a4c5e1f3b0c1d2e4f5", "label": "pneumonia", "by": "dr-b", "at": "2026-11-21T14:03:00Z"},
    {"reference": "film-0043", "label": "normal"},
]
ATTACHED: dict[str, Any] = {
    "accepted": 1,
    "refused": [{"row": 1, "reason": "no prediction has the reference 'film-0043'"}],
}
MODELS: dict[str, Any] = {
    "champion": "v3",
    "versions": [
        {"version": "v3", "bundle": PREDICTION["bundle"], "since": "2026-11-21T09:00:00.000000Z", "until": None}
    ],
}
FINDINGS: dict[str, Any] = {
    "watching_since": "2026-11-21T09:00:00.000000Z",
    "n": 4210,
    "findings": [
        {
            "id": "f_0193a4c5e1f3b0c1d2e4f5",
            "kind": "drift",
            "alarm": True,
            "n": 4210,
            "at": "2026-11-21T13:37:00.000000Z",
            "alpha": 0.01,
            "log_e": 16.1,
            "moved": [{"what": "exposure", "size": 1.3}],
            "harm": "unknown",
        }
    ],
}

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {
    "file": {"type": "string", "format": "binary", "description": "one image"},
    "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "several images"},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, by status."""
    said = {
        400: "The image is broken, or the body cannot be read",
        413: "The body or the image is over a limit; it was not read whole",
        415: "Not an image that is taken, or the wrong content type",
        422: "A parameter, field or row is wrong",
        503: "No champion, overloaded, too late, or the answer could not be kept; nothing was answered",
    }
    content = {"application/problem+json": {"schema": {"type": "object"}, "example": PROBLEM}}
    return {status: {"description": said[status], "content": content} for status in statuses}


def answers(what: str, example: Any) -> dict[int | str, dict[str, Any]]:
    """The 200 response of a route, with an example."""
    return {200: {"description": what, "content": {"application/json": {"example": example}}}}


def predict_operation() -> dict[str, Any]:
    """The OpenAPI operation of POST /v1/predict."""
    said = {
        "reference": "The caller's own number of the film; labels may name it later",
        "subject": "Whose film it is; stored only as a keyed pseudonym",
    }
    schema = {"type": "string", "minLength": 1, "maxLength": 256}
    one = {"summary": "one image", "value": PREDICTION}
    many = {"summary": "several images", "value": {"predictions": [PREDICTION]}}
    done = {
        "description": "One prediction; for several files, a list under `predictions`",
        "headers": {
            "x-request-id": {"schema": {"type": "string"}, "description": "the caller's own, else a fresh one"}
        },
        "content": {"application/json": {"schema": {"type": "object"}, "examples": {"one": one, "many": many}}},
    }
    return {
        "tags": ["predict"],
        "summary": "Answer one film, or several",
        "operationId": "predict",
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
            for name, text in said.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/png": _IMAGE,
                "image/jpeg": _IMAGE,
                "application/octet-stream": _IMAGE,
                "multipart/form-data": {"schema": {"type": "object", "properties": _FILES}},
            },
        },
        "responses": {"200": done, **{str(key): value for key, value in problems(400, 413, 415, 422, 503).items()}},
    }
