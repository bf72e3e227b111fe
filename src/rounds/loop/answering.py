"""A worker: films in, kept answers out. A process of its own, so that a film that kills it kills nothing else.

    python -m rounds.loop.answering FD

It speaks frames (`serve/wire`) with the server over the inherited socket FD, and ends when the server does.
"""

from __future__ import annotations

import gc
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import orjson

from rounds.capture.capture import audited
from rounds.capture.journal import Batch, Journal, Looked
from rounds.core.errors import OurFault, RoundsError
from rounds.core.ids import new_id, restore
from rounds.core.specs import ImagingSpec, ServeSpec
from rounds.imaging.dicom import is_dicom
from rounds.imaging.fit import to_pixels, without_names
from rounds.serve.swap import Seated, Seats
from rounds.serve.wire import cut, frame, read

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Setup:
    """What a worker is told first: `journal` is the folder to write answers down in, None for nowhere."""

    serve: ServeSpec
    secret: str
    audit_share: float
    journal: Path | None = None
    journal_bytes: int = 0


@dataclass(slots=True, eq=False)
class Film:
    """One film of a batch: its bytes, when its request began (perf_counter, seconds), its id if it has one already, the
    caller's reference, the subject's pseudonym, and its arm: which version answers, and which one looks on, if any."""

    data: bytes
    began: float
    id: str | None
    reference: str | None
    subject: str | None
    arm: tuple[str, str | None]


@dataclass(slots=True, eq=False)
class Beside:
    """Films that were answered by one version and are yet to be looked at by another."""

    version: str
    imaging: ImagingSpec
    ids: list[str]
    pixels: npt.NDArray[np.uint8]
    images: Sequence[bytes]


