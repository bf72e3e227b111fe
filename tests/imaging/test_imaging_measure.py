"""The five measures: what each says, and that it moves with what it is named after."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rounds.imaging.corrupt import corrupt
from rounds.imaging.measure import MEASURES, measure
from rounds.imaging.phantom import draw


def test_a_flat_film_has_exposure_and_nothing_else() -> None:
    found = dict(zip(MEASURES, measure(np.full((1, 1, 28, 28), 102, dtype=np.uint8))[0].tolist(), strict=True))
    assert found == pytest.approx(
        {"exposure": 0.4, "contrast": 0.0, "sharpness": 0.0, "noise": 0.0, "geometry": 0.8159}, abs=1e-4
    )


def test_noise_is_the_standard_deviation_of_noise_on_a_smooth_film() -> None:
    smooth = np.broadcast_to(np.linspace(60, 180, 64), (1, 1, 64, 64))
    noisy = np.rint(smooth + np.random.default_rng(0).normal(0, 5.1, smooth.shape)).astype(np.uint8)
    assert measure(noisy)[0, MEASURES.index("noise")] == pytest.approx(0.02, rel=0.1)


def test_contrast_is_the_distance_of_the_outer_percentiles() -> None:
    film = np.tile(np.arange(256, dtype=np.uint8), (1, 1, 256, 1))
    assert measure(film)[0, MEASURES.index("contrast")] == pytest.approx(0.9, abs=0.01)


def test_every_film_is_measured_by_itself_and_finitely() -> None:
    rng = np.random.default_rng(0)
    films = rng.integers(0, 256, (7, 3, 20, 31), dtype=np.uint8)
    films[0], films[1] = 0, 255
    found = measure(films)
    assert found.shape == (7, 5)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(np.concatenate([measure(film[None]) for film in films]), found)
    assert measure(films[:0]).shape == (0, 5)


def test_three_equal_channels_measure_as_the_one() -> None:
    film = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), dtype=np.uint8)
    np.testing.assert_allclose(measure(film), measure(np.repeat(film, 3, axis=1)), atol=0.005)


@pytest.mark.parametrize(
    ("kind", "severity", "moved", "spreads"),
    [
        ("gamma", 1.3, "exposure", -1.5),
        ("gamma", 0.77, "exposure", 1.5),
        ("brightness", 0.1, "exposure", 1.5),
        ("contrast", 0.7, "contrast", -1.5),
        ("blur", 1.0, "sharpness", -1.5),
        ("noise", 0.02, "noise", 1.5),
        ("shift", 0.15, "geometry", None),
    ],
)
def test_a_corruption_moves_its_measure_by_more_than_films_differ(
    kind: str, severity: float, moved: str, spreads: float | None
) -> None:
    films = np.stack([film.pixels for film in draw(300, seed=5)])[:, None]
    clean, changed = measure(films), measure(corrupt(films, kind, severity))
    step = (np.median(changed, 0) - np.median(clean, 0)) / clean.std(0)
    found = float(step[MEASURES.index(moved)])
    if spreads is None:
        assert abs(found) > 0.5
    else:
        assert found * np.sign(spreads) > abs(spreads)


def test_a_film_of_28_pixels_costs_at_most_30_microseconds_in_a_batch() -> None:
    films = np.random.default_rng(0).integers(0, 256, (32, 1, 28, 28), dtype=np.uint8)
    times = []
    for _ in range(50):
        start = time.process_time()
        measure(films)
        times.append(time.process_time() - start)
    assert min(times) / len(films) < 30e-6
