"""Through the gate into service and back: what is refused, and what the log says of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import shifted_threshold
from tests.support.captured import CLASSES, Ward, dataset_in, kinds, packed
from tests.support.workspace import opened

from rounds.core.errors import GateRefused, LeakFound, Refused
from rounds.core.ids import digest
from rounds.core.records import Bundle, GateReport
from rounds.core.specs import GateSpec
from rounds.data.assemble import assemble
from rounds.imaging.packed import Films
from rounds.loop import gating, intake, measuring, ruling, tracing
from rounds.loop.ruling import Rules
from rounds.registry import versions
from rounds.registry.catalogue import Catalogue


def champion(ward: Ward) -> str | None:
    found: str | None = tracing.models(ward.ports)["champion"]
    return found


def other(ward: Ward, **given: Any) -> Bundle:
    """Another bundle made of the champion's data."""
    data = Catalogue.of(ward.ports.events.read()).dataset("tiny")
    return packed(ward.ports, intake.find(ward.ports, data.digest), **given)


def test_the_first_champion_passes_floors_and_names_its_gate_record(ward: Ward) -> None:
    (gated,) = ward.ports.events.read(kinds=("gated",))
    (promoted,) = ward.ports.events.read(kinds=("promoted",))
    assert promoted.evidence["gate"] == gated.id
    assert [check["name"] for check in gated.evidence["report"]["checks"]] == [
        "auc",
        *(f"recall {name}" for name in CLASSES),
        "ece",
    ]


def test_a_bundle_keeps_its_number(ward: Ward) -> None:
    made = other(ward, seed=1)
    assert gating.register(ward.ports, made.digest) == {"version": "v2", "bundle": made.digest}
    assert gating.register(ward.ports, str(made.path)) == {"version": "v2", "bundle": made.digest}


def test_a_refusal_carries_every_reason_and_the_public_answer(ward: Ward) -> None:
    worse = other(ward, bias=3.0)
    with pytest.raises(GateRefused, match=r"v2 may not serve: (power|sealed_test)") as caught:
        gating.promote(ward.ports, worse.digest)
    report = caught.value.report
    assert (report["version"], report["from"], report["to"], report["passed"]) == ("v2", "v1", "v2", False)
    assert set(report) >= {"checks", "seconds", "alpha", "power", "candidate"}
    assert [check["name"] for check in report["checks"]] == ["latency", "power", "sealed_test"]
    assert champion(ward) == "v1"


def test_a_refused_first_candidate_seals_no_test_set(tmp_path: Path) -> None:
    with opened(tmp_path / "home") as ports:
        small, large = dataset_in(ports, seed=3), dataset_in(ports, seed=4)
        ruling.change(ports, Rules(gate=GateSpec(min_auc=0.999)))
        with pytest.raises(GateRefused):
            gating.promote(ports, packed(ports, small, bias=3.0).digest)
        ruling.change(ports, Rules())
        gating.promote(ports, packed(ports, large).digest)
        assert [event.evidence["frozen"] for event in ports.events.read(kinds=("gated",))] == [
            small.digest,
            large.digest,
        ]


def test_an_overruled_promotion_is_marked_wherever_it_is_named(ward: Ward) -> None:
    worse = other(ward, bias=3.0)
    done = gating.promote(ward.ports, worse.digest, overrule="the ward has no other scanner")
    assert (done["passed"], done["from"], done["to"]) == (False, "v1", "v2")
    served = tracing.models(ward.ports)["versions"]
    assert [version["overruled"] for version in served] == [None, "the ward has no other scanner"]
    (row,) = ward.send(1)
    assert tracing.trace(ward.ports, row.prediction)["overruled"] == "the ward has no other scanner"
    back = gating.roll_back(ward.ports, why="it was worse")
    assert (back["from"], back["to"], back["passed"], back["checks"]) == ("v2", "v1", True, [])
    with pytest.raises(Refused, match=r"the rollback is refused\n.*got v2, which never passed"):
        gating.roll_back(ward.ports, to="v2", why="no")


def test_the_champion_is_not_judged_against_itself(ward: Ward) -> None:
    with pytest.raises(GateRefused, match=r"v1 is the champion\n  v1: it serves already"):
        gating.promote(ward.ports, "champion")
    assert len(kinds(ward.ports, "gated")) == 1


