"""Known harm: neutral severities change nothing, others do what they say, and bad ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rounds.core.errors import BadOverride
from rounds.imaging.corrupt import CORRUPTIONS, NEUTRAL, corrupt

_HARMFUL = {
    "gamma": 1.3,
    "blur": 1.0,
    "noise": 0.05,
    "contrast": 0.7,
    "brightness": 0.1,
    "shift": 0.1,
    "rotate": 8.0,
}


def _films(channels: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(30, 220, (3, channels, 24, 20), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_arguments_give_the_same_bytes_and_leave_the_input_alone(kind: str, channels: int) -> None:
    films = _films(channels)
    found = corrupt(films, kind, _HARMFUL[kind], seed=4)
    np.testing.assert_array_equal(films, _films(channels))
    assert found.shape == films.shape
    assert found.dtype == np.uint8
    assert (found != films).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(found, corrupt(films, kind, _HARMFUL[kind], seed=4))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_neutral_severity_gives_a_copy(kind: str) -> None:
    films = _films()
    found = corrupt(films, kind, NEUTRAL[kind])
    assert found is not films
    np.testing.assert_array_equal(found, films)


@pytest.mark.parametrize("kind", ["noise", "shift"])
def test_another_seed_gives_other_harm(kind: str) -> None:
    assert (corrupt(_films(), kind, 0.1, seed=1) != corrupt(_films(), kind, 0.1, seed=2)).any()


def test_each_kind_does_what_it_says() -> None:
    flat = np.full((1, 1, 9, 9), 100, dtype=np.uint8)
    assert (corrupt(flat, "gamma", 2.0) == round(255 * (100 / 255) ** 2)).all()
    assert (corrupt(flat, "brightness", 0.2) == 151).all()
    assert (corrupt(flat, "brightness", 1.0) == 255).all()
    assert (corrupt(flat, "contrast", 3.0) == 100).all()
    assert (corrupt(flat, "blur", 2.0) == 100).all()
    point = np.zeros((1, 1, 9, 9), dtype=np.uint8)
    point[0, 0, 1, 4] = 255
    assert np.argwhere(corrupt(point, "rotate", 90.0)[0, 0] == 255).tolist() == [[4, 1]]
    films = _films()
    assert corrupt(films, "contrast", 0.5).std() == pytest.approx(films.std() / 2, rel=0.05)
    grain = corrupt(np.full((1, 1, 99, 99), 128, dtype=np.uint8), "noise", 0.1)
    assert grain.std() == pytest.approx(25.5, rel=0.05)


def test_a_shift_moves_by_that_share_of_the_side() -> None:
    film = np.zeros((1, 1, 40, 40), dtype=np.uint8)
    film[0, 0, 18:22, 18:22] = 200
    moved = corrupt(film, "shift", 0.2, seed=3)[0, 0].astype(float)
    y, x = (np.average(np.arange(40), weights=moved.sum(axis)) for axis in (1, 0))
    assert np.hypot(y - 19.5, x - 19.5) == pytest.approx(8.0, abs=0.2)


def test_an_unknown_kind_is_refused_with_the_near_name() -> None:
    with pytest.raises(BadOverride) as caught:
        corrupt(_films(), "gama", 1.2)
    assert str(caught.value) == (
        "no corruption 'gama', did you mean 'gamma'?\n  gama: unknown corruption; "
        "expected one of gamma, blur, noise, contrast, brightness, shift, rotate; got gama"
    )


@pytest.mark.parametrize(
    ("kind", "severity", "message"),
    [
        (
            "gamma",
            0.0,
            "gamma cannot have severity 0\n  gamma: severity out of range; "
            "expected a finite number of at least 0.01; got 0. 1 changes nothing",
        ),
        (
            "blur",
            -1.0,
            "blur cannot have severity -1\n  blur: severity out of range; "
            "expected a finite number of at least 0; got -1. 0 changes nothing",
        ),
        (
            "rotate",
            float("nan"),
            "rotate cannot have severity nan\n  rotate: severity out of range; "
            "expected a finite number; got nan. 0 changes nothing",
        ),
    ],
)
def test_a_severity_out_of_range_is_refused(kind: str, severity: float, message: str) -> None:
    with pytest.raises(BadOverride) as caught:
        corrupt(_films(), kind, severity)
    assert str(caught.value) == message
