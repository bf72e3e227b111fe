"""Many clients at once, each on a connection of its own, and what became of every request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Done:
    """One request: when it was sent and answered (perf_counter, seconds), its status (0: the connection broke before an
    answer), and the answer."""

    sent: float
    answered: float
    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: str = ""


@dataclass
class Report:
    """Everything that was asked."""

    requests: list[Done] = field(default_factory=list)

    @property
    def good(self) -> list[Done]:
        return [one for one in self.requests if one.status == 200]

    @property
    def bad(self) -> list[Done]:
        return [one for one in self.requests if one.status != 200]

    @property
    def ids(self) -> list[str]:
        return [one.body["id"] for one in self.good]


async def blast(
    port: int,
    films: Sequence[bytes],
    *,
    clients: int = 8,
    stop: Callable[[], bool],
    rate: float = 0.0,
    pause_s: float = 0.02,
) -> Report:
    """Ask until `stop` says so, all clients together at most `rate` requests a second (0: as fast as they are
    answered); a client whose connection breaks comes again after `pause_s` seconds."""
    report = Report()
    begun = time.perf_counter()

    async def client(number: int) -> None:
        line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        count = 0
        while not stop():
            if rate:
                due = begun + (count * clients + number) / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            film = films[(count * clients + number) % len(films)]
            count += 1
            sent = time.perf_counter()
            try:
                if line is None:
                    line = await asyncio.open_connection("127.0.0.1", port)
                done = await ask(*line, film)
            except (OSError, asyncio.IncompleteReadError):
                done = Done(sent, time.perf_counter(), 0)
            report.requests.append(done)
            if line is not None and (done.status == 0 or "connection: close" in done.headers):
                line[1].close()
                line = None
            if done.status == 0:
                await asyncio.sleep(pause_s)
        if line is not None:
            line[1].close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return report


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, film: bytes) -> Done:
    """One prediction over an open connection."""
    sent = time.perf_counter()
    head = b"POST /v1/predict HTTP/1.1\r\nhost: t\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(film)
    writer.write(head + film)
    headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(headers.split("content-length: ", 1)[1].split("\r\n", 1)[0])
    body = await reader.readexactly(length)
    return Done(sent, time.perf_counter(), int(headers.split(" ", 2)[1]), json.loads(body), headers)
