"""Signatures and the comparison of pixels: what counts as one picture, what does not, and that the answer is exact."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from rounds.imaging.likeness import (
    Likeness,
    Pixels,
    least_difference,
    look,
    mirrored,
    reduced,
    same_picture,
    signatures,
)
from rounds.imaging.phantom import draw
from rounds.imaging.texture import texture, thumbnail


@pytest.fixture(scope="module")
def films() -> list[Pixels]:
    return [phantom.pixels for phantom in draw(12, seed=5, size=96)]


def encoded(film: Pixels, quality: int) -> Pixels:
    data = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


def shifted(film: Pixels, levels: int) -> Pixels:
    return np.clip(film.astype(int) + levels, 0, 255).astype(np.uint8)


def sized(film: Pixels, wide: int, high: int) -> Pixels:
    return np.asarray(cv2.resize(film, (wide, high), interpolation=cv2.INTER_AREA), np.uint8)


CHANGES: dict[str, tuple[Callable[[Pixels], Pixels], bool, str]] = {
    "jpeg": (lambda film: encoded(film, 75), False, "encoded again"),
    "brighter": (lambda film: shifted(film, 2), False, "shifted by +2.0 gray levels"),
    "darker": (lambda film: shifted(film, -3), False, "shifted by -3.0 gray levels"),
    "smaller": (lambda film: sized(film, 48, 48), False, "resized"),
    "squeezed": (lambda film: sized(film, 80, 64), False, "resized"),
    "mirrored": (lambda film: film[:, ::-1].copy(), True, "mirrored"),
    "all": (lambda film: encoded(sized(film[:, ::-1].copy(), 72, 72), 85), True, "mirrored, resized"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_film_is_the_same_picture_and_is_told_how(films: list[Pixels], change: str) -> None:
    alter, mirror, how = CHANGES[change]
    for film in films:
        found = same_picture(film, alter(film), mirror=mirror)
        assert found is not None
        assert found.difference < 4
        if change != "darker":  # what is black already cannot become darker
            assert str(found) == how


def test_films_of_other_subjects_are_other_pictures(films: list[Pixels]) -> None:
    for index, film in enumerate(films):
        for other in films[index + 1 :]:
            assert same_picture(film, other) is None
            assert same_picture(film, other, mirror=True) is None


def test_a_small_mark_makes_another_picture(films: list[Pixels]) -> None:
    part = np.kron(films[0], np.ones((3, 3), np.uint8))
    marked = part.copy()
    marked[100:124, 140:146] = 255
    assert same_picture(part, marked) is None


def test_one_shape_in_two_colours_is_two_pictures() -> None:
    shape = np.zeros((64, 64, 3), np.uint8)
    red, green = shape.copy(), shape.copy()
    red[16:48, 16:48] = (200, 20, 20)
    green[16:48, 16:48] = (20, 112, 20)
    assert same_picture(red, encoded(red, 95)) is not None
    assert same_picture(red, green) is None


def test_a_shift_beyond_three_levels_is_another_picture(films: list[Pixels]) -> None:
    assert same_picture(films[0], np.minimum(films[0], 240) + 8) is None


def test_cells_are_exact_means_of_area_in_sixteenths() -> None:
    film = np.random.default_rng(0).integers(0, 256, (7, 11), np.uint8)
    exact = np.kron(film.astype(np.int64), np.ones((5, 3), np.int64)).reshape(5, 7, 3, 11).sum((1, 3))
    assert (reduced(film, 5, 3) == (2 * 16 * exact + 77) // (2 * 77)).all()
    assert (reduced(film, 7, 11) == 16 * film.astype(np.int64)).all()


def test_a_signature_is_the_same_bytes_on_every_machine() -> None:
    film = (np.add.outer(np.arange(40) ** 2, np.arange(56) * 3) % 251).astype(np.uint8)
    assert signatures([look(film)])[0, :8].tolist() == [-1752, -722, -95, -1653, -1139, -212, -370, -1537]


def test_a_mirrored_film_has_the_mirrored_signature(films: list[Pixels]) -> None:
    own = signatures([look(film) for film in films])
    turned = signatures([look(np.ascontiguousarray(film[:, ::-1])) for film in films])
    assert np.abs(mirrored(own) - turned).max() <= 1


def test_signatures_never_claim_more_difference_than_there_is(films: list[Pixels]) -> None:
    own = signatures([look(film) for film in films])
    for i, j in ((0, 1), (2, 3), (4, 5)):
        apart = (reduced(films[i], 32, 32) - reduced(films[j], 32, 32)) / 16
        assert least_difference(own[i : i + 1], own[j : j + 1])[0] <= apart.std() + 0.1


def test_a_look_tells_blank_films_and_borders() -> None:
    film = np.full((64, 64), 7, np.uint8)
    assert look(film)[1:3] == (64, 64)
    assert (look(film).span, look(film).border, look(film).mean) == (0.0, 1.0, 7.0)
    film[16:48, 16:48] = np.arange(32) * 6 + 40
    assert look(film).border == 0.75
    assert look(film).span > 150


def test_texture_has_one_row_a_film_and_no_film_changes_another(films: list[Pixels]) -> None:
    small = np.stack([sized(film, 28, 28)[None] for film in films])
    rows = texture(small)
    assert rows.shape == (12, 520)
    assert rows.dtype == np.float32
    assert np.array_equal(texture(small[3:4])[0], rows[3])
    assert np.isfinite(texture(np.zeros((1, 1, 28, 28), np.uint8))).all()


def test_a_thumbnail_keeps_the_shape_of_its_film() -> None:
    assert thumbnail(np.zeros((300, 200), np.uint8), 150).shape == (150, 100)
    assert thumbnail(np.zeros((14, 28, 3), np.uint8), 140).shape == (70, 140, 3)


def test_a_likeness_says_how() -> None:
    assert str(Likeness(1.0, 0.2, False, False)) == "encoded again"
    assert str(Likeness(1.0, -2.04, True, True)) == "mirrored, resized, shifted by -2.0 gray levels"
