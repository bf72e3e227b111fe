"""The stress set: balanced classes, other scanners, the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rounds.imaging.stress import SCANNERS, stress


def films(n: int = 40, side: int = 28, channels: int = 1) -> NDArray[np.uint8]:
    smooth = np.add.outer(np.linspace(20, 200, side), np.linspace(0, 30, side))
    grain = np.random.default_rng(0).normal(0, 12, (n, channels, side, side))
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def test_every_class_is_as_large_as_the_largest_and_no_film_is_left_out():
    labels = np.array([0] * 7 + [1] * 30 + [2] * 3, np.int64)
    found, places = stress(films(40), labels, seed=1)
    assert (found.shape, found.dtype, places.dtype) == ((90, 1, 28, 28), np.uint8, np.int64)
    assert np.bincount(labels[places]).tolist() == [30, 30, 30]
    assert np.unique(places).tolist() == list(range(40))
    assert np.bincount(places[labels[places] == 2]).tolist()[37:] == [10, 10, 10]


def test_a_film_that_comes_again_comes_by_another_scanner():
    labels = np.array([0] + [1] * 5, np.int64)
    found, places = stress(films(6), labels, seed=0)
    again = found[places == 0]
    assert len(again) == 5
    assert len({film.tobytes() for film in again}) == 5


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    x, labels = films(20), np.arange(20, dtype=np.int64) % 2
    before = x.copy()
    first, second, other = (stress(x, labels, seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize("side", [28, 224])
@pytest.mark.parametrize("name", SCANNERS)
def test_each_scanner_changes_a_film_that_stays_the_same_film(name: str, side: int):
    film = films(1, side)[0, 0]
    found = SCANNERS[name](film, 1.0, np.random.default_rng(5))
    assert (found.shape, found.dtype) == (film.shape, np.uint8)
    assert (found != film).mean() > 0.05
    assert np.corrcoef(found.ravel(), film.ravel())[0, 1] > 0.35
    assert found.std() > 5


def test_colours_of_a_film_get_the_same_treatment():
    gray = np.repeat(films(14), 3, axis=1)
    found, _ = stress(gray, np.zeros(14, np.int64), seed=0)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    np.testing.assert_array_equal(found[:, 0], found[:, 2])


def test_no_film_gives_an_empty_set():
    found, places = stress(np.empty((0, 1, 28, 28), np.uint8), np.empty(0, np.int64), seed=0)
    assert (found.shape, places.shape) == ((0, 1, 28, 28), (0,))
