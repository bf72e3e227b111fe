"""A mix of films against a live server, and what came of it as JSON.

    locust -f deploy/load/locustfile.py --headless --host URL -u USERS -t SECONDS     (make load does all of it)

ROUNDS_LOAD_FILMS is a folder of films whose names begin with their kind (small, photo, full, dicom, bad),
ROUNDS_LOAD_OUT is the file to write; ROUNDS_KEY, if the server asks for one, needs the scopes predict and label.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, constant_throughput, events, task

FILMS = Path(os.environ["ROUNDS_LOAD_FILMS"])
OUT = Path(os.environ.get("ROUNDS_LOAD_OUT", "load.json"))
KEY = os.environ.get("ROUNDS_KEY", "")
RATE = float(os.environ.get("ROUNDS_LOAD_RATE", "0"))  # requests a second of each user; 0: as fast as it is answered
LABELLED = 0.02
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".dcm": "application/dicom", ".bin": "image/png"}
WEIGHTS = {"small": 12, "photo": 6, "full": 1, "dicom": 2, "bad": 1}


def films() -> dict[str, Iterator[tuple[bytes, str]]]:
    """Of each kind that is there its films with their content types, round and round."""
    found: dict[str, list[tuple[bytes, str]]] = {}
    for path in sorted(FILMS.iterdir()):
        found.setdefault(path.name.partition("-")[0], []).append((path.read_bytes(), TYPES[path.suffix]))
    return {kind: itertools.cycle(of_kind) for kind, of_kind in found.items()}


STUMBLED: list[str] = []
MIX = films()
KINDS = sorted(MIX)


class Clinic(FastHttpUser):
    """Sends films of all kinds, and now and then says what one truly showed."""

    wait_time = constant_throughput(RATE) if RATE else constant(0)
    connection_timeout = network_timeout = 30.0

    @task
    def predict(self) -> None:
        """One film; what is expected of a bad one is a refusal that says why."""
        (kind,) = random.choices(KINDS, [WEIGHTS[kind] for kind in KINDS])
        data, content_type = next(MIX[kind])
        headers = {"content-type": content_type} | ({"authorization": f"Bearer {KEY}"} if KEY else {})
        path = f"/v1/predict?reference=load-{uuid.uuid4().hex}"
        with self.client.post(path, data, headers=headers, name=kind, catch_response=True) as answer:
            expected = answer.status_code in (400, 415, 422) if kind == "bad" else answer.status_code == 200
            if not expected:
                answer.failure(f"{answer.status_code} {(answer.text or '')[:200]}")
                return
            answer.success()
        if kind != "bad" and random.random() < LABELLED:
            self.label(answer.json(), headers)

    def label(self, answer: dict[str, Any], headers: dict[str, str]) -> None:
        """Say that the film shows what was answered."""
        row = {"prediction": answer["id"], "label": answer["class"], "by": "load"}
        headers = headers | {"content-type": "application/json"}
        with self.client.post(
            "/v1/labels", json.dumps([row]), headers=headers, name="label", catch_response=True
        ) as done:
            if done.status_code != 200 or done.json()["accepted"] != 1:
                done.failure(f"{done.status_code} {(done.text or '')[:200]}")


@events.user_error.add_listener
def stumble(exception: Exception, **_: Any) -> None:
    """Remember what this file itself did wrong: a user that stopped asking is no proof of anything."""
    STUMBLED.append(repr(exception))


@events.quitting.add_listener
def write(environment: Any, **_: Any) -> None:
    """Store requests, failures, rates and percentiles (milliseconds), by kind and in all."""
    stats = environment.stats

    def figures(entry: Any) -> dict[str, Any]:
        percentiles = {f"p{round(q * 100)}": entry.get_response_time_percentile(q) for q in (0.5, 0.95, 0.99)}
        rate = entry.num_requests / max(stats.total.last_request_timestamp - stats.total.start_time, 1e-9)
        counts = {"requests": entry.num_requests, "failures": entry.num_failures, "per_second": rate}
        return counts | percentiles | {"max": entry.max_response_time}

    kinds = {name: figures(entry) for (name, _), entry in sorted(stats.entries.items())}
    faults = [{"kind": e.name, "what": str(e.error), "n": e.occurrences} for e in stats.errors.values()]
    faults += [{"kind": "user", "what": what, "n": STUMBLED.count(what)} for what in sorted(set(STUMBLED))]
    OUT.write_text(json.dumps({"total": figures(stats.total), "kinds": kinds, "faults": faults}, indent=2))
