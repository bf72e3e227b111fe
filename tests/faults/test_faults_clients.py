"""Clients that dawdle, vanish, crowd or lie: whoever behaves is answered all the while."""

from __future__ import annotations

import asyncio
import random
import re
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from tests.faults.conftest import Note
from tests.support.blast import Report, blast
from tests.support.films import every_format, mutated
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.core.records import Label
from rounds.loop import labelling

pytestmark = pytest.mark.faults
FILM = films_as_png(1)[0]
HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: t\r\ncontent-type: image/png\r\n"
MUTATIONS = 100_000


def asked(served: Served, seconds: float) -> Report:
    """What somebody gets who behaves, for so long."""
    end = time.monotonic() + seconds
    return asyncio.run(blast(served.port, [FILM], clients=2, stop=lambda: time.monotonic() > end, rate=50))


def rss_kb(served: Served) -> int:
    """Kilobytes that the server and its workers hold for themselves."""
    found = subprocess.run(["pgrep", "-P", str(served.process.pid)], capture_output=True, text=True, check=False)
    pids = [served.process.pid, *map(int, found.stdout.split())]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def connected(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=30)


def test_clients_that_send_a_byte_a_second_are_cut_off_and_cost_nobody_an_answer(home: Path, figures: Note) -> None:
    promote(home)
    with server(home) as served, ExitStack() as stack:
        slow = [stack.enter_context(connected(served)) for _ in range(200)]
        for line in slow:
            line.sendall(HEAD[:20])
        begun, report, at = time.monotonic(), Report(), 20
        while time.monotonic() - begun < 24:
            report.requests += asked(served, 1.0).requests
            for line in slow:
                try:
                    line.sendall(HEAD[at : at + 1])
                except OSError:
                    continue
            at += 1
        cut = sum(_is_closed(line) for line in slow)
    figures(len(report.requests), len(report.bad))
    assert (cut, report.bad) == (200, [])


def test_half_closed_connections_hear_their_answer_and_are_closed(home: Path, figures: Note) -> None:
    promote(home)
    with server(home) as served:
        answers = []
        for _ in range(50):
            with connected(served) as line:
                line.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(FILM) + FILM)
                line.shutdown(socket.SHUT_WR)
                answers.append(b"".join(iter(lambda line=line: line.recv(65536), b"")))
        # and those that say half of it and are silent for ever after
        for _ in range(50):
            with connected(served) as line:
                line.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(FILM) + FILM[: len(FILM) // 2])
                line.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda line=line: line.recv(65536), b"")) == b""
        report = asked(served, 1.0)
    figures(len(answers) + len(report.requests), len(report.bad))
    assert {answer.split(b"\r\n", 1)[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert report.bad == []


def test_ten_thousand_connections_that_are_opened_and_left_keep_nobody_out(home: Path, figures: Note) -> None:
    promote(home)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 11_000:
        pytest.skip(f"this machine lets a process open {hard} files: raise it to 11,000 (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 11_000), hard))
    with server(home) as served, ExitStack() as stack:
        before = rss_kb(served)
        for _ in range(10_000):
            stack.enter_context(connected(served))
        report = asked(served, 3.0)
        grown = rss_kb(served) - before
    figures(len(report.requests), len(report.bad))
    assert report.bad == []
    assert len(report.good) > 50
    assert grown < 200_000


def test_a_server_out_of_file_descriptors_goes_on_once_there_are_some(home: Path, figures: Note) -> None:
    promote(home)
    with server(home) as served:
        subprocess.run(["prlimit", "--pid", str(served.process.pid), "--nofile=80:20000"], check=True)
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(connected(served))
            time.sleep(2)
            assert served.process.poll() is None
        time.sleep(1)
        report = asked(served, 2.0)
        alive = httpx.get(f"{served.url}/health/live").status_code
    figures(len(report.requests), len(report.bad))
    assert (alive, report.bad) == (200, [])


def test_a_clock_that_is_set_back_changes_no_order_and_loses_no_answer(
    home: Path, figures: Note, tmp_path: Path
) -> None:
    with faketime(tmp_path) as (environment, shift):
        promote(home)
        with server(home, environment=environment) as served:
            first = asked(served, 1.0)
            shift("-2d")
            second = asked(served, 1.0)
    with opened(home) as ports:
        labelled = labelling.attach(ports, [Label("normal", prediction=second.ids[-1])])
        rows = ports.captures.since(0, limit=100_000)
    names, order = [*first.ids, *second.ids], [row.prediction for row in rows]
    lost = set(names) - set(order)
    figures(len(names), len(first.bad) + len(second.bad), len(lost))
    assert (first.bad, second.bad, lost) == ([], [], set())
    assert max(map(order.index, first.ids)) < min(map(order.index, second.ids))
    assert rows[-1].at < rows[0].at, "the clock went back"
    assert labelled == {"accepted": 1, "refused": []}


def test_a_hundred_thousand_damaged_films_of_every_format_crash_nothing_and_grow_nothing(
    home: Path, figures: Note
) -> None:
    promote(home)
    draw, films = random.Random(0), every_format()
    count = 0

    class Damaged:
        """An endless row of films, each with something wrong."""

        def __len__(self) -> int:
            return 1 << 40

        def __getitem__(self, _place: int) -> bytes:
            nonlocal count
            count += 1
            return mutated(draw.choice(films), draw)

    with server(home) as served:
        warm = asyncio.run(blast(served.port, Damaged(), clients=16, stop=lambda: count > MUTATIONS // 10))  # type: ignore[arg-type]
        before = rss_kb(served)
        report = asyncio.run(blast(served.port, Damaged(), clients=16, stop=lambda: count > MUTATIONS))  # type: ignore[arg-type]
        grown = rss_kb(served) - before
        (deaths,) = re.findall(r"(?m)^rounds_worker_deaths_total (\S+)$", httpx.get(f"{served.url}/metrics").text)
    done = [*warm.requests, *report.requests]
    statuses = {status: sum(one.status == status for one in done) for status in {one.status for one in done}}
    figures(len(done), sum(count for status, count in statuses.items() if status == 0 or status >= 500))
    assert set(statuses) <= {200, 400, 413, 415}, statuses
    assert len(done) >= MUTATIONS
    assert float(deaths) == 0
    assert grown < 40_000, f"{grown} kB in {len(report.requests)} films"


def _is_closed(line: socket.socket) -> bool:
    line.settimeout(0.1)
    try:
        return line.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@contextmanager
def faketime(folder: Path) -> Iterator[tuple[dict[str, str], object]]:
    """An environment in which the clock can be set, and what sets it."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("no libfaketime here: apt-get install libfaketime")
    file = folder / "clock"
    file.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(libraries[-1]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    yield environment, lambda text: file.write_text(text + "\n")
