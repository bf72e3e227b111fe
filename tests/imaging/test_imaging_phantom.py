"""Phantoms: the same from the same seed, one class a subject, hard for a histogram and easy enough for a small net."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from rounds.core.errors import BadOverride
from rounds.core.specs import AugmentSpec, ImagingSpec, LoopSpec, ModelSpec
from rounds.imaging.corrupt import corrupt
from rounds.imaging.fit import fit
from rounds.imaging.measure import MEASURES, measure
from rounds.imaging.phantom import CLASSES, MOST_FILMS, Phantom, Scanner, draw

Pixels = NDArray[np.uint8]


def _same(one: Phantom, other: Phantom) -> bool:
    names = (one.label, one.subject, one.name) == (other.label, other.subject, other.name)
    return names and bool((one.pixels == other.pixels).all())


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    short, long = list(draw(17, seed=3)), list(draw(40, seed=3))
    assert (len(short), len(long)) == (17, 40)
    assert all(_same(*pair) for pair in zip(short, long, strict=False))


def test_films_are_square_named_once_and_fill_the_gray_range() -> None:
    films = list(draw(60, seed=1, size=48))
    assert {film.pixels.shape for film in films} == {(48, 48)}
    assert {film.pixels.dtype for film in films} == {np.dtype(np.uint8)}
    assert len({film.name for film in films}) == 60
    assert all(film.name.startswith(film.subject + "_") for film in films)
    assert all(film.pixels.max() > 150 and film.pixels.min() < 60 for film in films)


def test_a_subject_has_one_label_and_one_to_four_different_films() -> None:
    films = list(draw(400, seed=2))
    groups = [list(group) for _, group in itertools.groupby(films, key=lambda film: film.subject)]
    assert len({group[0].subject for group in groups}) == len(groups)
    assert {len(group) for group in groups} == set(range(1, MOST_FILMS + 1))
    assert all(len({film.label for film in group}) == 1 for group in groups)
    assert len({film.pixels.tobytes() for film in films}) == len(films)


def test_another_seed_gives_other_subjects() -> None:
    assert not {film.subject for film in draw(50, seed=1)} & {film.subject for film in draw(50, seed=2)}
    assert not _same(next(draw(1, seed=1)), next(draw(1, seed=2)))


@pytest.mark.parametrize(("positive", "expected"), [(0.0, {"normal"}), (1.0, {"opacity"}), (0.5, set(CLASSES))])
def test_the_share_of_ill_subjects_is_kept(positive: float, expected: set[str]) -> None:
    assert {film.label for film in draw(60, seed=1, positive=positive)} == expected


def test_another_scanner_films_the_same_subjects() -> None:
    plain, dark = list(draw(30, seed=4)), list(draw(30, seed=4, scanner=Scanner(gamma=1.3)))
    assert [film.name for film in plain] == [film.name for film in dark]
    expected = corrupt(np.stack([film.pixels for film in plain])[:, None], "gamma", 1.3)[:, 0]
    assert np.abs(np.stack([film.pixels for film in dark]).astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("scanner", "moved", "spreads"),
    [
        (Scanner(gamma=1.3), "exposure", -1.5),
        (Scanner(exposure=0.85), "exposure", -1.5),
        (Scanner(blur=1.0), "sharpness", -1.5),
        (Scanner(noise=0.04), "noise", 1.5),
        (Scanner(crop=0.06), "contrast", -1.5),
    ],
)
def test_a_scanner_change_moves_its_measure_by_more_than_films_differ(
    scanner: Scanner, moved: str, spreads: float
) -> None:
    clean, changed = (
        measure(np.stack([film.pixels for film in draw(300, seed=7, scanner=each)])[:, None])
        for each in (Scanner(), scanner)
    )
    step = (np.median(changed, 0) - np.median(clean, 0)) / clean.std(0)
    assert step[MEASURES.index(moved)] * np.sign(spreads) > abs(spreads)


def test_numbers_that_make_no_film_are_refused_all_at_once() -> None:
    with pytest.raises(BadOverride) as caught:
        draw(-1, seed=-2, size=8, positive=1.5, scanner=Scanner(gamma=0.0, blur=-1.0, crop=0.5))
    assert str(caught.value) == (
        "such phantoms cannot be drawn\n"
        "  n: out of range; expected 0 to inf; got -1\n"
        "  seed: out of range; expected 0 to inf; got -2\n"
        "  size: out of range; expected 32 to 1024; got 8\n"
        "  positive: out of range; expected 0 to 1; got 1.5\n"
        "  gamma: out of range; expected 0.1 to 10; got 0\n"
        "  blur: out of range; expected 0 to 2; got -1\n"
        "  crop: out of range; expected 0 to 0.4; got 0.5"
    )


def test_a_film_is_drawn_in_about_a_millisecond() -> None:
    times = []
    for seed in range(5):
        start = time.process_time()
        list(draw(40, seed=seed))
        times.append(time.process_time() - start)
    assert min(times) / 40 < 2e-3


def _set(n: int, seed: int) -> tuple[Pixels, NDArray[np.int64]]:
    films = list(draw(n, seed=seed))
    labels = np.array([CLASSES.index(film.label) for film in films], dtype=np.int64)
    return np.stack([film.pixels for film in films])[:, None], labels


def _histograms(films: Pixels) -> NDArray[np.float64]:
    flat = films.reshape(len(films), -1)
    counts = np.stack([np.bincount(film >> 4, minlength=16) for film in flat]) / flat.shape[1]
    return np.column_stack([flat.mean(1), flat.std(1), counts])


def test_mean_spread_and_histogram_do_not_tell_the_classes_apart() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (train, y), (test, truth) = _set(1000, 101), _set(1000, 102)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(_histograms(train), y)
    assert 0.5 < roc_auc_score(truth, model.predict_proba(_histograms(test))[:, 1]) < 0.75


@pytest.mark.slow
def test_a_small_net_learns_suffers_from_false_labels_and_from_a_blurred_scanner() -> None:
    from sklearn.metrics import roc_auc_score

    (train, y), (test, truth) = _set(2500, 201), _set(2000, 202)
    flipped = np.where(np.random.default_rng(0).random(len(y)) < 0.15, 1 - y, y)
    small, clean, blurred = (_shrunk(films) for films in (train, test, corrupt(test, "blur", 1.1)))
    answers, others = _trained(small, y, [clean, blurred]), _trained(small, flipped, [clean])
    auc = roc_auc_score(truth, answers[0])
    assert 0.93 <= auc <= 0.99
    assert 0.01 <= auc - roc_auc_score(truth, others[0]) <= 0.09
    right = [float(((answer > 0) == truth).mean()) for answer in answers]
    assert 0.02 <= right[0] - right[1] <= 0.25


def _shrunk(films: Pixels) -> Pixels:
    return np.stack([fit(film[0], ImagingSpec(size=32)) for film in films])


def _trained(films: Pixels, labels: NDArray[np.int64], tests: list[Pixels]) -> list[NDArray[np.float32]]:
    """Train the house's small net for eight epochs; its log odds on each of the test sets."""
    import torch

    from rounds.nets.names import build
    from rounds.train.augment import augment
    from rounds.train.optimise import optimise

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build(ModelSpec(), channels=1, classes=2, size=32)
    draws = torch.Generator().manual_seed(0)
    pixels, y, spec = torch.from_numpy(films), torch.from_numpy(labels), LoopSpec(epochs=8)
    net.prepare(pixels)
    optimizer, schedule = optimise(net, spec, spec.epochs * (len(films) // spec.batch))
    for _ in range(spec.epochs):
        order = torch.randperm(len(films), generator=draws)
        for batch in order[: len(order) // spec.batch * spec.batch].split(spec.batch):
            logits = net(augment(pixels[batch], AugmentSpec(), draws))[0]
            loss = torch.nn.functional.cross_entropy(logits, y[batch], label_smoothing=spec.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        answers = [torch.cat([net(part)[0] for part in torch.from_numpy(test).split(500)]) for test in tests]
    return [(answer[:, 1] - answer[:, 0]).numpy() for answer in answers]
