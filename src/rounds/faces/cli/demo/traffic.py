"""Films sent to the real server over HTTP, as a ward would send them."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from rounds.core.errors import Fault, WorldFault
from rounds.imaging.packed import Film

SENDERS = 4
IDLE_S = 2.0


@dataclass(frozen=True)
class Answer:
    """What the server said of a film, and the truth."""

    id: str
    said: str
    truth: str
    version: str

    @property
    def right(self) -> bool:
        return self.said == self.truth


@dataclass
class Pumped:
    """A count of background requests: all, and those that were not answered with a 200."""

    requests: int = 0
    failed: int = 0
    answers: list[Answer] = field(default_factory=list)


class Ward:
    """Sends films and labels to one server; every request that is not answered with a 200 is an error."""

    def __init__(self, address: str) -> None:
        self._host = urlsplit(address).netloc
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(SENDERS, thread_name_prefix="ward")

    def send(self, films: Iterable[Film]) -> list[Answer]:
        """Send films, a few at a time, and return the answers in the order of the films."""
        return list(self._pool.map(self._one, films))

    def label(self, labels: Sequence[Mapping[str, str]]) -> int:
        """Tell the truth about answered films; how many labels were taken."""
        if not labels:
            return 0
        status, answer = self.post("/v1/labels", json.dumps(labels).encode(), "application/json")
        return int(_good(status, answer)["accepted"])

    def version(self, film: Film) -> str:
        """The version that answers right now."""
        return self._one(film).version

    @contextmanager
    def pump(self, films: Sequence[Film]) -> Iterator[Pumped]:
        """Keep sending these films over and over for the length of the block, and count."""
        count, stop = Pumped(), threading.Event()
        thread = threading.Thread(target=self._pump, args=(films, count, stop), name="pump")
        thread.start()
        time.sleep(0.2)
        try:
            yield count
        finally:
            time.sleep(0.2)
            stop.set()
            thread.join()

    def post(self, path: str, body: bytes, kind: str) -> tuple[int, Any]:
        """One POST over a kept connection; the status and the JSON answer."""
        connection = getattr(self._local, "connection", None)
        if connection is not None and time.monotonic() - self._local.used > IDLE_S:
            connection.close()  # the server closes what was idle for long: better not to meet it half way
            connection = None
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(self._host, timeout=30)
        try:
            connection.request("POST", path, body, {"content-type": kind})
            response = connection.getresponse()
            self._local.used = time.monotonic()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            self._local.connection = None
            raise

    def _one(self, film: Film) -> Answer:
        kind = "image/jpeg" if film.data[:2] == b"\xff\xd8" else "image/png"
        path = f"/v1/predict?reference={quote(film.name, safe='')}&subject={quote(film.subject, safe='')}"
        answer = _good(*self.post(path, film.data, kind))
        return Answer(answer["id"], answer["class"], film.label, answer["version"])

    def _pump(self, films: Sequence[Film], count: Pumped, stop: threading.Event) -> None:
        while not stop.is_set():
            for film in films:
                if stop.is_set():
                    break
                count.requests += 1
                try:
                    count.answers.append(self._one(film))
                except (WorldFault, OSError, http.client.HTTPException, ValueError):
                    count.failed += 1


def wait_until(question: Callable[[], bool], limit_s: float) -> float:
    """Seconds until the question is answered with yes; WorldFault after the limit."""
    begun = time.perf_counter()
    while not question():
        if time.perf_counter() - begun > limit_s:
            raise WorldFault(
                "the server did not follow", [Fault("too late", "the champion", f"within {limit_s:g} s", "not")]
            )
        time.sleep(0.005)
    return time.perf_counter() - begun


def _good(status: int, answer: Any) -> Any:
    if status != 200:
        raise WorldFault(
            f"the server answered {status}", [Fault("not answered", "the server", "200", json.dumps(answer)[:300])]
        )
    return answer
