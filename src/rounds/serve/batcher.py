"""One queue, one thread: requests that come together are computed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future as Done
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from rounds.core.errors import Fault, WorldFault
from rounds.core.specs import ServeSpec

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
Work = Callable[[Sequence[Ask]], Sequence[Answer | Exception]]


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Ask, Answer]):
    """One request between its arrival and its answer; `deadline` is a time of the event loop's clock, in seconds."""

    ask: Ask
    future: asyncio.Future[Answer]
    deadline: float


class Batcher(Generic[Ask, Answer]):
    """Queues requests of one event loop and hands them, up to `max_batch` at a time, to `work` in a thread of its own.

    The queue, the timers and every method but `work` belong to the event loop, so nothing here is locked; the thread
    reports a finished batch with a single `call_soon_threadsafe`. `work` returns one answer or exception a request, in
    order; an exception that it raises goes to every request of the batch.
    """

    def __init__(self, work: Work[Ask, Answer], spec: ServeSpec) -> None:
        self._work = work
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._queue: deque[_Waiting[Ask, Answer]] = deque()
        self._running: list[_Waiting[Ask, Answer]] = []
        self._open: deque[_Waiting[Ask, Answer]] = deque()
        self._together = 1
        self._gather: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def depth(self) -> int:
        """Requests that wait for a batch; those being computed are not counted."""
        return len(self._queue)

    def submit(self, ask: Ask) -> asyncio.Future[Answer]:
        """Queue one request; the future resolves within the deadline, to its answer or to WorldFault.

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
        waiting = _Waiting(ask, self._loop.create_future(), self._loop.time() + self._spec.deadline_s)
        self._queue.append(waiting)
        self._open.append(waiting)
        if self._sweep is None:
            self._sweep = self._loop.call_at(waiting.deadline, self._expire)
        if not self._running:
            self._consider()
        return waiting.future

    async def drain(self) -> None:
        """Refuse what comes now, answer what is waiting, and end the thread."""
        self._closed = True
        if left := [waiting.future for waiting in self._open if not waiting.future.done()]:
            await asyncio.wait(left)
        for timer in (self._gather, self._sweep):
            if timer is not None:
                timer.cancel()
        await asyncio.to_thread(self._thread.shutdown)

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
        while self._queue and len(self._running) < self._spec.max_batch:
            waiting = self._queue.popleft()
            if not waiting.future.done():
                self._running.append(waiting)
        if self._running:
            done = self._thread.submit(self._work, [waiting.ask for waiting in self._running])
            done.add_done_callback(self._hand_over)

    def _hand_over(self, done: Done[Sequence[Answer | Exception]]) -> None:
        """Runs in the batch thread: one wake-up of the event loop, however many requests the batch has."""
        self._loop.call_soon_threadsafe(self._finish, done)

    def _finish(self, done: Done[Sequence[Answer | Exception]]) -> None:
        batch, self._running = self._running, []
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
        if self._queue:
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
