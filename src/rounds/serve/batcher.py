"""One queue, some lanes: requests that come together are computed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from rounds.core.errors import Fault, WorldFault
from rounds.core.specs import ServeSpec

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
AskIn = TypeVar("AskIn", contravariant=True)

# Larger films share a batch only up to here, so that lanes share the work of many at once.
BATCH_BYTES = 4 * 1024 * 1024


class Lane(Protocol[AskIn, Answer]):
    """Whatever computes one batch at a time, beside the event loop."""

    def start(self, asks: Sequence[AskIn]) -> asyncio.Future[Sequence[Answer | Exception]]:
        """Begin a batch; the future gives one answer or exception a request, in order, or one for all."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Ask, Answer]):
    """One request between its arrival and its answer; `deadline` is a time of the event loop's clock, in seconds."""

    ask: Ask
    future: asyncio.Future[Answer]
    deadline: float
    bytes: int


class Batcher(Generic[Ask, Answer]):
    """Queues requests of one event loop and hands them, up to `max_batch` at a time, to whichever lane is free.

    Everything here belongs to the event loop, so nothing is locked. Without a lane requests wait, up to their deadline.
    """

    def __init__(self, spec: ServeSpec) -> None:
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._free: list[Lane[Ask, Answer]] = []
        self._busy: dict[Lane[Ask, Answer], list[_Waiting[Ask, Answer]]] = {}
        self._queue: deque[_Waiting[Ask, Answer]] = deque()
        self._open: deque[_Waiting[Ask, Answer]] = deque()
        self._together = 1
        self._gather: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def depth(self) -> int:
        """Requests that wait for a batch; those being computed are not counted."""
        return len(self._queue)

    def open(self, lane: Lane[Ask, Answer]) -> None:
        """Use the lane from now on."""
        self._free.append(lane)
        if self._queue:
            self._consider()

    def close(self, lane: Lane[Ask, Answer]) -> None:
        """Start nothing more there; what runs there ends there."""
        if lane in self._free:
            self._free.remove(lane)
        elif lane in self._busy:
            # `_finish` finds it gone and does not free it again.
            self._busy[lane] = []

    def submit(self, ask: Ask, size: int = 0) -> asyncio.Future[Answer]:
        """Queue one request of so many bytes; the future resolves within the deadline, to its answer or to WorldFault.

        Raises:
            WorldFault: the queue is full, or the server is stopping; nothing was queued.
        """
        if self._closed:
            raise WorldFault(
                "the server is stopping", [Fault("no new request is taken", next="send the request again shortly")]
            )
        if len(self._queue) >= self._spec.max_queue:
            full = Fault(
                "the queue is full",
                expected=f"at most {self._spec.max_queue} waiting requests",
                got=str(len(self._queue)),
                next="send the request again after the seconds in Retry-After",
            )
            raise WorldFault("the server is overloaded", [full])
        waiting = _Waiting(ask, self._loop.create_future(), self._loop.time() + self._spec.deadline_s, size)
        self._queue.append(waiting)
        self._open.append(waiting)
        if self._sweep is None:
            self._sweep = self._loop.call_at(waiting.deadline, self._expire)
        if self._free:
            self._consider()
        return waiting.future

    async def drain(self) -> None:
        """Refuse what comes now, and answer what is waiting."""
        self._closed = True
        if self._queue and self._free:
            self._start()
        if left := [waiting.future for waiting in self._open if not waiting.future.done()]:
            await asyncio.wait(left)
        for timer in (self._gather, self._sweep):
            if timer is not None:
                timer.cancel()

    def _consider(self) -> None:
        """Start a batch once as many wait as lately were in flight together; a lone client therefore never waits.

        Clients that were answered together ask again together: a moment's patience makes one batch of them instead of
        a batch of one and a batch of the rest.
        """
        if len(self._queue) >= self._together or self._closed:
            self._start()
        elif self._gather is None:
            self._gather = self._loop.call_later(self._spec.max_wait_ms / 1000, self._start)

    def _start(self) -> None:
        if self._gather is not None:
            self._gather.cancel()
            self._gather = None
        while self._free and (batch := self._next()):
            lane = self._free.pop()
            self._busy[lane] = batch
            done = lane.start([waiting.ask for waiting in batch])
            done.add_done_callback(partial(self._finish, lane, batch))

    def _next(self) -> list[_Waiting[Ask, Answer]]:
        batch = list[_Waiting[Ask, Answer]]()
        size = 0
        while self._queue and len(batch) < self._spec.max_batch:
            if batch and size + self._queue[0].bytes > BATCH_BYTES:
                break
            waiting = self._queue.popleft()
            if not waiting.future.done():
                batch.append(waiting)
                size += waiting.bytes
        return batch

    def _finish(
        self,
        lane: Lane[Ask, Answer],
        batch: list[_Waiting[Ask, Answer]],
        done: asyncio.Future[Sequence[Answer | Exception]],
    ) -> None:
        if self._busy.pop(lane) is batch:
            self._free.append(lane)
        error = done.exception()
        answers: Sequence[Answer | BaseException] = [error] * len(batch) if error else done.result()
        self._together = min(self._spec.max_batch, len(batch) + len(self._queue))
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.future.done():
                continue
            if isinstance(answer, BaseException):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)
        while self._open and self._open[0].future.done():
            self._open.popleft()
        if self._queue and self._free:
            self._consider()

    def _expire(self) -> None:
        """Refuse what has passed its deadline; deadlines are equally long, so the oldest requests come first."""
        now = self._loop.time()
        while self._open and (self._open[0].future.done() or self._open[0].deadline <= now):
            waiting = self._open.popleft()
            if not waiting.future.done():
                late = Fault(
                    "the deadline passed",
                    expected=f"an answer within {self._spec.deadline_s:g} s",
                    next="send the request again; ask the operator when it keeps happening",
                )
                waiting.future.set_exception(WorldFault("no answer in time", [late]))
        self._sweep = self._loop.call_at(self._open[0].deadline, self._expire) if self._open else None
