"""A clerk answers films that it reads itself. A process of its own where there are many:

    python -m rounds.loop.clerk FD

It speaks frames (`serve/wire`) with the command over the inherited socket FD, and ends when the command does.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import cv2
import numpy as np
import numpy.typing as npt
import orjson

from rounds.core.errors import BadImage, DamagedBundle, Fault, RoundsError
from rounds.core.ids import plain, restore
from rounds.core.records import Bundle
from rounds.core.specs import Limits
from rounds.imaging.fit import to_pixels
from rounds.loop.outfile import Chunk, packed
from rounds.runtime.bundle import read as read_bundle
from rounds.runtime.predictor import Outputs, Predictor
from rounds.runtime.scores import Scorer
from rounds.runtime.verdict import Judge, Verdicts
from rounds.serve.wire import Frame, frame, read

BATCH = 32
AHEAD_BYTES = 8_000_000
NETWORK = -1  # what a clerk is at, where it is no film

Step = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """What a clerk is told first: where the bundle lies, its digest, the version that it is, what a film may cost, and
    whether answers say how long they took (answers that must be the same at every run do not)."""

    path: Path
    digest: str
    version: str
    limits: Limits
    timed: bool = False


class File(NamedTuple):
    """A file's bytes, what the file system says of it, and why it is refused, if that is known."""

    path: str
    data: bytes
    found: os.stat_result | None
    reason: str = ""


class Taken(NamedTuple):
    """Films that are to be answered: their paths and ids, and what the network says of them, batch by batch."""

    paths: list[str]
    ids: list[str]
    said: list[Outputs]


class Clerk:
    """A bundle, loaded, and the answers that it gives. Raises what reading a bundle raises, DamagedBundle where another
    one lies there."""

    def __init__(self, job: Job) -> None:
        self.job, self.bundle = job, read_bundle(job.path)
        if self.bundle.digest != job.digest:
            other = Fault("another bundle lies here", str(job.path), job.digest, self.bundle.digest, "run it again")
            raise DamagedBundle("the bundle has changed on the way", [other])
        self._predictor = Predictor(self.bundle)
        self._scorer, self._judge = Scorer(self.bundle.scoring), Judge(self.bundle)
        self._salt = hashlib.sha256(self.bundle.digest.encode())

    def answer(self, paths: Sequence[str], lost: Mapping[int, str] | None = None, at: Step | None = None) -> bytes:
        """The packed chunk for these films; a film whose place is in `lost` is refused for that reason, unread.

        `at` is told the place of each film before it is looked at, and NETWORK before the network runs.
        """
        begun, key, taken, refused = time.perf_counter(), hashlib.sha256(), Taken([], [], []), list[dict[str, str]]()
        for start in range(0, len(paths), BATCH):
            pixels = list[npt.NDArray[np.uint8]]()
            for place, file in self._files(paths[start : start + BATCH], start, lost or {}):
                if at:
                    at(place)
                key.update(_stamp(file.path, file.found))
                reason = file.reason
                try:
                    if not reason:
                        pixels.append(to_pixels(file.data, self.bundle.imaging, self.job.limits))
                        taken.paths.append(file.path)
                        taken.ids.append(self._id(file.path, file.data))
                except BadImage as error:
                    reason = "; ".join([error.message, *map(str, error.faults)])
                if reason:
                    refused.append({"path": file.path, "reason": reason})
            if at:
                at(NETWORK)
            if pixels:
                taken.said.append(self._predictor.answer(np.stack(pixels)))
        lines = self._decide(taken, begun) if taken.said else []
        return packed(Chunk(key.hexdigest(), len(lines), refused, b"".join(lines)))

    def _files(self, paths: Sequence[str], start: int, lost: Mapping[int, str]) -> Iterator[tuple[int, File]]:
        """The files with their places, read ahead as long as they are small: one by one, between decodings, reading
        takes twice as long."""
        ahead, size, most = list[tuple[int, File]](), 0, self.job.limits.max_bytes + 1
        for place, path in enumerate(paths, start):
            file = File(path, b"", stat_or_none(path), lost[place]) if place in lost else _read(path, most)
            ahead.append((place, file))
            size += len(file.data)
            if size > AHEAD_BYTES:
                yield from ahead
                ahead, size = [], 0
        yield from ahead

    def _id(self, path: str, data: bytes) -> str:
        name = self._salt.copy()
        name.update(os.fsencode(path) + b"\0")
        name.update(data)
        return "p_" + name.hexdigest()[:24]

    def _decide(self, taken: Taken, begun: float) -> list[bytes]:
        """The lines, decided for all films of a chunk at once: batch by batch numpy's calls would cost thrice that."""
        outputs = Outputs(
            np.concatenate([said.logits for said in taken.said]),
            np.concatenate([said.embedding for said in taken.said]),
            np.empty((len(taken.paths), 0, 0, 0), np.float32),
        )
        found = self._judge.verdicts(outputs, self._scorer.distances(outputs))
        ms = (time.perf_counter() - begun) * 1000 / len(taken.paths) if self.job.timed else 0.0
        return _lines(self.bundle, self.job.version, taken, found, ms)


