"""Processes, databases and disks that go away: what was acknowledged is there, all of it, once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.faults.conftest import Note
from tests.support.blast import Report, blast
from tests.support.postgres import Server
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

pytestmark = pytest.mark.faults


@contextmanager
def load(served: Served, *, rate: float = 300.0, clients: int = 8) -> Iterator[Callable[[], Report]]:
    """Ask all the while; the report is there once the block has called for it."""
    done, found = threading.Event(), list[Report]()
    films = films_as_png(64)
    thread = threading.Thread(
        target=lambda: found.append(
            asyncio.run(blast(served.port, films, clients=clients, stop=done.is_set, rate=rate))
        )
    )
    thread.start()

    def report() -> Report:
        done.set()
        thread.join()
        return found[0]

    try:
        time.sleep(0.5)
        yield report
    finally:
        report()


def workers(served: Served) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(served.process.pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def reconcile(home: Path, *reports: Report) -> list[str]:
    """Acknowledged ids that are not in the store, or whose image is not; the rows are there once each."""
    with opened(home) as ports:
        rows = ports.captures.since(0, limit=1_000_000)
        kept = {row.prediction: row.image for row in rows}
        assert len(kept) == len(rows)
        names = [name for report in reports for name in report.ids]
        assert len(names) == len(set(names))
        return [name for name in names if name not in kept or not ports.blobs.has(kept[name])]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_costs_503_for_what_it_held_and_is_replaced_with_an_alarm(
    home: Path, figures: Note, how: signal.Signals
) -> None:
    promote(home)
    with server(home) as served, load(served, rate=0) as report:
        for _ in range(4):
            (pid,) = workers(served)
            os.kill(pid, how)
            time.sleep(1.5)
        found = report()
    lost = reconcile(home, found)
    with opened(home) as ports:
        alarms = ports.events.read(kinds=("alarm",))
    figures(len(found.requests), 0, len(lost))
    assert {one.status for one in found.bad} <= {503}
    assert all("retry-after: 1" in one.headers for one in found.bad)
    assert 1 <= len(found.bad) <= 4 * 8
    assert lost == []
    assert [event.evidence["kind"] for event in alarms] == ["integrity"] * 4
    assert [event.why.split(";")[0] for event in alarms] == [f"a worker died (signal {how.value})"] * 4


def test_what_a_killed_server_acknowledged_is_there_after_the_next_start(home: Path, figures: Note) -> None:
    promote(home)
    reports = list[Report]()
    for _ in range(3):
        with server(home) as served, load(served, rate=0) as report:
            time.sleep(1.0)
            served.process.kill()
            time.sleep(0.2)
            reports.append(report())
    with server(home):
        time.sleep(0.5)
    lost = reconcile(home, *reports)
    answered = sum(len(found.good) for found in reports)
    figures(answered, 0, len(lost))
    assert lost == []
    assert answered > 500


def test_a_server_that_is_told_to_stop_answers_what_it_has_taken_and_ends_with_0(home: Path, figures: Note) -> None:
    promote(home)
    with server(home) as served, load(served, rate=0) as report:
        served.process.terminate()
        code = served.process.wait(20)
        found = report()
    lost = reconcile(home, found)
    figures(len(found.good), 0, len(lost))
    assert (code, lost) == (0, [])
    assert {one.status for one in found.bad} <= {0, 503}, "refused connections, or told to come again"


def test_a_full_disk_refuses_and_forgets_nothing_and_goes_on_once_there_is_room(home: Path, figures: Note) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a disk that is full needs root: the test mounts a small one")
    promote(home)
    journal = home / "journal"
    journal.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", journal], check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        with server(home) as served, load(served) as report:
            with (journal / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while filler.write(bytes(512)):
                    pass
            assert shutil.disk_usage(journal).free == 0
            time.sleep(2)
            (journal / "filler").unlink()
            time.sleep(2)
            found = report()
        lost = reconcile(home, found)
    finally:
        subprocess.run(["umount", journal], check=True)
    refused = {one.body.get("kind") for one in found.bad}
    figures(len(found.requests), 0, len(lost))
    assert refused <= {"StoreAway"}
    assert lost == []
    assert found.requests[-1].status == 200


def test_a_database_that_is_restarted_costs_no_answer(
    home: Path, figures: Note, monkeypatch: pytest.MonkeyPatch, postgres_server: Server
) -> None:
    monkeypatch.setenv("ROUNDS_ROWS", postgres_server.url)
    promote(home)
    with server(home) as served, load(served) as report:
        postgres_server.stop()
        time.sleep(3)
        postgres_server.start()
        time.sleep(3)
        postgres_server.stop()
        found = report()
        # the server is told to stop while its database is away: what it acknowledged waits on disk
    assert served.process.returncode == 0
    postgres_server.start()
    with server(home):
        time.sleep(0.5)
    lost = reconcile(home, found)
    figures(len(found.requests), len(found.bad), len(lost))
    assert (found.bad, lost) == ([], [])


def test_a_server_whose_database_is_away_at_its_start_serves_once_it_is_back(
    home: Path, figures: Note, monkeypatch: pytest.MonkeyPatch, postgres_server: Server
) -> None:
    monkeypatch.setenv("ROUNDS_ROWS", postgres_server.url)
    promote(home)
    postgres_server.stop()
    with server(home) as served:
        assert httpx.get(f"{served.url}/health/live").status_code == 200
        away = httpx.get(f"{served.url}/health/ready")
        assert (away.status_code, away.json()["kind"]) == (503, "StoreAway")
        assert httpx.post(f"{served.url}/v1/predict", content=films_as_png(1)[0]).status_code == 503
        postgres_server.start()
        end = time.monotonic() + 20
        while httpx.get(f"{served.url}/health/ready").status_code != 200 and time.monotonic() < end:
            time.sleep(0.1)
        with load(served) as report:
            found = report()
    lost = reconcile(home, found)
    figures(len(found.requests), len(found.bad), len(lost))
    assert (found.bad, lost) == ([], [])
