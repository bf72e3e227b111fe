"""The workers of a server: started, told which versions to make ready, fed with batches, and started again where one
dies."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson

from rounds.core import errors
from rounds.core.errors import Fault, OurFault, RoundsError, WorldFault
from rounds.serve.batcher import Batcher
from rounds.serve.wire import Frames, cut, frame

# A worker that dies sooner than this after its start is waited for longer each time, up to MOST_WAIT_S seconds.
QUICK_S, MOST_WAIT_S = 5.0, 5.0
Worker = tuple[socket.socket, "subprocess.Popen[bytes] | threading.Thread"]
Begin = Callable[[], Worker]


@dataclass(slots=True, eq=False)
class Ask:
    """One film on its way to a worker, see `loop/answering.Film`; `arm` is asked when it leaves."""

    data: bytes
    began: float
    arm: Callable[[Ask], tuple[str, str | None]]
    request: str
    id: str | None = None
    reference: str | None = None
    subject: str | None = None


@dataclass(slots=True, eq=False)
class Reply:
    """A worker's answer to one film: the JSON text of the prediction, what is counted of it, when its batch left
    (perf_counter, seconds), and the batch's seconds by stage."""

    text: bytes
    version: str
    label: str
    refer: bool
    sent: float
    took: Mapping[str, float]


@dataclass(frozen=True)
class Version:
    """A version that workers are to have ready."""

    name: str
    path: Path
    bundle: str