def test_a_record_against_an_older_champion_promotes_nobody(ward: Ward) -> None:
    late, quick = other(ward, seed=1), other(ward, seed=2)
    judged = gating.judge(ward.ports, late)
    gating.promote(ward.ports, quick.digest, overrule="first")
    passing = GateReport(late.digest, judged.report.against, passed=True, checks=(), candidate=9, alpha=0.05)
    record = versions.record_gate(ward.ports.events, passing, frozen="f" * 64, why="", who="test")
    old = gating.Judged(passing, record.id, judged.version, judged.champion)
    message = rf"(?s)v2 may not serve on the strength of an older record.*against {quick.digest[:12]}; got one against"
    with pytest.raises(GateRefused, match=message):
        gating.install(ward.ports, old, why="too late", who="test")
    assert champion(ward) == "v3"


def test_every_candidate_spends_a_level_of_its_own_on_whatever_test_set(ward: Ward) -> None:
    made = [other(ward, seed=seed) for seed in (1, 2)]
    threads = [threading.Thread(target=gating.judge, args=(ward.ports, bundle)) for bundle in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second = dataset_in(ward.ports, seed=5)
    gating.judge(ward.ports, made[0], data=second.digest)
    judged = [event.evidence["report"]["candidate"] for event in ward.ports.events.read(kinds=("gated",))]
    assert judged == [1, 1, 2, 3]


def test_a_bundle_made_of_frozen_test_films_is_not_judged(ward: Ward) -> None:
    leaky = packed(ward.ports, dataset_in(ward.ports, splits={"val": 700, "train": 200}), seed=1)
    with pytest.raises(LeakFound, match=r"(?s)200 films of the bundle's data are in the frozen test set") as caught:
        gating.promote(ward.ports, leaky.digest)
    assert len(caught.value.leaks) == 200
    assert len(caught.value.faults) == 20
    assert all(made == tested for made, tested in caught.value.leaks)
    assert caught.value.faults[0].where == caught.value.leaks[0][0]
    assert len(kinds(ward.ports, "gated")) == 1


def test_a_bundle_made_of_other_films_of_a_test_subject_is_not_judged(ward: Ward) -> None:
    # other films under the same names of subjects, those of the test set among the training films
    films = Films(dataset_in(ward.ports, seed=77).path)
    turned = (replace(film, split="train") for film in films)
    made = assemble("turned", turned, films.classes, folder=ward.ports.datasets, subjects_known=True)
    intake.enter(ward.ports, made, why="a test")
    leaky = packed(ward.ports, made, seed=1)
    with pytest.raises(
        LeakFound, match="200 films of the bundle's data are in the frozen test set, or of its subjects"
    ):
        gating.judge(ward.ports, leaky)


def test_a_bundle_with_other_classes_is_not_compared(ward: Ward) -> None:
    turned = other(ward, classes=("opacity", "normal"))
    message = (
        r"cannot be compared with v1\n.*other classes than the champion's; expected normal, opacity; got opacity, n"
    )
    with pytest.raises(GateRefused, match=message):
        gating.judge(ward.ports, turned)


def test_a_champion_written_straight_into_the_log_does_not_serve_and_the_audit_names_it(ward: Ward) -> None:
    made = other(ward, bias=3.0)
    gating.register(ward.ports, made.digest)
    evidence = {"version": "v2", "bundle": made.digest, "from": "v1", "gate": digest(b"none"), "overruled": None}
    smuggled = ward.ports.events.append("promoted", who="nobody", why="", evidence=evidence)
    assert champion(ward) == "v1"
    assert ward.send(1)[0].version == "v1"
    found = tracing.audit(ward.ports)
    assert (found["ok"], found["first_broken"]) == (False, smuggled.id)


def test_a_window_of_audited_films_decides_once_it_is_large_enough(ward: Ward) -> None:
    better = shifted_threshold(measuring.open_bundle(ward.ports, "champion"), ward.ports.bundles, 0.5001)
    few = ward.send(60)
    ward.label_audited()
    report = gating.judge(ward.ports, better, fresh=few).report
    assert [check.name for check in report.checks][-1] == "sealed_test"
    many = ward.send(400)
    ward.label(many)
    # labels outside the audit never count
    outside = [row for row in many if not row.audited]
    assert [c.name for c in gating.judge(ward.ports, better, fresh=outside).report.checks][-1] == "sealed_test"
    report = gating.judge(ward.ports, better, fresh=many).report
    assert f"{sum(row.audited for row in many)} subjects" in report.checks[1].note
    assert (report.passed, report.checks[-1].name) == (True, "sealed_ranking")