def stat_or_none(path: str) -> os.stat_result | None:
    """What the file system says of a file; None where it says nothing."""
    try:
        return os.stat(path)  # noqa: PTH116 (a Path would cost more than the call)
    except OSError:
        return None


def key_of(paths: Sequence[str]) -> str:
    """The key of the chunk that answers these films as they lie there now: their paths, sizes and times."""
    key = hashlib.sha256()
    for path in paths:
        key.update(_stamp(path, stat_or_none(path)))
    return key.hexdigest()


def _stamp(path: str, found: os.stat_result | None) -> bytes:
    said = b"\0-\0" if found is None else b"\0%d %d\0" % (found.st_size, found.st_mtime_ns)
    return os.fsencode(path) + said


def _read(path: str, most: int) -> File:
    """The file; of one that is too large `most` bytes, so that it is refused as such."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            found = os.fstat(handle)
            # In one piece, but for pipes, and file systems that give less at a time than was asked for.
            data = os.read(handle, min(found.st_size + 1, most))
            while (len(data) < found.st_size or not stat.S_ISREG(found.st_mode)) and len(data) < most:
                more = os.read(handle, most - len(data))
                if not more:
                    break
                data += more
            return File(path, data, found)
        finally:
            os.close(handle)
    except OSError as error:
        return File(path, b"", stat_or_none(path), f"cannot be read: {error.strerror or error}")


def _lines(bundle: Bundle, version: str, taken: Taken, found: Verdicts, ms: float) -> list[bytes]:
    answers = found.answers(bundle, version, taken.ids, [ms] * len(taken.ids))
    return [_json(answer | {"path": path}) for answer, path in zip(answers, taken.paths, strict=True)]


def _json(answer: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(answer) + b"\n"
    except TypeError:
        # A path that is no text: bytes of it stand as \udcff, as everywhere in the house's JSON.
        return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


class Desk:
    """Takes orders from a socket, one after the other, and answers them."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._orders: queue.SimpleQueue[Frame] = queue.SimpleQueue()

    def run(self) -> None:
        """Answer until the other side goes, which ends this process."""
        first = read(self._stream)
        if first is None:
            return
        try:
            clerk = Clerk(restore(Job, first[0]))
            threading.Thread(target=self._listen, name="orders", daemon=True).start()
            while True:
                self._answer(clerk, *self._orders.get())
        except RoundsError as error:
            self._say({"error": error.public()["error"]})

    def _answer(self, clerk: Clerk, head: Mapping[str, Any], body: memoryview) -> None:
        paths = os.fsdecode(bytes(body)).split("\0")
        lost = {int(place): reason for place, reason in head["lost"].items()}
        at = (lambda place: self._say({"at": place})) if head["careful"] else None
        self._say({"chunk": head["chunk"]}, [clerk.answer(paths, lost, at)])

    def _say(self, head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
        try:
            self._stream.sendall(frame(head, parts))
        except (BrokenPipeError, ConnectionResetError):
            self._leave()

    def _listen(self) -> None:
        while (found := read(self._stream)) is not None:
            self._orders.put(found)
        self._leave()

    def _leave(self) -> NoReturn:
        # Nobody is left to answer to, and what is half done is of no use.
        os._exit(0)


def ordered(number: int, paths: Sequence[str], lost: Mapping[int, str], *, careful: bool) -> bytes:
    """The frame that asks a clerk for a chunk."""
    head = {"chunk": number, "lost": {str(place): reason for place, reason in lost.items()}, "careful": careful}
    return frame(head, [os.fsencode("\0".join(paths))])


def told(job: Job) -> bytes:
    """The frame that tells a clerk its job."""
    return frame(plain(job))


def main() -> None:
    """Answer over the socket that was inherited."""
    # Ctrl-C in a terminal reaches all processes; the command alone decides when a clerk ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    with socket.socket(fileno=int(sys.argv[1])) as stream:
        Desk(stream).run()


if __name__ == "__main__":
    main()