@dataclass(eq=False)
class _Link(asyncio.Protocol):
    """One worker's end of the line, as long as it lives; a lane of the batcher."""

    pool: Pool
    process: subprocess.Popen[bytes] | threading.Thread
    since: float
    transport: asyncio.WriteTransport = field(init=False)
    why: str = ""
    frames: Frames = field(default_factory=Frames)
    batch: tuple[int, asyncio.Future[Sequence[Reply | Exception]]] | None = None
    seating: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    number: int = 0
    sent: float = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        for head, body in self.frames.feed(data):
            if "batch" in head:
                self._finish(head, body)
            elif (waiting := self.seating.pop(head["seated"], None)) and not waiting.done():
                if "error" in head:
                    waiting.set_exception(_error(head["error"][0]))
                else:
                    waiting.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        gone = Fault("the worker that held it died", next="send the request again after the seconds in Retry-After")
        lost = _Lost("no answer: a worker died", [gone])
        held = 0
        if self.batch is not None and not self.batch[1].done():
            held = self.number
            self.batch[1].set_exception(lost)
        for waiting in self.seating.values():
            if not waiting.done():
                waiting.set_exception(lost)
        self.pool.lost(self, held)

    def start(self, asks: Sequence[Ask]) -> asyncio.Future[Sequence[Reply | Exception]]:
        """Send a batch over."""
        arms, films = list[tuple[str, str | None]](), []
        for ask in asks:
            arm = ask.arm(ask)
            if arm not in arms:
                arms.append(arm)
            films.append([len(ask.data), ask.began, ask.id, ask.reference, ask.subject, arms.index(arm)])
        self.pool.batches += 1
        self.number = len(asks)
        self.sent = time.perf_counter()
        done: asyncio.Future[Sequence[Reply | Exception]] = asyncio.get_running_loop().create_future()
        self.batch = (self.pool.batches, done)
        head = {"batch": self.pool.batches, "arms": arms, "films": films}
        self.transport.write(frame(head, [ask.data for ask in asks]))
        return done

    def take(self, version: Version) -> asyncio.Future[None]:
        """Have the worker make a version ready."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seating[version.name] = done
        self.transport.write(frame({"take": version.name, "path": str(version.path), "bundle": version.bundle}))
        return done

    def tell(self, head: Mapping[str, Any]) -> None:
        """Say something that wants no answer."""
        self.transport.write(frame(head))

    def _finish(self, head: Mapping[str, Any], body: memoryview) -> None:
        assert self.batch is not None
        assert self.batch[0] == head["batch"]
        done, self.batch = self.batch[1], None
        self.pool.told(len(head["films"]), head["took"])
        texts = cut(body, [film[-1] for film in head["films"]])
        if not done.done():
            done.set_result(
                [
                    Reply(text, version, label, refer, self.sent, head["took"])
                    if status == 200
                    else _error(orjson.loads(text))
                    for text, (status, version, label, refer, _) in zip(texts, head["films"], strict=True)
                ]
            )


class Pool:
    """`count` workers behind one batcher; `begin` starts one and gives our end of the line to it.

    `told` hears of every batch its size and seconds by stage, `died` how many films a worker took with it.
    """

    def __init__(
        self,
        begin: Begin,
        setup: Mapping[str, Any],
        batcher: Batcher[Ask, Reply],
        count: int,
        *,
        told: Callable[[int, Mapping[str, float]], None],
        died: Callable[[int, str], None],
    ) -> None:
        self._begin, self._setup, self._count, self._died = begin, setup, count, died
        self.told = told
        self.batches = 0
        self._batcher = batcher
        self._links: list[_Link] = []
        self._ready: set[_Link] = set()
        self._wanted: dict[str, Version] = {}
        self._ending = False
        self._quick = 0
        self._starting = set[asyncio.Task[None]]()

    @property
    def alive(self) -> int:
        """Workers that answer."""
        return len(self._ready)

    @property
    def processes(self) -> list[int]:
        """Their process ids."""
        return [link.process.pid for link in self._links if isinstance(link.process, subprocess.Popen)]

    async def start(self) -> None:
        """Start all workers; they load what they need while the caller goes on."""
        for _ in range(self._count):
            await self._add()

    async def take(self, version: Version) -> None:
        """Return once every worker has the version ready; raise what the first one says that cannot, and forget it."""
        if version.name in self._wanted:
            return
        self._wanted[version.name] = version
        waiting = [link.take(version) for link in self._links if version.name not in link.seating]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        for error in found:
            # A worker that dies meanwhile is told of all that is wanted when it is back.
            if isinstance(error, RoundsError) and not isinstance(error, _Lost):
                self.leave(version.name)
                raise error
        for link in self._links:
            self._open(link)

    def leave(self, name: str) -> None:
        """Let every worker forget a version."""
        self._wanted.pop(name, None)
        for link in self._links:
            link.tell({"leave": name})

    async def stop(self) -> None:
        """End every worker once it has answered what it has."""
        self._ending = True
        for task in self._starting:
            task.cancel()
        for link in self._links:
            self._batcher.close(link)
            link.transport.close()
        await asyncio.gather(*(asyncio.to_thread(_await, link.process) for link in self._links))

    def lost(self, link: _Link, held: int) -> None:
        """A line was cut."""
        self._batcher.close(link)
        self._ready.discard(link)
        if self._ending:
            return
        self._links.remove(link)
        task = asyncio.ensure_future(self._replace(link, held))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _add(self) -> None:
        loop = asyncio.get_running_loop()
        ours, process = self._begin()
        ours.setblocking(False)
        _, link = await loop.create_connection(lambda: _Link(self, process, loop.time()), sock=ours)
        self._links.append(link)
        link.tell(self._setup)
        if not self._wanted:
            return
        taking = [link.take(version) for version in self._wanted.values()]
        found = await asyncio.gather(*taking, return_exceptions=True)
        if errors_ := [str(error) for error in found if error is not None and not isinstance(error, _Lost)]:
            # Its files were whole when they were promoted, and are not any more: the other workers go on.
            link.why = errors_[0]
            link.transport.close()
        elif not any(found):
            self._open(link)

    def _open(self, link: _Link) -> None:
        if link in self._links and link not in self._ready:
            self._ready.add(link)
            self._batcher.open(link)

    async def _replace(self, link: _Link, held: int) -> None:
        loop = asyncio.get_running_loop()
        code = await asyncio.to_thread(_await, link.process)
        self._died(held, link.why or code)
        self._quick = self._quick + 1 if loop.time() - link.since < QUICK_S else 0
        wait = min(MOST_WAIT_S, 0.05 * 2**self._quick) if self._quick else 0.0
        while not self._ending:
            try:
                await asyncio.sleep(wait)
                await self._add()
                return
            except OSError:
                # No process or no descriptor to be had now.
                wait = min(MOST_WAIT_S, max(0.1, 2 * wait))


class _Lost(WorldFault):
    """The worker died before it could say."""


def _await(process: subprocess.Popen[bytes] | threading.Thread) -> str:
    if isinstance(process, threading.Thread):
        process.join()
        return "ended"
    code = process.wait()
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _error(said: Mapping[str, Any]) -> RoundsError:
    """The error that crossed over, as it was raised there."""
    kind = getattr(errors, said["kind"], OurFault)
    return kind(said["message"], [Fault(**fault) for fault in said["faults"]], status=said["status"])
