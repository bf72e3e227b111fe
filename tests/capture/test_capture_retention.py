"""Images are dropped by age and by size, oldest first, never while the audit waits; their rows stay and say so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rounds.capture.retention import Dropped, retain
from rounds.core.ports import Ports
from rounds.core.records import Captured, Label
from rounds.core.specs import CaptureSpec
from rounds.stores.blobs import FileBlobs
from rounds.stores.memory import memory_ports
from rounds.stores.rows import open_rows

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
def ports(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ports]:
    opened = memory_ports(tmp_path, clock=lambda: NOW)
    if request.param == "memory":
        yield opened
        return
    rows = open_rows(f"sqlite:///{tmp_path / 'rows.db'}", clock=lambda: NOW)
    yield replace(opened, captures=rows.captures, events=rows.events, blobs=FileBlobs(tmp_path / "blobs"))
    rows.close()


def keep(ports: Ports, name: str, days: float, data: bytes, *, audited: bool = False, told: bool = True) -> str:
    image = ports.blobs.put(data)
    scores = ((0.5, 0.5), (0.0, 0.0), (0.1,))
    at = NOW - timedelta(days=days)
    row = Captured(name, at, "b", "v1", image, "normal", *scores, audited, 1.0, size=len(data) if told else 0)
    ports.captures.record([row])
    return image


def left(ports: Ports) -> dict[str, bool]:
    """Whether each prediction still has its image; row and store must agree."""
    rows = ports.captures.since(0)
    assert all(row.gone != ports.blobs.has(row.image) for row in rows)
    return {row.prediction: not row.gone for row in rows}


def apply(ports: Ports, tmp_path: Path, **rule: float) -> Dropped:
    return retain(ports, CaptureSpec(**rule), journal=tmp_path / "journal", who="test")  # type: ignore[arg-type]


def test_images_older_than_the_rule_go_and_one_event_counts_them(ports: Ports, tmp_path: Path) -> None:
    keep(ports, "old", 31, b"12345")
    keep(ports, "older", 90, b"123", told=False)
    keep(ports, "young", 29, b"1234567")
    assert apply(ports, tmp_path, days=30) == Dropped(2, 8, 0, 1, 7)
    assert left(ports) == {"old": False, "older": False, "young": True}
    (event,) = ports.events.read()
    assert (event.kind, event.who) == ("images_dropped", "test")
    assert event.evidence == {
        "images": 2,
        "bytes": 8,
        "awaited": 0,
        "kept_images": 1,
        "kept_bytes": 7,
        "days": 30,
        "limit_bytes": 0,
    }
    assert apply(ports, tmp_path, days=30) == Dropped(0, 0, 0, 1, 7)
    assert ports.events.head() == 1


def test_no_rule_drops_nothing(ports: Ports, tmp_path: Path) -> None:
    keep(ports, "old", 4000, b"1")
    assert apply(ports, tmp_path) == Dropped(0, 0, 0, 1, 1)
    assert apply(ports, tmp_path, days=1e9) == Dropped(0, 0, 0, 1, 1)
    assert left(ports) == {"old": True}


def test_an_image_that_was_asked_for_again_is_as_young_as_that(ports: Ports, tmp_path: Path) -> None:
    keep(ports, "old", 90, b"same")
    keep(ports, "new", 1, b"same")
    assert apply(ports, tmp_path, days=30).images == 0
    assert left(ports) == {"old": True, "new": True}


def test_beyond_the_size_the_oldest_go_first(ports: Ports, tmp_path: Path) -> None:
    for i in range(5):
        keep(ports, f"p{i}", 10 - i, bytes([i]) * 10)
    assert apply(ports, tmp_path, bytes=30) == Dropped(2, 20, 0, 3, 30)
    assert left(ports) == {"p0": False, "p1": False, "p2": True, "p3": True, "p4": True}
    assert apply(ports, tmp_path, bytes=29).images == 1
    assert apply(ports, tmp_path, bytes=1, days=400).images == 2


def test_what_the_audit_waits_for_stays_until_it_is_twice_as_old(ports: Ports, tmp_path: Path) -> None:
    keep(ports, "waits", 59, b"1", audited=True)
    keep(ports, "waited", 61, b"2", audited=True)
    keep(ports, "labelled", 59, b"3", audited=True)
    ports.captures.attach([("labelled", Label("normal"))])
    assert apply(ports, tmp_path, days=30) == Dropped(2, 2, 1, 1, 1)
    assert left(ports) == {"waits": True, "waited": False, "labelled": False}
    # for the sake of space alone it never goes
    keep(ports, "large", 1, b"123456")
    assert apply(ports, tmp_path, bytes=1) == Dropped(1, 6, 1, 1, 1)
    assert left(ports)["waits"]


def test_what_a_killed_run_had_begun_is_finished_by_the_next(ports: Ports, tmp_path: Path) -> None:
    image = keep(ports, "old", 31, b"12345")
    ports.blobs.delete(image)
    assert apply(ports, tmp_path, days=30).images == 1
    assert left(ports) == {"old": False}


def test_films_that_arrive_while_images_go_keep_theirs(ports: Ports, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    for i in range(1200):
        keep(ports, f"p{i}", 40, str(i).encode())
    from rounds.capture.journal import alone

    def again() -> None:
        for i in range(1200, 0, -7):
            with alone(tmp_path / "journal"):
                keep(ports, f"again{i}", 0, str(i).encode())

    arriving = threading.Thread(target=again)
    arriving.start()
    apply(ports, tmp_path, days=30)
    arriving.join()
    rows = ports.captures.since(0)
    young = [row for row in rows if row.prediction.startswith("again")]
    assert len(young) == 172
    assert all(not row.gone and ports.blobs.has(row.image) for row in young)
    assert all(row.gone or ports.blobs.has(row.image) for row in rows)
