"""One example of everything that the API says and hears."""

from __future__ import annotations

from typing import Any

PREDICTION: dict[str, Any] = {
    "id": "p_0193a4c5e1f3b0c1d2e4f",
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
    {"prediction": "p_0193a4c5e1f3b0c1d2e4f", "label": "pneumonia", "by": "dr-b", "at": "2026-11-21T14:03:00Z"},
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
BATCH: dict[str, Any] = {
    "predictions": [{**PREDICTION, "path": "night/film-0042.png"}],
    "refused": [{"path": "night/notes.txt", "reason": "not an image that is taken"}],
}
RECALLED: dict[str, Any] = {
    **PREDICTION,
    "at": "2026-11-21T14:03:00.000000Z",
    "label": {"label": "pneumonia", "by": "dr-b", "at": None},
}
MOVED: dict[str, Any] = {
    "version": "v4",
    "from": "v3",
    "to": "v4",
    "passed": True,
    "checks": [{"name": "auc", "value": 0.97, "limit": 0.8, "passed": True, "note": ""}],
    "seconds": 2.1,
}
ROLLED_BACK: dict[str, Any] = {**MOVED, "version": "v3", "from": "v4", "to": "v3", "checks": [], "seconds": 0.01}
LIVE: dict[str, Any] = {"status": "live"}
READY: dict[str, Any] = {"status": "ready", "version": "v3", "bundle": PREDICTION["bundle"]}
