"""From any film to the network's square input, and back to PNG."""

from __future__ import annotations

import numpy as np
import pytest

from rounds.core.errors import BadImage
from rounds.core.specs import Fit, ImagingSpec, Limits
from rounds.imaging.decode import decode
from rounds.imaging.fit import encode_png, fit, to_pixels


def test_stretch_scales_both_sides_and_averages_areas() -> None:
    film = np.zeros((8, 4), dtype=np.uint8)
    film[:, :2] = 200
    film[0] = 100
    assert fit(film, ImagingSpec(size=2)).tolist() == [[[175, 25], [200, 0]]]


def test_pad_keeps_the_proportions_on_black() -> None:
    film = np.full((4, 8), 90, dtype=np.uint8)
    found = fit(film, ImagingSpec(size=4, fit=Fit.PAD))
    assert found.tolist() == [[[0] * 4, [90] * 4, [90] * 4, [0] * 4]]
    assert fit(film.T, ImagingSpec(size=4, fit=Fit.PAD)).tolist() == [[[0, 90, 90, 0]] * 4]


def test_pad_keeps_a_line_of_a_very_long_film() -> None:
    found = fit(np.full((2, 4000), 90, dtype=np.uint8), ImagingSpec(size=28, fit=Fit.PAD))
    assert found.shape == (1, 28, 28)
    assert int((found > 0).sum()) == 28


def test_gray_becomes_three_equal_channels_and_colours_become_gray() -> None:
    gray = np.arange(16, dtype=np.uint8).reshape(4, 4)
    three = fit(gray, ImagingSpec(size=4, channels=3))
    assert three.shape == (3, 4, 4)
    assert (three == gray).all()
    red = np.zeros((4, 4, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert (fit(red, ImagingSpec(size=4)) == 76).all()
    assert fit(red, ImagingSpec(size=4, channels=3)).tolist() == [[[255] * 4] * 4, [[0] * 4] * 4, [[0] * 4] * 4]


@pytest.mark.parametrize("shape", [(64, 64), (31, 57), (300, 200), (64, 64, 3), (5, 9, 3), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("how", list(Fit))
def test_every_film_comes_out_contiguous_in_the_spec_s_shape(shape: tuple[int, ...], channels: int, how: Fit) -> None:
    film = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = film.copy()
    found = fit(film, ImagingSpec(size=32, channels=channels, fit=how))
    assert found.shape == (channels, 32, 32)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(film, before)


def test_png_gives_back_the_pixels_in_every_layout() -> None:
    gray = np.random.default_rng(1).integers(0, 256, (6, 7), dtype=np.uint8)
    colours = np.random.default_rng(2).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    for pixels, wanted in (
        (gray, gray),
        (gray[None], gray),
        (gray[..., None], gray),
        (colours, colours),
        (colours.transpose(2, 0, 1), colours),
    ):
        np.testing.assert_array_equal(decode(encode_png(pixels)), wanted)


def test_bytes_become_pixels_under_the_limits() -> None:
    film = np.random.default_rng(3).integers(0, 256, (28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(to_pixels(encode_png(film), ImagingSpec()), film[None])
    with pytest.raises(BadImage, match="expected at most 700 pixels; got 28 x 28 = 784 pixels"):
        to_pixels(encode_png(film), ImagingSpec(), Limits(max_pixels=700))
