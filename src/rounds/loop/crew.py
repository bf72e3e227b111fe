"""Clerks in processes of their own, which answer chunks as they come free; nothing but paths and lines crosses."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import rounds.core.errors
from rounds.core.errors import Fault, OurFault, RoundsError, WorldFault
from rounds.loop.clerk import NETWORK, Job, ordered, told
from rounds.serve.wire import read

AHEAD = 2  # orders that a clerk has: the one at work and the next, so that it never waits
_END_S = 20.0

Order = tuple[int, list[str]]
Answers = Generator[tuple[int, bytes], None, None]


@dataclass(eq=False)
class _Post:
    """One clerk's post: its process and socket, the orders it has, the first being at work."""

    process: subprocess.Popen[bytes]
    stream: socket.socket
    orders: deque[Order] = field(default_factory=deque)
    at: int = NETWORK


class Processes:
    """The clerks of one run, on this machine; they end with the block, and with this process however it ends."""

    def __init__(self, job: Job, count: int) -> None:
        self._job, self._lost = job, dict[int, dict[int, str]]()
        self._selector = selectors.DefaultSelector()
        self._posts = list[_Post]()
        try:
            for _ in range(count):
                self._posts.append(self._opened())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Send the clerks home."""
        for post in self._posts:
            self._leave(post)
        self._selector.close()

    def answer(self, orders: Iterator[Order]) -> Answers:
        """The packed chunk of each order, as they come; AHEAD orders a clerk are taken ahead.

        Raises: what a clerk raises; WorldFault where one dies again and again, not by a film.
        """
        for _ in range(AHEAD):
            for post in self._posts:
                self._next(post, orders)
        while any(post.orders for post in self._posts):
            for found, _ in self._selector.select():
                post = found.data
                if (said := read(post.stream)) is None:
                    self._again(post)
                    continue
                head, body = said
                if "at" in head:
                    post.at = head["at"]
                elif "error" in head:
                    raise _restored(head["error"])
                else:
                    number, _ = post.orders.popleft()
                    self._lost.pop(number, None)
                    self._next(post, orders)
                    yield number, bytes(body)

    def _opened(self) -> _Post:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "rounds.loop.clerk", str(theirs.fileno())]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        post = _Post(process, ours)
        self._selector.register(ours, selectors.EVENT_READ, post)
        self._send(post, told(self._job))
        return post

    def _next(self, post: _Post, orders: Iterator[Order]) -> None:
        if (order := next(orders, None)) is not None:
            post.orders.append(order)
            self._order(post, order)

    def _order(self, post: _Post, order: Order) -> None:
        number, paths = order
        lost = self._lost.get(number)
        self._send(post, ordered(number, paths, lost or {}, careful=lost is not None))

    def _send(self, post: _Post, data: bytes) -> None:
        # Of a clerk that has gone the socket's end is read next, which says so.
        with suppress(BrokenPipeError, ConnectionResetError):
            post.stream.sendall(data)

    def _again(self, post: _Post) -> None:
        """A clerk has died. The next one is asked for the same, film by film, so that a film that kills is found out,
        and refused."""
        self._leave(post)
        code = post.process.returncode
        if code >= 0:
            fault = Fault("a process ended", "python -m rounds.loop.clerk", "answers", f"exit status {code}")
            raise OurFault("a process that answers films ended through a bug of ours", [fault])
        if not post.orders:
            return
        number, paths = post.orders[0]
        careful = number in self._lost
        lost = self._lost.setdefault(number, {})
        if careful and post.at == NETWORK:
            then = "free memory, or use fewer --workers; what is answered is kept with --out"
            fault = Fault(f"a process was killed by signal {-code}, twice", paths[0], next=then)
            raise WorldFault("the processes that answer films are killed", [fault])
        if careful:
            lost[post.at] = f"kills the process that decodes it (signal {-code})"
        fresh = self._opened()
        self._posts[self._posts.index(post)] = fresh
        fresh.orders = post.orders
        for order in fresh.orders:
            self._order(fresh, order)

    def _leave(self, post: _Post) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(post.stream)
        post.stream.close()
        try:
            post.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            post.process.kill()
            post.process.wait()


def processes(job: Job, orders: Iterator[Order], count: int) -> Answers:
    """The packed chunk of each order, as they come, from `count` processes of this machine."""
    crew = Processes(job, count)
    try:
        yield from crew.answer(orders)
    finally:
        crew.close()


def _restored(error: dict[str, Any]) -> RoundsError:
    """The error that a clerk raised."""
    kind = getattr(rounds.core.errors, error["kind"])
    faults: Sequence[Fault] = [Fault(**fault) for fault in error["faults"]]
    raised: RoundsError = kind(error["message"], faults)
    return raised
