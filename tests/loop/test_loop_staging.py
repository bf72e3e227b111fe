"""A version beside the champion looks on, or answers its share; every film has one answer, and both are compared."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import tiny_bundle
from tests.support.workspace import films_as_png, opened, promote

from rounds.core.errors import GateRefused, Refused, UnknownId
from rounds.core.ports import Ports
from rounds.core.records import GateReport, PredictRequest
from rounds.core.specs import MonitorSpec, ServeSpec
from rounds.loop import exchange, staging, tracing
from rounds.loop.live import Live
from rounds.registry import versions
from rounds.registry.catalogue import Catalogue


async def answered(ports: Ports, films: list[bytes], references: list[str] | None = None) -> list[Any]:
    live = Live(ports, ServeSpec(workers=0), MonitorSpec())
    await live.start()
    try:
        names = references or [None] * len(films)
        asked = [PredictRequest(film, f"r_{i}", name) for i, (film, name) in enumerate(zip(films, names, strict=True))]
        return await asyncio.gather(*map(live.predict, asked))
    finally:
        await live.stop()


def test_a_shadow_sees_every_film_and_answers_none(home: Path, tmp_path: Path) -> None:
    promote(home)
    with opened(home) as ports:
        assert staging.staged(ports) == {"champion": "v1", "staged": None}
        other = tiny_bundle(tmp_path, bias=8.0)
        started = staging.shadow(ports, str(other.path))
        assert (started["staged"]["version"], started["staged"]["stage"], started["n"]) == ("v2", "shadow", 0)
        answers = asyncio.run(answered(ports, films_as_png(40)))
        compared = staging.staged(ports)
        looked = ports.captures.shadows(bundle=other.digest)
        assert {answer.version for answer in answers} == {"v1"}
        assert {one.prediction for one in looked} == {answer.id for answer in answers}
        assert (compared["n"], compared["answered"]) == (40, 0)
        same = sum(one.label == answer.label for one, answer in zip(_by(looked), _by(answers), strict=True))
        assert compared["agreement"] == same / 40
        assert compared["difference"] > 0.1
        assert tracing.models(ports)["staged"]["stage"] == "shadow"
        assert staging.end(ports, why="seen enough")["staged"] is None
        asyncio.run(answered(ports, films_as_png(3)))
        assert len(ports.captures.shadows()) == 40
        with pytest.raises(UnknownId, match="nothing is staged"):
            staging.end(ports, why="again")


def test_a_canary_answers_its_share_by_reference_up_to_its_cap_and_the_champion_looks_on(
    home: Path, tmp_path: Path
) -> None:
    promote(home)
    films = films_as_png(60)
    with opened(home) as ports:
        other = exchange.take_bundle(ports, tiny_bundle(tmp_path, bias=0.1), "test")
        version = versions.register(ports.events, other, why="a test", who="test")
        with pytest.raises(GateRefused, match=r"v2 may not answer\n  v2: no gate stands behind this"):
            versions.stage(ports.events, version, "canary", share=0.5, cap=15, why="a test", who="test")
        champion = Catalogue.of(ports.events.read()).champion
        report = GateReport(other.digest, champion and champion.bundle, passed=True, checks=(), candidate=1, alpha=0.05)
        gate = versions.record_gate(ports.events, report, frozen="f" * 64, why="a test", who="test").id
        versions.stage(ports.events, version, "canary", share=0.5, cap=15, gate=gate, why="a test", who="test")
        references = [f"acc-{i // 2}" for i in range(60)]
        answers = asyncio.run(answered(ports, films, references))
        told = staging.staged(ports)
        by = [answer.version for answer in answers]
        assert by.count("v2") == 15
        assert told["answered"] == 15
        assert told["n"] == 60, "each film was seen by both"
        last = max(i for i, version in enumerate(by) if version == "v2")
        pairs = [tuple(by[i : i + 2]) for i in range(0, last - 1, 2)]
        assert set(pairs) == {("v1", "v1"), ("v2", "v2")}, "one reference meets one version"
        again = asyncio.run(answered(ports, films, references))
        assert {answer.version for answer in again} == {"v1"}, "the cap counts what an earlier server answered"


def test_an_event_that_lets_a_version_answer_without_a_gate_is_not_followed(home: Path, tmp_path: Path) -> None:
    promote(home)
    with opened(home) as ports:
        other = exchange.take_bundle(ports, tiny_bundle(tmp_path, bias=0.1), "test")
        versions.register(ports.events, other, why="a test", who="test")
        smuggled = {"version": "v2", "bundle": other.digest, "stage": "canary", "share": 1.0, "cap": 99, "gate": None}
        ports.events.append("staged", who="nobody", why="smuggled", evidence=smuggled)
        assert Catalogue.of(ports.events.read()).staged is None
        assert tracing.audit(ports)["ok"] is False
        assert {answer.version for answer in asyncio.run(answered(ports, films_as_png(5)))} == {"v1"}


def test_nothing_stands_beside_nobody_nor_the_champion_beside_itself(home: Path, tmp_path: Path) -> None:
    with opened(home) as ports, pytest.raises(Refused, match="v1 cannot be put beside the champion"):
        staging.shadow(ports, str(tiny_bundle(tmp_path).path))


def _by(rows: Any) -> list[Any]:
    return sorted(rows, key=lambda row: getattr(row, "prediction", None) or row.id)
