"""The rules in force say how long images stay; whoever watches keeps them once an hour, and what was dropped is no film
to learn from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.commands import rounds
from tests.support.workspace import opened

from rounds.core.ports import Ports
from rounds.core.records import Captured, Label
from rounds.core.specs import CaptureSpec
from rounds.loop import curing, retaining, ruling
from rounds.stores.memory import memory_ports

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def ports(tmp_path: Path) -> Ports:
    return memory_ports(tmp_path, clock=lambda: NOW)


def film(ports: Ports, name: str, days: float, *, now: datetime = NOW, audited: bool = False) -> None:
    image, at = ports.blobs.put(name.encode()), now - timedelta(days=days)
    scores = ((0.5, 0.5), (0.0, 0.0), (0.1,))
    ports.captures.record([Captured(name, at, "b", "v1", image, "normal", *scores, audited, 1.0, size=len(name))])


def later(ports: Ports, hours: float) -> Ports:
    return replace(ports, clock=lambda: NOW + timedelta(hours=hours))


def test_the_rule_in_force_is_kept_and_said(ports: Ports) -> None:
    film(ports, "old", 31)
    film(ports, "young", 1)
    usual = {"awaited": 0, "limit_bytes": 0}
    assert retaining.drop_images(ports) == {
        **usual,
        "images": 0,
        "bytes": 0,
        "kept_images": 2,
        "kept_bytes": 8,
        "days": 0.0,
    }
    ruling.change(ports, ruling.Rules(capture=CaptureSpec(days=30)))
    assert retaining.drop_images(ports) == {
        **usual,
        "images": 1,
        "bytes": 3,
        "kept_images": 1,
        "kept_bytes": 5,
        "days": 30,
    }
    assert [row.gone for row in ports.captures.since(0)] == [True, False]


def test_whoever_watches_keeps_the_rule_once_an_hour_and_whoever_is_second_does_not(ports: Ports) -> None:
    film(ports, "old", 31)
    assert retaining.drop_images_hourly(ports) is None
    ruling.change(ports, ruling.Rules(capture=CaptureSpec(days=30)))
    done = retaining.drop_images_hourly(ports)
    assert done is not None
    assert done["images"] == 1
    assert [event.who for event in ports.events.read(kinds=("images_dropped",))] == ["watch"]
    film(ports, "older", 40)
    assert retaining.drop_images_hourly(later(ports, 0.9)) is None
    assert retaining.drop_images_hourly(later(ports, 1.1))["images"] == 1  # type: ignore[index]
    # a clock that is set back does not put it off for ever
    assert retaining.drop_images_hourly(later(ports, -1000)) is not None


def test_a_film_whose_image_is_gone_is_no_longer_learned_from(ports: Ports) -> None:
    for name in ("a", "b"):
        film(ports, name, 1, audited=True)
    labels = {name: Label("normal", name) for name in ("a", "b")}
    gone = next(row.image for row in ports.captures.since(0) if row.prediction == "a")
    ports.captures.drop_images([gone])
    assert [row.prediction for row in curing.audited_firsts(ports.captures.since(0), labels)] == ["b"]


def test_the_command_drops_images_and_says_by_which_rule(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with opened(home) as ports:
        film(ports, "old", 31, now=ports.clock())
        film(ports, "waits", 31, now=ports.clock(), audited=True)
        film(ports, "young", 1, now=ports.clock())
    assert rounds(home, "policy", "capture.days=30", "capture.bytes=1000000").code == 0
    said = rounds(home, "retain", "--json").json
    assert said == {
        "images": 1,
        "bytes": 3,
        "awaited": 1,
        "kept_images": 2,
        "kept_bytes": 10,
        "days": 30.0,
        "limit_bytes": 1_000_000,
    }
    assert rounds(home, "retain").out.splitlines() == [
        "0 images dropped (0 bytes), 2 kept",
        "1 due ones wait for the audit",
        "the rule: capture.days=30 capture.bytes=1000000 (0: no bound)",
    ]
    assert rounds(home, "policy", "capture.days=-1").code == 2
