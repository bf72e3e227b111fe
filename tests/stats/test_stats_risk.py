"""The risk test: harm where a class loses more than its bound, however labels go missing; the same after a restart."""

from __future__ import annotations

import numpy as np
import pytest

from rounds.core.errors import OurFault
from rounds.stats.risk import RiskTest


def run(test: RiskTest, risk: float, n: int, klass: str = "normal", seed: int = 0) -> RiskTest:
    for loss in np.random.default_rng(seed).random(n) < risk:
        test.update(float(loss), klass)
    return test


def made(**given: float) -> RiskTest:
    return RiskTest(given or {"normal": 0.1, "opacity": 0.1}, horizon=10_000, alpha=0.01)


def test_harm_names_the_class_that_lost() -> None:
    test = run(run(made(), 0.05, 300, "normal"), 0.4, 120, "opacity")
    assert test.harm
    assert list(test.harmed) == ["opacity"]
    assert test.peak >= test.limit
    assert not test.safe
    assert test.counts == {"normal": 300, "opacity": 120}


def test_a_risk_below_the_bound_is_no_harm_and_is_shown_to_be_safe() -> None:
    test = run(run(made(), 0.02, 400, "normal"), 0.02, 400, "opacity", 1)
    assert not test.harm
    assert test.safe


def test_one_class_that_is_not_shown_leaves_the_claim_of_no_harm_open() -> None:
    test = run(made(), 0.02, 400, "normal")
    assert test.log_safe["normal"] >= test.limit
    assert test.log_safe["opacity"] < test.limit
    assert not test.safe


def test_a_missing_label_is_at_most_what_any_label_would_have_said() -> None:
    for loss, klass in ((0.0, "normal"), (1.0, "normal"), (0.0, "opacity"), (1.0, "opacity")):
        told, lost = run(made(), 0.2, 30), run(made(), 0.2, 30)
        told.update(loss, klass)
        lost.missing()
        assert lost.n == told.n == 31
        assert lost.unlabelled == 1
        assert all(lost.log_harm[name] <= told.log_harm[name] for name in told.bounds)
        assert all(lost.log_safe[name] <= told.log_safe[name] for name in told.bounds)


def test_a_suspicion_finds_later_harm_sooner_and_counts_once() -> None:
    found = []
    for suspected in (False, True):
        test = run(made(), 0.05, 300)
        if suspected:
            test.suspect()
            once = test.dump()
            test.suspect()
            assert test.dump() == once
        losses = np.random.default_rng(5).random(400) < 0.25
        found.append(next(i for i, loss in enumerate(losses) if test.update(float(loss), "normal")))
    assert found[1] < 0.85 * found[0]


def test_a_bound_of_one_cannot_be_exceeded_and_one_of_zero_is_exceeded_by_a_few_losses() -> None:
    assert not run(made(normal=1.0), 1.0, 300).harm
    assert run(made(normal=0.0), 1.0, 5).harm


def test_a_restart_changes_nothing() -> None:
    whole, part = made(), made()
    for i, loss in enumerate(np.random.default_rng(3).random(200) < 0.3):
        for test in (whole, part):
            test.update(float(loss), ("normal", "opacity")[i % 2], i)
        if i == 60:
            part = RiskTest.load(part.dump())
    assert whole.dump() == part.dump()


def test_what_is_no_loss_no_class_and_no_bound_is_refused() -> None:
    with pytest.raises(OurFault, match=r"expected a loss in 0\.\.1 and one of normal, opacity; got 2\.0, normal"):
        made().update(2.0, "normal")
    with pytest.raises(OurFault, match=r"no such loss.*got 0\.0, fracture"):
        made().update(0.0, "fracture")
    with pytest.raises(OurFault, match="not bounds of a risk"):
        RiskTest({}, horizon=10, alpha=0.01)
    with pytest.raises(OurFault, match="the state of the risk test cannot be read"):
        RiskTest.load(b"{}")
