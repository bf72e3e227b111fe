"""Two bundles on the same films are compared pair by pair, whatever the order of their classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.bundles import tiny_bundle
from tests.support.datasets import tiny_dataset

from rounds.core.errors import BadSource
from rounds.core.ids import canonical
from rounds.evaluate.compare import accuracy_difference, compare, mcnemar
from rounds.evaluate.measure import score
from rounds.stats.metrics import auc


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


def test_a_worse_bundle_is_told_from_a_better_one_with_the_films_on_which_they_differ(folder: Path) -> None:
    good, bad = tiny_bundle(folder), tiny_bundle(folder, bias=4.0, seed=3)
    data = tiny_dataset(folder / "data")
    ours, theirs = score(good, data), score(bad, data)
    found = json.loads(canonical(compare(good, ours, bad, theirs)))
    right, wrong = ours.label == ours.y, theirs.label != theirs.y
    assert (found["against"], found["n"], found["subjects"]) == (bad.digest, 200, 100)
    assert found["right"] == {
        "both": int((right & ~wrong).sum()),
        "this": int((right & wrong).sum()),
        "other": int((~right & ~wrong).sum()),
        "neither": int((~right & wrong).sum()),
    }
    assert sum(found["right"].values()) == 200
    gap = found["accuracy_difference"]
    assert gap["value"] == pytest.approx(right.mean() - 1 + wrong.mean())
    assert 0 < gap["low"] < gap["value"] < gap["high"]
    area = auc(ours.y, ours.probabilities[:, 1]) - auc(theirs.y, theirs.probabilities[:, 1])
    assert found["auc_difference"]["value"] == pytest.approx(area)
    assert found["p_mcnemar"] < 0.001
    assert found["disagreements"] == int((ours.label != theirs.label).sum()) == len(found["films"])
    apart = [abs(row["this_probability"] - row["other_probability"]) for row in found["films"]]
    assert apart == sorted(apart, reverse=True)
    assert all(row["this"] != row["other"] for row in found["films"])


def test_the_order_of_the_classes_does_not_matter(folder: Path) -> None:
    good, bad = tiny_bundle(folder), tiny_bundle(folder, bias=4.0, seed=3)
    data = tiny_dataset(folder / "data")
    ours, theirs = score(good, data), score(bad, data)
    turned = replace(bad, classes=bad.classes[::-1])
    mirrored = replace(theirs, y=1 - theirs.y, label=1 - theirs.label, probabilities=theirs.probabilities[:, ::-1])
    assert compare(good, ours, turned, mirrored) == compare(good, ours, bad, theirs)


def test_a_bundle_against_itself_differs_nowhere_and_says_how_little_that_proves(folder: Path) -> None:
    good, data = tiny_bundle(folder), tiny_dataset(folder / "data")
    found = compare(good, score(good, data), good, score(good, data))
    assert (found["disagreements"], found["films"], found["p_mcnemar"]) == (0, [], 1.0)
    gap = found["accuracy_difference"]
    assert gap["value"] == 0.0
    assert gap["low"] == pytest.approx(-gap["high"])
    assert 0.03 < gap["high"] < 0.05  # 100 subjects without a difference leave room for one of 3.7 points


def test_bundles_of_other_classes_and_other_films_are_refused_together(folder: Path) -> None:
    good, other = tiny_bundle(folder), tiny_bundle(folder, classes=("cat", "dog"))
    data = tiny_dataset(folder / "data")
    ours = score(good, data)
    with pytest.raises(
        BadSource, match=r"(?s)other classes apart; expected normal, opacity; got cat, dog.*other films"
    ):
        compare(good, ours, other, replace(ours, digests=ours.digests[1:]))


def test_the_interval_of_a_paired_difference_covers_the_truth_by_subjects() -> None:
    random, lives, held = np.random.default_rng(4), 300, 0
    place = np.repeat(np.arange(80), 3)
    for _ in range(lives):
        luck = random.normal(size=80)[place] + random.normal(size=240)
        other = luck + random.normal(size=240)
        # both are right with probability .9
        cut = 1.2816
        ours, theirs = luck / np.sqrt(2) < cut, other / np.sqrt(3) < cut
        _, low, high = accuracy_difference(ours, theirs, place)
        held += low <= 0 <= high
    assert held / lives >= 0.92


def test_mcnemar_is_the_exact_binomial_test() -> None:
    from scipy.stats import binomtest

    for one, other in ((0, 0), (3, 9), (7, 7), (20, 4)):
        expected = binomtest(one, one + other).pvalue if one + other else 1.0
        assert mcnemar(one, other) == pytest.approx(expected, abs=1e-9)
