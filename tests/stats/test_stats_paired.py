"""The paired test of non-inferiority: Tango's published example, enumeration, and power that simulation confirms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multinomial, norm

from rounds.core.errors import OurFault
from rounds.stats.paired import _boundary, _score, exact, gain_interval, labels_needed, power, tango


def test_tango_gives_the_published_example() -> None:
    # Tango 1998, the crossed comparison of two disinfections of 44 lenses: b = 1, c = 0, margin .1: Z 1.709, p .044.
    assert float(_score(np.array(1.0), np.array(0.0), 44, 0.1)) == pytest.approx(1.709, abs=5e-4)
    assert tango(1, 0, 44, 0.1) == pytest.approx(0.0437, abs=1e-4)


@pytest.mark.parametrize(
    ("b", "c", "n", "margin"), [(5, 9, 80, 0.1), (20, 12, 624, 0.03), (0, 0, 50, 0.05), (7, 0, 60, 0.2)]
)
def test_tango_agrees_with_the_score_at_a_numerically_found_maximum(b: int, c: int, n: int, margin: float) -> None:
    def loss(q: float) -> float:
        shares = np.array([q, q - margin, 1 - 2 * q + margin])
        counts = np.array([b, c, n - b - c])
        return -float((counts[counts > 0] * np.log(np.maximum(shares[counts > 0], 1e-300))).sum())

    q = minimize_scalar(loss, bounds=(margin, (1 + margin) / 2), method="bounded", options={"xatol": 1e-10}).x
    z = (c - b + n * margin) / np.sqrt(n * (2 * q - margin - margin**2))
    assert tango(b, c, n, margin) == pytest.approx(float(norm.sf(z)), rel=1e-3)


def test_exact_is_the_enumeration_of_every_table() -> None:
    n, margin, (b, c) = 14, 0.15, (1, 3)
    tables = np.array([(i, j) for i in range(n + 1) for j in range(n + 1 - i)])
    scores = _score(tables[:, 0].astype(float), tables[:, 1].astype(float), n, margin)
    extreme = scores >= float(_score(np.array(float(b)), np.array(float(c)), n, margin)) - 1e-9
    worst = 0.0
    for q in margin + np.linspace(0, 1, 48) ** 2 * (1 - margin) / 2:
        shares = [q, q - margin, max(1 - 2 * q + margin, 0.0)]
        mass = multinomial.pmf(np.column_stack([tables, n - tables.sum(1)]), n, np.array(shares) / sum(shares))
        worst = max(worst, float(mass[extreme].sum()))
    assert exact(b, c, n, margin) == pytest.approx(worst, rel=1e-9)


def test_the_boundary_is_where_the_statistic_crosses() -> None:
    n, margin, limit = 60, 0.1, 1.7
    boundary = _boundary(n, margin, limit)
    for c in range(n + 1):
        scores = _score(np.arange(n + 1.0 - c), np.full(n + 1 - c, float(c)), n, margin)
        assert np.all(np.diff(scores) < 0)
        assert boundary[c] == np.count_nonzero(scores >= limit) - 1


def test_power_is_the_share_of_simulated_tables_that_pass() -> None:
    n, margin, alpha = 300, 0.05, 0.025
    random = np.random.default_rng(0)
    tables = random.multinomial(n, [0.03, 0.05, 0.92], 4000)
    passed = np.mean([exact(int(b), int(c), n, margin) <= alpha for b, c, _ in tables])
    assert power(n, 0.08, margin, alpha, gain=0.02) == pytest.approx(passed, abs=0.02)


def test_power_for_an_equal_candidate_is_what_the_design_measured_less_the_price_of_exactness() -> None:
    # DECIDING.md, Tango's test: .65 and .42 for 624 films, .90 and .76 for 1,300.
    assert power(624, 0.06, 0.02, 0.05) == pytest.approx(0.64, abs=0.02)
    assert power(624, 0.06, 0.02, 0.0125) == pytest.approx(0.40, abs=0.03)
    assert power(1300, 0.06, 0.02, 0.05) == pytest.approx(0.90, abs=0.02)


def test_labels_needed_give_the_power_and_a_tenth_less_do_not() -> None:
    needed = labels_needed(0.06, 0.03, 0.0125)
    assert power(needed, 0.06, 0.03, 0.0125) >= 0.8
    assert power(int(needed * 0.9), 0.06, 0.03, 0.0125) < 0.8
    assert labels_needed(0.3, 0.002, 0.001) == pytest.approx(0.3 * (3.09 + 0.84) ** 2 / 0.002**2, rel=0.1) or (
        labels_needed(0.3, 0.002, 0.001) == 1_000_000
    )


def test_a_candidate_that_is_worse_never_has_enough_labels() -> None:
    assert labels_needed(0.1, 0.02, 0.05, gain=-0.05) == 1_000_000


@pytest.mark.parametrize(("b", "c", "n", "margin"), [(-1, 0, 5, 0.1), (3, 3, 5, 0.1), (0, 0, 0, 0.1), (0, 0, 5, 0.0)])
def test_a_table_that_is_none_is_refused(b: int, c: int, n: int, margin: float) -> None:
    with pytest.raises(OurFault, match=r"no such table; expected b and c from 0, b \+ c <= n"):
        tango(b, c, n, margin)


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 100), (3, 9, 80), (0, 5, 44), (40, 12, 300)])
def test_the_interval_of_the_gain_holds_what_tangos_test_does_not_refuse(b: int, c: int, n: int) -> None:
    low, high = gain_interval(b, c, n)
    assert -1 < low <= (c - b) / n <= high < 1
    # the one-sided test at a margin is that of gain <= -margin
    if low < 0:
        assert tango(b, c, n, -low) == pytest.approx(0.025, abs=1e-4)
    if high > 0:
        assert tango(c, b, n, high) == pytest.approx(0.025, abs=1e-4)


def test_the_interval_of_the_gain_covers_it() -> None:
    random, held, lives = np.random.default_rng(3), 0, 1500
    for _ in range(lives):
        b, c, _ = random.multinomial(120, [0.02, 0.05, 0.93])
        low, high = gain_interval(int(b), int(c), 120)
        held += low <= 0.03 <= high
    assert held / lives >= 0.935
