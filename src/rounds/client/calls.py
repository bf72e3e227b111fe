"""What is said and heard, without a socket: every call of the API, and when it is tried again."""

from __future__ import annotations

import io
import json
import random
import time
import uuid
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from rounds.client.errors import ApiError, Unreachable
from rounds.core.ids import from_rfc3339, plain
from rounds.core.records import Label, Prediction

T = TypeVar("T")
AGAIN = (429, 502, 503, 504)


@dataclass(frozen=True)
class Ask:
    """A request, the same however often it is sent."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""


@dataclass(frozen=True)
class Heard:
    """An answer (its headers' names in lower case); `failure` says why there is none, and the status is 0 then."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    failure: Exception | None = None


@dataclass(frozen=True)
class Wait:
    """So many seconds."""

    seconds: float


@dataclass(frozen=True)
class Retry:
    """How often a call is tried, and for how many seconds in all; the server's Retry-After is kept to, and where it
    says nothing the wait doubles from `first_s` up to `longest_s`, with chance."""

    tries: int = 5
    within_s: float = 60.0
    first_s: float = 0.1
    longest_s: float = 10.0

    def wait(self, heard: Heard, tried: int, spent: float) -> float | None:
        """Seconds until the next try; None where there is none."""
        if not (heard.failure or heard.status in AGAIN) or tried >= self.tries:
            return None
        told = retry_after(heard.headers)
        usual: float = min(self.longest_s, self.first_s * 2.0 ** (tried - 1)) * random.uniform(0.5, 1.0)
        seconds = usual if told is None else told
        return seconds if spent + seconds <= self.within_s else None


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and what its answer means."""

    ask: Ask
    read: Callable[[bytes], T]


def carried_out(
    call: Call[T], retry: Retry, now: Callable[[], float] = time.monotonic
) -> Generator[Ask | Wait, Heard | None, T]:
    """Yields what is to be sent, for which it is given what was heard, and how long to wait; returns the answer.

    Raises ApiError where the server says no, Unreachable where there is no answer.
    """
    began, tried = now(), 0
    while True:
        heard, tried = (yield call.ask), tried + 1
        assert heard is not None, "whoever sends gives what was heard"
        if 200 <= heard.status < 300:
            return call.read(heard.body)
        seconds = retry.wait(heard, tried, now() - began)
        if seconds is None:
            break
        yield Wait(seconds)
    if heard.failure is not None:
        raise Unreachable(f"no answer to {call.ask.method} {call.ask.path}: {heard.failure}") from heard.failure
    raise ApiError.of(heard.status, heard.headers, heard.body, retry_after(heard.headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks to wait: as a number, or until a time."""
    told = headers.get("retry-after", "")
    if told.isdigit():
        return float(told)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


@dataclass(frozen=True)
class Answers:
    """The answers of a batch, each with its `path`; `refused` says why by path."""

    predictions: tuple[Prediction, ...]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Recalled:
    """An answer that was given at that time, and the true label where somebody said it."""

    prediction: Prediction
    at: datetime
    label: Label | None


@dataclass(frozen=True)
class Attached:
    """How many labels were kept; `refused` says why by row, from 0."""

    accepted: int
    refused: Mapping[int, str]


def predict(
    film: bytes,
    *,
    reference: str | None = None,
    subject: str | None = None,
    content_type: str = "application/octet-stream",
    idempotency_key: str | None = None,
) -> Call[Prediction]:
    """Answer one film; sent again, the same key gets the same answer."""
    headers = {"content-type": content_type, **_once(idempotency_key)}
    params = _present(reference=reference, subject=subject)
    return Call(Ask("POST", "/v1/predict", params, headers, film), lambda body: _prediction(json.loads(body)))


def predict_batch(
    films: Mapping[str, bytes], *, subject: str | None = None, idempotency_key: str | None = None
) -> Call[Answers]:
    """Answer many films by name; one that is not taken does not stop the others."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, film in films.items():
            # no time of day: the same films make the same bytes
            archive.writestr(zipfile.ZipInfo(name), film)
    headers = {"content-type": "application/zip", **_once(idempotency_key)}
    ask = Ask("POST", "/v1/predict/batch", _present(subject=subject), headers, packed.getvalue())
    return Call(ask, _answers)


def recall(prediction: str) -> Call[Recalled]:
    """Give an answer again."""
    return Call(Ask("GET", f"/v1/predictions/{quote(prediction, safe='')}"), _recalled)


def explain(prediction: str, *, label: str | None = None, style: str = "heat", opacity: float = 0.6) -> Call[bytes]:
    """Show where the model looked, as a PNG; `style` is heat or contour."""
    params = {"style": style, "opacity": f"{opacity:.6f}", **_present(**{"class": label})}
    return Call(Ask("GET", f"/v1/predictions/{quote(prediction, safe='')}/explanation.png", params), bytes)


def label(labels: Label | Sequence[Label], *, idempotency_key: str | None = None) -> Call[Attached]:
    """Say what films truly showed."""
    many = [labels] if isinstance(labels, Label) else labels
    rows = [{key: value for key, value in plain(one).items() if value} for one in many]
    return Call(_order("/v1/labels", rows, idempotency_key), _attached)


def promote(
    ref: str, *, overrule: str | None = None, data: str | None = None, idempotency_key: str | None = None
) -> Call[dict[str, Any]]:
    """Ask the gate, and put a bundle or version in service where it passes; the gate's answer."""
    body = {"bundle": ref, **_present(overrule=overrule, data=data)}
    return Call(_order("/v1/promote", body, idempotency_key), json.loads)


def roll_back(
    to: str | None = None, *, why: str | None = None, idempotency_key: str | None = None
) -> Call[dict[str, Any]]:
    """Put the version before, or `to`, back in service."""
    return Call(_order("/v1/rollback", _present(to=to, why=why), idempotency_key), json.loads)


def models() -> Call[dict[str, Any]]:
    """The champion, and every version with the times it served."""
    return Call(Ask("GET", "/v1/models"), json.loads)


def findings() -> Call[dict[str, Any]]:
    """What the watch found."""
    return Call(Ask("GET", "/v1/findings"), json.loads)


def ready() -> Call[dict[str, str]]:
    """Which version answers."""
    return Call(Ask("GET", "/health/ready"), json.loads)


def _order(path: str, value: Any, idempotency_key: str | None) -> Ask:
    headers = {"content-type": "application/json", **_once(idempotency_key)}
    return Ask("POST", path, {}, headers, json.dumps(value).encode())


def _once(key: str | None) -> dict[str, str]:
    return {"idempotency-key": key or uuid.uuid4().hex}


def _present(**given: str | None) -> dict[str, str]:
    return {key: value for key, value in given.items() if value is not None}


def _prediction(found: Mapping[str, Any]) -> Prediction:
    given = {key: value for key, value in found.items() if key not in ("class", "set", "at", "label")}
    return Prediction(label=found["class"], set=tuple(found["set"]), **given)


def _answers(body: bytes) -> Answers:
    found = json.loads(body)
    refused = {row["path"]: row["reason"] for row in found["refused"]}
    return Answers(tuple(map(_prediction, found["predictions"])), refused)


def _recalled(body: bytes) -> Recalled:
    found = json.loads(body)
    told, truth = found["label"], None
    if told is not None:
        at = from_rfc3339(told["at"]) if told["at"] else None
        truth = Label(told["label"], found["id"], by=told["by"], at=at)
    return Recalled(_prediction(found), from_rfc3339(found["at"]), truth)


def _attached(body: bytes) -> Attached:
    found = json.loads(body)
    return Attached(found["accepted"], {row["row"]: row["reason"] for row in found["refused"]})
