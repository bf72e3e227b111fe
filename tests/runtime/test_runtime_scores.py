"""Scores are what their names say, cost little, and move when the films move."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tests.support.bundles import tiny_bundle, tiny_films

from rounds.core.records import Bundle
from rounds.imaging.measure import measure
from rounds.runtime.bundle import reference
from rounds.runtime.predictor import Outputs, Predictor
from rounds.runtime.scores import AXES, SCORES, Scorer, fit_scoring, scores


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


def _outputs(n: int, k: int = 2, d: int = 64, seed: int = 0) -> Outputs:
    random = np.random.default_rng(seed)
    logits, embedding = (random.normal(0, 2, (n, width)).astype(np.float32) for width in (k, d))
    return Outputs(logits, embedding, np.empty((n, 0, 0, 0), np.float32))


def test_the_seven_scores_are_in_the_order_of_the_bundle(made: Bundle) -> None:
    films = tiny_films(6, seed=5)
    said = Predictor(made).answer(films)
    found = scores(made, films, said)
    assert made.scoring.names == SCORES
    assert found.shape == (6, 7)
    assert found.dtype == np.float32
    assert np.array_equal(found[:, 0], said.logits[:, 1] - said.logits[:, 0])
    assert np.array_equal(found[:, 1:6], measure(films))
    centre, axes = np.array(made.scoring.centre), np.array(made.scoring.axes)
    assert found[:, 6] == pytest.approx(np.linalg.norm((said.embedding - centre) @ axes.T, axis=1), rel=1e-4)


def test_with_more_classes_the_logit_is_the_margin_of_the_best_over_the_second() -> None:
    said = _outputs(50, k=5)
    scoring = fit_scoring(tiny_films(50), said)
    ordered = np.sort(said.logits, axis=1)
    assert np.array_equal(Scorer(scoring).scores(tiny_films(50), said)[:, 0], ordered[:, -1] - ordered[:, -2])


def test_the_edges_cut_the_training_films_into_64_equal_bins() -> None:
    films, said = tiny_films(640), _outputs(640)
    scoring = fit_scoring(films, said)
    assert [len(row) for row in scoring.edges] == [63] * 7
    found = Scorer(scoring).scores(films, said)
    bins = np.searchsorted(np.array(scoring.edges[0]), found[:, 0])
    assert np.bincount(bins, minlength=64).tolist() == [10] * 64


def test_the_frame_is_white_on_the_training_films_and_has_sixteen_axes_at_most() -> None:
    random = np.random.default_rng(1)
    said = _outputs(500, d=40)
    mixed = (said.embedding @ random.normal(0, 1, (40, 40))).astype(np.float32)
    scoring = fit_scoring(tiny_films(500), Outputs(said.logits, mixed, said.activation))
    frame = (mixed - np.array(scoring.centre)) @ np.array(scoring.axes).T
    assert frame.shape == (500, AXES)
    assert np.cov(frame, rowvar=False) == pytest.approx(np.eye(AXES), abs=1e-3)


def test_directions_without_spread_are_left_out_of_the_frame() -> None:
    said = _outputs(200, d=6)
    flat = np.concatenate([said.embedding, np.ones((200, 3), np.float32), said.embedding[:, :1]], axis=1)
    scoring = fit_scoring(tiny_films(200), Outputs(said.logits, flat, said.activation))
    assert len(scoring.axes) == 6


def test_an_embedding_of_one_number_has_one_axis() -> None:
    said = _outputs(100, d=1)
    assert len(fit_scoring(tiny_films(100), said).axes) == 1


def test_films_at_an_index_are_scored_as_if_they_were_cut_out() -> None:
    films, said = tiny_films(30), _outputs(30)
    scoring = fit_scoring(films, said)
    index = np.array([4, 28, 9])
    some = Outputs(said.logits[index], said.embedding[index], said.activation[index])
    scorer = Scorer(scoring)
    assert np.array_equal(scorer.scores(films, some, index=index), scorer.scores(films, said)[index])


def test_large_films_are_measured_in_parts_with_the_same_result() -> None:
    films, said = tiny_films(60, size=224), _outputs(60)
    scoring = fit_scoring(films, said)
    assert Scorer(scoring).scores(films, said)[:, 1:6] == pytest.approx(measure(films), rel=1e-5)


def test_darker_films_move_exposure_away_from_the_reference(made: Bundle) -> None:
    films = tiny_films(300, seed=77, brightness=0.7)
    found = scores(made, films, Predictor(made).answer(films))
    held = reference(made).scores
    shift = (found.mean(0) - held.mean(0)) / held.std(0)
    assert shift[SCORES.index("exposure")] < -0.5


def test_a_film_is_scored_in_thirty_microseconds() -> None:
    films = np.random.default_rng(0).integers(0, 256, (32, 1, 28, 28)).astype(np.uint8)
    said = _outputs(32, d=128)
    scorer = Scorer(fit_scoring(films, said))
    best = min(_timed(scorer, films, said) for _ in range(30))
    assert best / 32 < 30e-6


def _timed(scorer: Scorer, films: np.ndarray, said: Outputs) -> float:
    started = time.perf_counter()
    scorer.scores(films, said)
    return time.perf_counter() - started
