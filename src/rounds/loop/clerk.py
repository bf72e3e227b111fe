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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import Scorer
from rounds.runtime.verdict import Judge, Verdicts
from rounds.serve.wire import Frame, frame, read

BATCH = 32
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


class Batch(NamedTuple):
    """Films of one run of the network: paths, ids and pixels."""

    paths: list[str]
    ids: list[str]
    pixels: list[npt.NDArray[np.uint8]]


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
        self._salt = hashlib.blake2b(self.bundle.digest.encode(), digest_size=12)

    def answer(self, paths: Sequence[str], lost: Mapping[int, str] | None = None, at: Step | None = None) -> bytes:
        """The packed chunk for these films; a film whose place is in `lost` is refused for that reason, unread.

        `at` is told the place of each film before it is looked at, and NETWORK before the network runs.
        """
        lines, refused, lost, key = list[bytes](), list[dict[str, str]](), lost or {}, hashlib.sha256()
        for start in range(0, len(paths), BATCH):
            begun, batch = time.perf_counter(), Batch([], [], [])
            for place, path in enumerate(paths[start : start + BATCH], start):
                if at:
                    at(place)
                try:
                    found = stat_or_none(path)
                    key.update(_stamp(path, found))
                    if place in lost:
                        refused.append({"path": path, "reason": lost[place]})
                    else:
                        self._take(batch, path, _bytes(path, found, self.job.limits))
                except BadImage as error:
                    refused.append({"path": path, "reason": "; ".join([error.message, *map(str, error.faults)])})
                except OSError as error:
                    refused.append({"path": path, "reason": f"cannot be read: {error.strerror or error}"})
            if at:
                at(NETWORK)
            if batch.paths:
                lines += self._decide(batch, begun)
        return packed(Chunk(key.hexdigest(), len(lines), refused, b"".join(lines)))

    def _take(self, batch: Batch, path: str, data: bytes) -> None:
        batch.pixels.append(to_pixels(data, self.bundle.imaging, self.job.limits))
        name = self._salt.copy()
        name.update(os.fsencode(path) + b"\0")
        name.update(data)
        batch.ids.append("p_" + name.hexdigest())
        batch.paths.append(path)

    def _decide(self, batch: Batch, begun: float) -> list[bytes]:
        outputs = self._predictor.answer(np.stack(batch.pixels))
        found = self._judge.verdicts(outputs, self._scorer.distances(outputs))
        ms = (time.perf_counter() - begun) * 1000 / len(batch.paths) if self.job.timed else 0.0
        return _lines(self.bundle, self.job.version, batch, found, ms)


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


def _bytes(path: str, found: os.stat_result | None, limits: Limits) -> bytes:
    """The file's bytes; of one that is too large so many that it is refused as such."""
    if found is None or not stat.S_ISREG(found.st_mode):
        with Path(path).open("rb") as opened:
            return opened.read(limits.max_bytes + 1)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # In one piece, but for file systems that give less at a time than was asked for.
        data, most = os.read(handle, min(found.st_size, limits.max_bytes) + 1), limits.max_bytes + 1
        while found.st_size > len(data) < most and (more := os.read(handle, most - len(data))):
            data += more
        return data
    finally:
        os.close(handle)


def _lines(bundle: Bundle, version: str, batch: Batch, found: Verdicts, ms: float) -> list[bytes]:
    classes, columns = (
        bundle.classes,
        zip(
            batch.ids,
            batch.paths,
            found.label.tolist(),
            found.probabilities.tolist(),
            found.members.tolist(),
            found.refer.tolist(),
            found.reason,
            found.ood.tolist(),
            strict=True,
        ),
    )
    lines = []
    for name, path, label, probabilities, members, refer, reason, ood in columns:
        answer = {
            "id": name,
            "class": classes[label],
            "probabilities": dict(zip(classes, probabilities, strict=True)),
            "set": [one for one, member in zip(classes, members, strict=True) if member],
            "refer": refer,
            "reason": reason,
            "ood": ood,
            "version": version,
            "bundle": bundle.digest,
            "ms": ms,
            "path": path,
        }
        lines.append(_json(answer))
    return lines


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
        paths = [os.fsdecode(path) for path in bytes(body).split(b"\0")]
        lost = {int(place): reason for place, reason in head["lost"].items()}
        at = (lambda place: self._say({"at": place})) if head["careful"] else None
        self._say({"chunk": head["chunk"]}, [clerk.answer(paths, lost, at)])

    def _say(self, head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
        self._stream.sendall(frame(head, parts))

    def _listen(self) -> None:
        while (found := read(self._stream)) is not None:
            self._orders.put(found)
        # Nobody is left to answer to, and what is half done is of no use.
        os._exit(0)


def ordered(number: int, paths: Sequence[str], lost: Mapping[int, str], *, careful: bool) -> bytes:
    """The frame that asks a clerk for a chunk."""
    head = {"chunk": number, "lost": {str(place): reason for place, reason in lost.items()}, "careful": careful}
    return frame(head, [b"\0".join(map(os.fsencode, paths))])


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
