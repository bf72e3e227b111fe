"""The class-mix test: silent inside the band, quick outside, the same after a restart."""

from __future__ import annotations

import numpy as np
import pytest

from rounds.core.errors import OurFault
from rounds.stats.mix import BandTest


@pytest.mark.parametrize(("share", "alarm"), [(0.3, False), (0.2, False), (0.6, True), (0.02, True)])
def test_only_a_share_outside_the_band_raises_the_alarm(share: float, alarm: bool) -> None:
    test = BandTest(0.2, 0.4, horizon=10_000, alpha=0.01)
    for member in np.random.default_rng(1).random(600) < share:
        test.update(bool(member))
    assert test.alarm is alarm
    assert (test.peak >= test.limit) is alarm
    if alarm:
        assert (test.log_up > test.log_down) is (share > 0.4)


def test_a_restart_changes_nothing() -> None:
    members = np.random.default_rng(2).random(300) < 0.5
    whole, part = (BandTest(0.2, 0.4, horizon=1000, alpha=0.01) for _ in range(2))
    for i, member in enumerate(members):
        whole.update(bool(member), i)
        part.update(bool(member), i)
        if i == 100:
            part = BandTest.load(part.dump())
    assert whole.dump() == part.dump()
    assert whole.n == 300


def test_the_widest_band_never_alarms() -> None:
    test = BandTest(0.0, 1.0, horizon=100, alpha=0.05)
    assert not any(test.update(True) for _ in range(200))


@pytest.mark.parametrize("band", [(0.4, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_a_band_that_is_none_is_refused(band: tuple[float, float]) -> None:
    with pytest.raises(OurFault, match="not a band of shares; expected 0 <= low < high <= 1"):
        BandTest(*band, horizon=100, alpha=0.05)


def test_bytes_that_are_no_state_are_refused() -> None:
    with pytest.raises(OurFault, match="the state of the class-mix test cannot be read"):
        BandTest.load(b'{"low": 0.1}')
