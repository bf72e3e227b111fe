"""The levels spent over candidates add up to alpha, in every history that a sealed test set can have."""

from __future__ import annotations

from math import comb

import pytest

from rounds.core.errors import OurFault
from rounds.stats.spending import alpha_of, sealed_alpha


def test_the_levels_of_all_candidates_add_up_to_alpha() -> None:
    assert sum(alpha_of(j, 0.05) for j in range(1, 100_000)) == pytest.approx(0.05, rel=2e-5)
    assert [alpha_of(j, 0.06) for j in (1, 2, 3)] == pytest.approx([0.03, 0.01, 0.005])


def test_the_sealed_levels_over_every_history_stay_within_the_candidates_level() -> None:
    for j in range(1, 60):
        spent = sum(comb(j - 1, b) * sealed_alpha(j, b, 0.05) for b in range(j))
        assert spent == pytest.approx(alpha_of(j, 0.05) * (1 - 2.0**-j), rel=1e-12)


def test_the_first_sealed_level_is_a_quarter_of_alpha() -> None:
    assert sealed_alpha(1, 0, 0.05) == pytest.approx(0.0125)
    assert sealed_alpha(2, 1, 0.05) == pytest.approx(0.05 / 4 / 6)


def test_candidates_that_cannot_be_are_refused() -> None:
    with pytest.raises(OurFault, match="candidates are counted from 1; expected 1 or more; got 0"):
        alpha_of(0, 0.05)
    with pytest.raises(OurFault, match=r"promotions lie between 0 and the candidates before; expected 0\.\.1; got 2"):
        sealed_alpha(2, 2, 0.05)
