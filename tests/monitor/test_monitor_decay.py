"""The watch over outcomes: harm or none from audited labels in prediction order, and an estimate without promise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from tests.support.bundles import tiny_bundle

from rounds.core.records import Bundle, Captured, Finding, Label
from rounds.core.specs import MonitorSpec
from rounds.monitor.decay import estimate, judge_risk, risk_bounds
from rounds.runtime.bundle import reference
from rounds.runtime.verdict import decide
from rounds.stats.intervals import upper_bound

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SPEC = MonitorSpec()
BOUNDS = {"normal": 0.06, "opacity": 0.06}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"), films=400)


def stream(bundle: Bundle, n: int, risk: float, *, first: int = 1) -> tuple[list[Captured], dict[str, Label]]:
    """n audited films, classes in turn, of which the opacities are answered wrongly at this risk."""
    random = np.random.default_rng(first)
    rows, labels = [], {}
    for i in range(first, first + n):
        truth = bundle.classes[i % 2]
        wrong = i % 2 == 1 and random.random() < risk
        said = bundle.classes[(i % 2) ^ wrong]
        probabilities = (0.9, 0.1) if said == bundle.classes[0] else (0.1, 0.9)
        at = NOW - timedelta(hours=1) + timedelta(seconds=i)
        rows.append(Captured(f"p{i}", at, bundle.digest, "v1", f"image{i}", said, probabilities, (0.0, 0.0), (0.0,) * 7,
                             True, 1.0, subject=f"s{i}", seq=i))  # fmt: skip
        labels[f"p{i}"] = Label(truth, f"p{i}")
    return rows, labels


def judge(bundle: Bundle, rows: list[Captured], labels: dict[str, Label], drift: Finding | None = None) -> Finding:
    return judge_risk(rows, labels, bundle=bundle, bounds=BOUNDS, spec=SPEC, now=NOW, drift=drift)


def drifted(since: int, at: datetime) -> Finding:
    return Finding("f1", "drift", True, 500, at, 0.01, 9.0, 6.5, since=since)


def test_the_bounds_are_exact_upper_bounds_of_the_reference(bundle: Bundle) -> None:
    known = reference(bundle)
    label, _ = decide(bundle.calibration, known.logits)
    found = risk_bounds(bundle, known, SPEC)
    for c, name in enumerate(bundle.classes):
        rows = known.label == c
        assert found[name] == upper_bound(int((label[rows] != c).sum()), int(rows.sum()), 0.025)


def test_harm_names_the_class_and_stays(bundle: Bundle) -> None:
    rows, labels = stream(bundle, 400, 0.4)
    found = judge(bundle, rows, labels)
    assert (found.kind, found.alarm, found.harm, found.n) == ("decay", True, "yes", 400)
    assert [moved.what for moved in found.moved] == ["opacity"]
    assert 0.2 < found.moved[0].size < 0.5
    assert found.log_e >= found.limit
    more, later = stream(bundle, 400, 0.0, first=401)
    again = judge(bundle, rows + more, labels | later)
    assert (again.id, again.harm) == (found.id, "yes")


def test_few_errors_are_no_harm(bundle: Bundle) -> None:
    found = judge(bundle, *stream(bundle, 500, 0.02))
    assert (found.alarm, found.harm, found.moved) == (False, "no", ())


def test_few_labels_leave_it_unknown(bundle: Bundle) -> None:
    assert judge(bundle, *stream(bundle, 20, 0.0)).harm == "unknown"
    assert judge(bundle, [], {}).n == 0


def test_films_from_before_the_change_do_not_answer_for_those_after(bundle: Bundle) -> None:
    rows, labels = stream(bundle, 500, 0.02)
    assert judge(bundle, rows, labels, drifted(480, rows[-1].at)).harm == "unknown"


def test_a_drift_alarm_makes_harm_found_sooner(bundle: Bundle) -> None:
    rows, labels = stream(bundle, 400, 0.0)
    bad, known = stream(bundle, 400, 0.3, first=401)
    rows, labels = rows + bad, labels | known
    plain = [judge(bundle, rows[:n], labels).harm for n in range(440, 800, 20)]
    alarmed = [judge(bundle, rows[:n], labels, drifted(400, rows[400].at)).harm for n in range(440, 800, 20)]
    assert alarmed.index("yes") < plain.index("yes")


def test_only_audited_first_films_of_this_bundle_count(bundle: Bundle) -> None:
    rows, labels = stream(bundle, 6, 0.0)
    rows[0] = replace(rows[0], audited=False)
    rows[1] = replace(rows[1], bundle="another")
    rows[3] = replace(rows[3], subject=rows[2].subject)
    assert judge(bundle, rows, labels).n == 3


def test_a_film_without_a_label_holds_back_all_that_follow_until_it_is_old(bundle: Bundle) -> None:
    rows, labels = stream(bundle, 10, 0.0)
    del labels["p4"]
    waiting = judge(bundle, rows, labels)
    assert waiting.n == 3
    assert waiting.why.endswith("waiting for a label")
    old = [replace(row, at=row.at - timedelta(days=8)) for row in rows]
    later = judge(bundle, old, labels)
    assert later.n == 10
    assert later.why == (
        "audited: normal 0 of 4 wrong, opacity 0 of 5 wrong; allowed: normal 0.110, opacity 0.110; "
        "1 labels never came and count as right for harm, as wrong for none"
    )


def test_an_estimate_without_labels_promises_nothing(bundle: Bundle) -> None:
    known = reference(bundle)
    rows, _ = stream(bundle, 50, 0.0)
    unsure = [replace(row, probabilities=(0.55, 0.45) if row.label == "normal" else (0.45, 0.55)) for row in rows]
    sure = [replace(row, probabilities=(1.0, 0.0) if row.label == "normal" else (0.0, 1.0)) for row in rows]
    low, high = (estimate(part, bundle=bundle, reference=known, spec=SPEC, now=NOW) for part in (unsure, sure))
    assert (low.kind, low.alarm, low.controlled, low.n) == ("decay_estimated", False, False, 50)
    assert low.moved[0].size < high.moved[0].size
    assert estimate([], bundle=bundle, reference=known, spec=SPEC, now=NOW).why == "no films yet"