class Worker:
    """Answers batch after batch; versions are made ready in a thread beside."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._turn = threading.Lock()
        self._orders: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Serve until the other side goes."""
        first = read(self._stream)
        if first is None:
            return
        self.setup: Setup = restore(Setup, first[0])
        self.seats = Seats(self.setup.serve)
        folder = self.setup.journal
        self.journal = None if folder is None else Journal(folder, self.setup.journal_bytes)
        seating = threading.Thread(target=self._seat, name="seat", daemon=True)
        seating.start()
        while (found := read(self._stream)) is not None:
            head, body = found
            if "batch" in head:
                self._answer(head, body)
            else:
                self._orders.put(head)
        self._orders.put(None)
        if self.journal is not None:
            self.journal.close()

    def _say(self, head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
        with self._turn:
            self._stream.sendall(frame(head, parts))

    def _seat(self) -> None:
        while (order := self._orders.get()) is not None:
            if "leave" in order:
                self.seats.leave(order["leave"])
                continue
            told: dict[str, Any] = {"seated": order["take"]}
            try:
                self.seats.take(order["take"], Path(order["path"]), order["bundle"])
            except RoundsError as error:
                told["error"] = [said(error)]
            # What is loaded by now lives long: scanning it over and over would stop every answer.
            gc.freeze()
            self._say(told)

    def _answer(self, head: Mapping[str, Any], body: memoryview) -> None:
        sizes = [film[0] for film in head["films"]]
        arms = [(version, beside) for version, beside in head["arms"]]
        films = [
            Film(data, began, name, reference, subject, arms[arm])
            for data, (_, began, name, reference, subject, arm) in zip(cut(body, sizes), head["films"], strict=True)
        ]
        answers: list[tuple[list[Any], bytes]] = [([], b"")] * len(films)
        took = {"decode": 0.0, "network": 0.0, "keep": 0.0}
        self._beside = list[Beside]()
        for arm in dict.fromkeys(film.arm for film in films):
            mine = [i for i, film in enumerate(films) if film.arm == arm]
            try:
                found = self._batch(self.seats[arm[0]], [films[i] for i in mine], took)
            except RoundsError as error:
                found = [refusal(error)] * len(mine)
            except Exception as error:  # a bug of ours costs this batch, not the worker
                found = [bug(error)] * len(mine)
            for i, answer in zip(mine, found, strict=True):
                answers[i] = answer
        heads = [[*about, len(text)] for about, text in answers]
        self._say({"batch": head["batch"], "films": heads, "took": took}, [text for _, text in answers])
        # Nobody waits for those who look on.
        for beside in self._beside:
            self._look_on(beside)

    def _batch(self, seated: Seated, films: Sequence[Film], took: dict[str, float]) -> list[tuple[list[Any], bytes]]:
        began = time.perf_counter()
        done: list[tuple[list[Any], bytes] | None] = [None] * len(films)
        pixels, kept, good = list[Pixels](), list[bytes](), list[int]()
        limits, imaging = self.setup.serve.limits, seated.bundle.imaging
        for i, film in enumerate(films):
            try:
                # Of a DICOM film only its pixels are kept: what may be trained on says nobody's name.
                data = without_names(film.data, limits) if is_dicom(film.data) else film.data
                pixels.append(to_pixels(data, imaging, limits))
            except RoundsError as error:
                done[i] = refusal(error)
            except Exception as error:  # a bug of ours costs this film, not those beside it
                done[i] = bug(error)
            else:
                kept.append(data)
                good.append(i)
        decoded = time.perf_counter()
        took["decode"] += decoded - began
        if good:
            for i, answer in zip(good, self._decide(seated, [films[i] for i in good], pixels, kept, took), strict=True):
                done[i] = answer
        return [answer for answer in done if answer is not None]

    def _decide(
        self,
        seated: Seated,
        films: Sequence[Film],
        pixels: Sequence[Pixels],
        images: Sequence[bytes],
        took: dict[str, float],
    ) -> list[tuple[list[Any], bytes]]:
        began = time.perf_counter()
        stacked = np.stack(pixels)
        answered = seated.answer(stacked)
        verdicts, classes, now = answered.verdicts, seated.bundle.classes, time.perf_counter()
        took["network"] += now - began
        labels, secret, share = verdicts.label.tolist(), self.setup.secret, self.setup.audit_share
        rows = []
        for film, label in zip(films, labels, strict=True):
            name = film.id or new_id("p_")
            ms = (now - film.began) * 1000
            rows.append([name, label, ms, film.reference, film.subject, int(audited(secret, name, share))])
        names, spent = [row[0] for row in rows], [row[2] for row in rows]
        if self.journal is not None:
            batch = Batch(
                seated.version,
                seated.bundle.digest,
                classes,
                rows,
                verdicts.probabilities,
                answered.outputs.logits,
                answered.scores,
            )
            self.journal.append(batch, images, datetime.now(UTC))
            if (beside := films[0].arm[1]) is not None:
                self._beside.append(Beside(beside, seated.bundle.imaging, names, stacked, images))
        answers = []
        for film, answer in zip(films, verdicts.answers(seated.bundle, seated.version, names, spent), strict=True):
            if film.reference is not None:
                answer["reference"] = film.reference
            head = [200, seated.version, answer["class"], answer["refer"]]
            answers.append((head, orjson.dumps(answer)))
        took["keep"] += time.perf_counter() - now
        return answers

    def _look_on(self, films: Beside) -> None:
        """Let a version look at films that another has answered, and write down what it would have said."""
        assert self.journal is not None
        try:
            seated = self.seats[films.version]
            pixels, limits, imaging = films.pixels, self.setup.serve.limits, seated.bundle.imaging
            if imaging != films.imaging:
                pixels = np.stack([to_pixels(image, imaging, limits) for image in films.images])
            began = time.perf_counter()
            answered = seated.answer(pixels)
            ms = (time.perf_counter() - began) * 1000 / len(pixels)
            labels = answered.verdicts.label.tolist()
            rows = [[name, label, ms] for name, label in zip(films.ids, labels, strict=True)]
            probabilities, scores = answered.verdicts.probabilities, answered.scores
            looked = Looked(seated.version, seated.bundle.digest, seated.bundle.classes, rows, probabilities, scores)
            self.journal.append_shadows(looked)
        except (RoundsError, KeyError) as error:
            # What a version says that only looks on may be missing; what was answered stands.
            log("could not look on", version=films.version, error=str(error))


def said(error: RoundsError) -> dict[str, Any]:
    """An error as it crosses to the server."""
    return {**error.public()["error"], "status": error.http_status}


def refusal(error: RoundsError) -> tuple[list[Any], bytes]:
    """An error in the place of an answer."""
    return [error.http_status, "", "", False], orjson.dumps(said(error))


def bug(error: Exception) -> tuple[list[Any], bytes]:
    """What nobody foresaw, in the place of an answer; what it was is for the log."""
    log("a bug", error=f"{type(error).__name__}: {error}")
    return refusal(OurFault("a worker failed through a bug of ours"))


def log(event: str, **facts: str) -> None:
    """A line of JSON, as the server's own."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    sys.stderr.buffer.write(orjson.dumps({**facts, "event": event, "level": "error", "timestamp": at}) + b"\n")
    sys.stderr.buffer.flush()


def main() -> None:
    """Answer over the socket that was inherited."""
    # Ctrl-C in a terminal reaches all processes; the server alone decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # One thread a worker, as in the network: who wants more starts more workers.
    cv2.setNumThreads(1)
    with socket.socket(fileno=int(sys.argv[1])) as stream:
        Worker(stream).run()


if __name__ == "__main__":
    main()
