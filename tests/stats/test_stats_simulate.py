"""Every stated rate holds in short simulated lives, and every test has power in them; the long ones are
`python -m rounds.stats.simulate`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rounds.stats.simulate import __main__ as program
from rounds.stats.simulate import lives


def test_drift_keeps_its_rate() -> None:
    found = lives.drift_false_alarms(80, 1, horizon=300, alpha=0.2)
    assert not found.broken
    assert found.stated == 0.2


@pytest.mark.parametrize("clean", [0, 1500])
def test_drift_is_found_early_and_late(clean: int) -> None:
    found = lives.drift_delay(5, 2, clean=clean, shift=1.0)
    assert found.events == 5
    assert found.delay is not None
    assert found.delay <= 100


def test_the_class_mix_keeps_its_rate_and_has_power() -> None:
    assert not lives.mix_false_alarms(60, 3, horizon=300, alpha=0.2).broken
    assert lives.mix_delay(5, 3).events == 5


def test_the_risk_keeps_its_rate_with_and_without_lost_labels_and_has_power() -> None:
    assert not lives.risk_false_harm(80, 4, horizon=300, alpha=0.2).broken
    assert not lives.risk_false_harm(80, 4, horizon=300, alpha=0.2, kept=0.8).broken
    assert lives.risk_delay(5, 4, after=0.3).events == 5


@pytest.mark.parametrize("sealed", [True, False])
def test_fifty_candidates_at_the_margin_are_promoted_no_more_often_than_stated(sealed: bool) -> None:
    assert not lives.gate_life(150, 5, sealed=sealed, gain=-0.02, n=400).broken


def test_a_better_candidate_is_promoted() -> None:
    assert lives.gate_life(100, 6, sealed=True, gain=0.02, candidates=1).events >= 90


def test_a_rate_is_broken_where_its_whole_interval_lies_above_the_stated_one() -> None:
    assert lives.Measured("x", 30, 100, 0.1).broken
    assert not lives.Measured("x", 12, 100, 0.1).broken
    line = str(lives.Measured("x", 30, 100, 0.1, delay=7))
    assert " ".join(line.split()) == "x 0.300 [0.212, 0.400] of 100 stated 0.1 BROKEN median delay 7 films"


def test_the_program_prints_every_line_and_fails_when_a_promise_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = lives.Measured("good", 0, 10, 0.1), lives.Measured("bad", 9, 10, 0.1)
    monkeypatch.setattr(program, "everything", lambda n, seed: [good, bad][: n + seed])
    assert program.main(["--lives", "1"]) == 0
    assert program.main(["--lives", "1", "--seed", "1"]) == 1
    assert capsys.readouterr().out == f"{good}\n{good}\n{bad}\n"


def test_the_request_path_pays_no_scipy_stats() -> None:
    code = "import sys, rounds.stats.drift, rounds.monitor.watch, rounds.registry.gate"
    code += "; assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
