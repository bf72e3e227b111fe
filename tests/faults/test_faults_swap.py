"""Swaps and rollbacks under load: nobody fails, and every answer names the version that gave it."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from tests.faults.conftest import Note
from tests.support.blast import Report, blast
from tests.support.bundles import tiny_bundle
from tests.support.server import server
from tests.support.workspace import films_as_png, opened, promote, promote_bundle

from rounds.loop import gating
from rounds.registry.catalogue import Catalogue

pytestmark = pytest.mark.faults
RATE = 500.0


def test_ten_swaps_and_rollbacks_under_500_requests_a_second_fail_nobody_and_mix_nothing(
    home: Path, figures: Note
) -> None:
    promote(home, bias=0.0)
    done = threading.Event()
    with server(home) as served:
        found = list[Report]()
        load = threading.Thread(
            target=lambda: found.append(
                asyncio.run(blast(served.port, films_as_png(64), clients=16, stop=done.is_set, rate=RATE))
            )
        )
        load.start()
        time.sleep(0.5)
        for i in range(5):
            promote_bundle(home, tiny_bundle(home / "bundles", bias=0.5 * (i + 1)))
            time.sleep(1.2)
            with opened(home) as ports:
                gating.roll_back(ports, why="a test")
            time.sleep(1.2)
        done.set()
        load.join()
    (report,) = found
    with opened(home) as ports:
        services = Catalogue.of(ports.events.read()).services
        kept = {row.prediction: row for row in ports.captures.since(0, limit=1_000_000)}
    changes = [(service.since.timestamp(), service.version) for service in services]
    assert len(changes) == 11
    offset = time.time() - time.perf_counter()
    bundles = {version.version: version.bundle for _, version in changes}
    late, mixed = [], 0
    for one in report.good:
        mixed += bundles[one.body["version"]] != one.body["bundle"]
        # what was asked a second after a change is answered by the version then in force
        then = [version for at, version in changes if at + 1.0 < one.sent + offset]
        now = [version for at, version in changes if one.sent + offset - 1.0 <= at <= one.answered + offset]
        if then and one.body["version"] not in {then[-1].version, *(version.version for version in now)}:
            late.append(one)
    lost = [name for name in report.ids if name not in kept]
    seconds = report.requests[-1].answered - report.requests[0].sent
    figures(len(report.requests), len(report.bad), len(lost), mixed + len(late))
    assert len(report.requests) / seconds > 0.8 * RATE, "the load was what it says"
    assert (report.bad, late, mixed, lost) == ([], [], 0, [])
    assert {one.body["version"] for one in report.good} == {f"v{i}" for i in range(1, 7)}


def test_a_bundle_that_is_damaged_leaves_the_old_one_serving_and_raises_an_alarm(home: Path, figures: Note) -> None:
    promote(home)
    done = threading.Event()
    with server(home) as served:
        found = list[Report]()
        load = threading.Thread(
            target=lambda: found.append(asyncio.run(blast(served.port, films_as_png(64), stop=done.is_set, rate=300)))
        )
        load.start()
        broken = tiny_bundle(home / "bundles", bias=1.0)
        (broken.path / "model.onnx").write_bytes(b"no network")
        promote_bundle(home, broken)
        time.sleep(3)
        done.set()
        load.join()
    (report,) = found
    with opened(home) as ports:
        alarms = [event.evidence["kind"] for event in ports.events.read(kinds=("alarm",))]
    figures(len(report.requests), len(report.bad))
    assert (report.bad, alarms) == ([], ["integrity"])
    assert {one.body["version"] for one in report.good} == {"v1"}
