"""The gate: what passes, what is refused and why, what the sealed test set gives away, and the promise over many
candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rounds.core.errors import OurFault
from rounds.core.records import GateReport
from rounds.core.specs import GateSpec
from rounds.registry.gate import Evidence, gate, labels_for_fresh
from rounds.stats.intervals import clopper_pearson

SPEC = GateSpec()


def evidence(n: int, accuracy: float, *, seed: int, films: int = 0) -> Evidence:
    """A bundle that is right with this probability, on films whose classes depend on `films` alone."""
    y = np.random.default_rng(films).integers(0, 2, n)
    random = np.random.default_rng(1000 + seed)
    label = np.where(random.random(n) < accuracy, y, 1 - y)
    p = np.clip(np.where(label == 1, 0.95, 0.05) + random.normal(0, 0.03, n), 0.001, 0.999)
    return Evidence(y, label, np.stack([1 - p, p], 1), tuple(f"s{i}" for i in range(n)), ("normal", "opacity"))


def variant(of: Evidence, worse: float, better: float, *, seed: int) -> Evidence:
    """A bundle that differs from another: right ones become wrong, and wrong ones right, with these probabilities."""
    random = np.random.default_rng(seed)
    flip = random.random(len(of)) < np.where(of.label == of.y, worse, better)
    return replace(
        of,
        label=np.where(flip, 1 - of.label, of.label),
        probabilities=np.where(flip[:, None], of.probabilities[:, ::-1], of.probabilities),
    )


def judge(candidate: Evidence, champion: Evidence | None, **given: object) -> GateReport:
    options: dict[str, object] = {"bundle": "new", "against": "old" if champion else None, "j": 1, "promoted": 0}
    return gate(candidate, champion, SPEC, **(options | given))  # type: ignore[arg-type]


def failed(report: GateReport) -> list[str]:
    return [check.name for check in report.checks if not check.passed]


def test_the_first_champion_meets_the_floors_with_its_numbers_shown() -> None:
    report = judge(evidence(600, 0.95, seed=1), None)
    assert report.passed
    assert [check.name for check in report.checks] == ["auc", "recall normal", "recall opacity", "ece"]
    assert all(check.value is not None for check in report.checks)
    assert (report.candidate, report.alpha, report.power, report.labels_lacking) == (1, 0.05, None, 0)


def test_a_first_champion_below_the_floors_is_refused_for_each_of_them() -> None:
    of = evidence(600, 0.95, seed=1)
    blind = replace(of, label=np.zeros(600, np.int64), probabilities=np.tile([0.51, 0.49], (600, 1)))
    assert failed(judge(blind, None)) == ["auc", "recall opacity"]
    sure = replace(of, label=1 - of.y, probabilities=np.stack([of.y, 1.0 - of.y], 1).astype(float))
    assert failed(judge(sure, None)) == ["auc", "recall normal", "recall opacity", "ece"]


def test_what_cannot_be_told_is_not_passed() -> None:
    of = evidence(50, 0.95, seed=1)
    one = replace(of, y=np.zeros(50, np.int64))
    notes = {check.name: check.note for check in judge(one, None).checks if not check.passed}
    assert notes["auc"] == "cannot be told: too few of a class"
    assert notes["recall opacity"] == "cannot be told: no film of this class"


def test_a_better_candidate_passes_the_sealed_test_set_which_shows_no_number() -> None:
    champion = evidence(620, 0.90, seed=2)
    report = judge(variant(champion, 0.005, 0.5, seed=3), champion)
    assert report.passed
    assert report.alpha == pytest.approx(0.0125)
    assert [check.name for check in report.checks] == ["power", "sealed_test"]
    assert (report.checks[1].value, report.checks[1].limit) == (None, None)


def test_a_worse_candidate_is_refused_with_one_bit() -> None:
    champion = evidence(4000, 0.95, seed=4)
    report = judge(variant(champion, 0.08, 0.3, seed=5), champion)
    assert failed(report) == ["sealed_test"]
    assert report.checks[-1].note.endswith("one bit for the floors and for not being worse by 0.03 or more")
    assert report.labels_lacking == 0


def test_too_few_labels_give_no_answer_and_tell_how_many_are_lacking() -> None:
    champion = evidence(150, 0.95, seed=6)
    report = judge(variant(champion, 0.03, 0.6, seed=7), champion, j=3, promoted=1)
    assert failed(report) == ["power", "sealed_test"]
    assert report.power is not None
    assert report.power < 0.8
    assert report.labels_lacking > 100
    assert report.checks[0].note.endswith(f"{report.labels_lacking} labels lacking")


def test_the_sealed_set_is_not_looked_at_where_the_latency_refuses_already() -> None:
    champion = evidence(620, 0.90, seed=2)
    report = judge(variant(champion, 0.005, 0.5, seed=3), champion, latency=(10.0, 2.0))
    assert [(check.name, check.value, check.passed) for check in report.checks] == [("latency", 5.0, False)]
    assert not report.passed


def test_a_cure_passes_on_a_fresh_window_whose_numbers_are_shown() -> None:
    champion, old = evidence(600, 0.95, seed=8), evidence(160, 0.78, seed=9, films=1)
    cure = variant(old, 0.02, 0.75, seed=10)
    report = judge(champion, champion, fresh=(cure, old), latency=(1.0, 1.0), j=2, promoted=1)
    assert report.passed
    assert report.alpha == pytest.approx(0.05 / 6)
    names = ["latency", "auc", "recall normal", "recall opacity", "ece", "power", "non_inferiority", "sealed_ranking"]
    assert [check.name for check in report.checks] == names
    assert report.checks[-2].value is not None
    assert report.checks[-2].value <= report.alpha
    assert report.checks[-1].value is None


def test_a_cure_that_ranks_old_films_worse_is_refused_by_the_sealed_guard_alone() -> None:
    champion, old = evidence(600, 0.95, seed=8), evidence(160, 0.78, seed=9, films=1)
    cure = variant(old, 0.02, 0.75, seed=10)
    report = judge(variant(champion, 0.08, 0.0, seed=11), champion, fresh=(cure, old))
    assert failed(report) == ["sealed_ranking"]


def test_a_fresh_window_that_refuses_leaves_the_sealed_set_unopened() -> None:
    champion, old = evidence(600, 0.95, seed=8), evidence(900, 0.95, seed=9, films=1)
    report = judge(champion, champion, fresh=(variant(old, 0.06, 0.3, seed=12), old))
    assert failed(report) == ["non_inferiority"]
    assert "sealed_ranking" not in [check.name for check in report.checks]


def test_subjects_are_the_units() -> None:
    champion = evidence(620, 0.90, seed=2)
    twice = [replace(e, y=np.tile(e.y, 2), label=np.tile(e.label, 2), probabilities=np.tile(e.probabilities, (2, 1)),
                     subjects=e.subjects * 2) for e in (variant(champion, 0.005, 0.5, seed=3), champion)]  # fmt: skip
    assert judge(*twice) == judge(variant(champion, 0.005, 0.5, seed=3), champion)


def test_three_classes_are_judged_one_against_the_rest() -> None:
    random = np.random.default_rng(3)
    y = random.integers(0, 3, 600)
    logits = 4.0 * np.eye(3)[y] + random.normal(0, 1, (600, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    of = Evidence(y, p.argmax(1), p, tuple(map(str, range(600))))
    assert [c.name for c in judge(of, None).checks] == [
        "auc",
        "recall class 0",
        "recall class 1",
        "recall class 2",
        "ece",
    ]
    assert judge(of, None).passed
    assert judge(of, of, fresh=(of, of)).passed


def test_a_window_is_worth_using_from_the_labels_that_a_clear_cure_needs() -> None:
    needed = [labels_for_fresh(SPEC, j) for j in (1, 2, 5)]
    assert needed == sorted(needed)
    assert 50 <= needed[0] <= 80


def test_evidence_that_does_not_fit_is_refused() -> None:
    of = evidence(60, 0.9, seed=1)
    with pytest.raises(OurFault, match="measured on different films"):
        judge(of, evidence(60, 0.9, seed=1, films=5))
    with pytest.raises(OurFault, match="the parts do not fit; expected n films, two or more classes"):
        judge(replace(of, label=of.label[:5]), None)


def test_fifty_candidates_worse_by_the_margin_are_promoted_in_at_most_alpha_of_lives() -> None:
    spec, lives, events = replace(SPEC, min_power=0.0), 40, 0
    for life in range(lives):
        champion = evidence(300, 0.95, seed=life, films=life)
        for j in range(1, 31):
            candidate = variant(champion, 0.045 / 0.95, 0.015 / 0.05, seed=1000 * life + j)
            if gate(candidate, champion, spec, bundle="new", against="old", j=j, promoted=0).passed:
                events += 1
                break
    assert clopper_pearson(events, lives)[0] <= spec.alpha
