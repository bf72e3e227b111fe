"""An answer given again, and a picture of where the model looked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from tests.support.bundles import tiny_films
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.core.specs import Fit
from rounds.imaging.fit import encode_png
from rounds.imaging.overlay import TINT, Style, explained
from rounds.loop import labelling


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recall") / "home"
    promote(folder)
    return folder


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[Served]:
    with server(home) as running:
        yield running


def get(served: Served, path: str, **params: str) -> httpx.Response:
    return httpx.get(f"{served.url}/v1/predictions/{path}", params=params)


def picture(answer: httpx.Response) -> np.ndarray:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    return np.asarray(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], np.int64)


def test_an_answer_is_given_again_to_the_letter_with_its_label_once_known(served: Served) -> None:
    for film in films_as_png(30):
        first = httpx.post(f"{served.url}/v1/predict?reference=r-7", content=film).json()
        again = get(served, first["id"]).json()
        assert again.pop("at").endswith("Z")
        assert again.pop("label") is None
        assert again == first
    row = {"prediction": first["id"], "label": "normal", "by": "dr-b", "at": "2026-01-02T03:04:05Z"}
    assert httpx.post(f"{served.url}/v1/labels", json=row).json()["accepted"] == 1
    truth = get(served, first["id"]).json()["label"]
    assert truth == {"label": "normal", "by": "dr-b", "at": "2026-01-02T03:04:05.000000Z"}


def test_a_version_that_serves_no_more_still_says_what_it_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    promote(home)
    with server(home) as served:
        first = httpx.post(f"{served.url}/v1/predict", content=films_as_png(1)[0]).json()
        promote(home, seed=5)
        again = get(served, first["id"]).json()
        assert {key: again[key] for key in first} == first
        assert picture(get(served, f"{first['id']}/explanation.png")).shape == (224, 224, 3)


def test_an_explanation_lies_over_the_film_as_it_was_sent(served: Served) -> None:
    film = tiny_films(1, size=300, seed=3)[0, :, :150]
    name = httpx.post(f"{served.url}/v1/predict", content=encode_png(film)).json()["id"]
    plain = picture(get(served, f"{name}/explanation.png", opacity="0"))
    assert plain.shape == (150, 300, 3)
    assert np.array_equal(plain, np.repeat(film[0][..., None], 3, axis=2))
    for style in ("heat", "contour"):
        drawn = picture(get(served, f"{name}/explanation.png", style=style, opacity="1"))
        assert (drawn != plain).any()
    maps = [picture(get(served, f"{name}/explanation.png", **{"class": c})) for c in ("normal", "opacity")]
    assert not np.array_equal(*maps)


def test_evidence_is_drawn_where_it_lies_also_on_a_film_that_was_padded() -> None:
    film = np.zeros((400, 200), np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 2] = 1.0
    drawn = cv2.imdecode(np.frombuffer(explained(film, heat, Fit.PAD, Style.HEAT, 1.0), np.uint8), cv2.IMREAD_COLOR)
    hot = np.argwhere(drawn[..., ::-1].astype(float) @ TINT > 0.5 * TINT @ TINT)
    assert hot.size
    assert hot[:, 0].max() < 150
    assert hot[:, 1].min() > 80
    nothing = explained(film, -np.ones((4, 4), np.float32), Fit.STRETCH, Style.CONTOUR, 1.0)
    assert not cv2.imdecode(np.frombuffer(nothing, np.uint8), cv2.IMREAD_COLOR).any()


def test_what_cannot_be_given_again_or_drawn_says_why(served: Served, home: Path) -> None:
    name = httpx.post(f"{served.url}/v1/predict?subject=gone", content=films_as_png(60)[59]).json()["id"]
    for path, params, status, detail in (
        ("p_nothing", {}, 404, "no prediction of this id"),
        ("p_nothing/explanation.png", {}, 404, "no prediction of this id"),
        (f"{name}/explanation.png", {"class": "cat"}, 404, "the class is not one of the model's"),
        (f"{name}/explanation.png", {"style": "oil"}, 422, "the query cannot be understood"),
        (f"{name}/explanation.png", {"opacity": "1.01"}, 422, "the query cannot be understood"),
        (f"{name}/explanation.png", {"opacity": "nan"}, 422, "the query cannot be understood"),
        (f"{name}/explanation.png", {"colour": "red"}, 422, "the query cannot be understood"),
    ):
        answer = get(served, path, **params)
        assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    with opened(home) as ports:
        row = ports.captures.find(name)
        assert row is not None
        ports.blobs.delete(row.image)
        gone = get(served, f"{name}/explanation.png")
        assert (gone.status_code, gone.json()["detail"]) == (404, "the image of this prediction is no longer kept")
        assert get(served, name).status_code == 200
        labelling.erase(ports, "gone")
    assert get(served, name).status_code == 404
