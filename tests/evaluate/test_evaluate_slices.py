"""Slices are tested within classes, by subjects and all together, so that flags can be believed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from rounds.core.errors import BadOverride
from rounds.evaluate.slices import slices, worse


def _cut(
    attributes: list[dict[str, str]], right: np.ndarray, y: np.ndarray, subjects: list[str], names: tuple[str, ...] = ()
) -> tuple[dict, ...]:
    label = np.where(right, y, 1 - y)
    p1 = np.where(label == 1, 0.8, 0.2)
    return slices(attributes, y, label, np.stack([1 - p1, p1], 1), subjects, names)


def _films(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    return random.integers(0, 2, n), random.random(n) < 0.9, [f"s{i}" for i in range(n)]


def test_a_slice_that_is_worse_is_flagged_and_no_other() -> None:
    y, right, subjects = _films(600)
    site = np.arange(600) % 3
    right[site == 2] = np.arange(200) % 10 < 7
    found = _cut([{"site": "abc"[i % 3], "sex": "fm"[i % 2]} for i in range(600)], right, y, subjects)
    assert [(row["attribute"], row["value"]) for row in found if row["flagged"]] == [("site", "c")]
    row = found[-1]
    assert (row["attribute"], row["value"], row["n"], row["subjects"]) == ("site", "c", 200, 200)
    assert row["difference"]["value"] == pytest.approx(-0.2, abs=0.04)
    assert row["difference"]["low"] < row["difference"]["value"] < row["difference"]["high"] < 0
    assert row["p"] < row["p_corrected"] < 0.001
    assert list(row["metrics"]) == ["auc", "accuracy", "sensitivity", "specificity"]
    assert row["metrics"]["accuracy"]["value"] == pytest.approx(0.7)


def test_a_slice_of_one_class_is_compared_with_films_of_that_class() -> None:
    # bacteria and virus are both positive; the negatives, which are easy, belong to neither comparison
    y = np.repeat([0, 1, 1], 100)
    right = np.concatenate([np.ones(100, bool), np.arange(100) % 10 < 9, np.arange(100) % 10 < 6])
    kinds = [{}] * 100 + [{"kind": "bacteria"}] * 100 + [{"kind": "virus"}] * 100
    bacteria, virus = _cut(kinds, right, y, [f"s{i}" for i in range(300)])
    assert "auc" not in virus["metrics"]
    assert virus["difference"]["value"] == pytest.approx(-0.3)
    assert bacteria["difference"]["value"] == pytest.approx(0.3)
    assert (virus["flagged"], bacteria["flagged"]) == (True, False)


def test_a_slice_with_more_of_the_harder_class_is_not_blamed_for_it() -> None:
    random = np.random.default_rng(1)
    y = random.integers(0, 2, 1000)
    right = random.random(1000) < np.where(y == 1, 0.7, 0.98)
    site = np.where(random.random(1000) < np.where(y == 1, 0.8, 0.2), "hard", "easy")
    found = _cut([{"site": name} for name in site], right, y, [f"s{i}" for i in range(1000)])
    accuracy = {row["value"]: row["metrics"]["accuracy"]["value"] for row in found}
    assert accuracy["easy"] - accuracy["hard"] > 0.1
    assert [row["flagged"] for row in found] == [False, False]


@pytest.mark.parametrize(("subjects", "each", "accuracy"), [(120, 3, 0.95), (60, 2, 0.8)])
def test_where_nothing_differs_any_flag_is_as_rare_as_stated(subjects: int, each: int, accuracy: float) -> None:
    random, lives, flagged = np.random.default_rng(2), 200, 0
    place = np.repeat(np.arange(subjects), each)
    for _ in range(lives):
        y = random.integers(0, 2, subjects)[place]
        luck = np.sqrt(0.5) * (random.normal(size=subjects)[place] + random.normal(size=len(place)))
        columns = [random.integers(0, 2, subjects)[place], random.choice(4, subjects, p=[0.5, 0.25, 0.15, 0.1])[place]]
        tested = [
            found["p"]
            for column in columns
            for value in np.unique(column)
            if (found := worse(column == value, column != value, y, ndtr(luck) < accuracy, place))
        ]
        flagged += min(tested) * len(tested) <= 0.05
    assert flagged / lives <= 0.06


def test_small_slices_are_shown_and_not_tested() -> None:
    y, right, subjects = _films(200)
    right[:12] = False
    found = _cut([{"ward": "tiny" if i < 12 else "large"} for i in range(200)], right, y, subjects)
    assert [(row["value"], row["p"], row["p_corrected"], row["difference"], row["flagged"]) for row in found] == [
        ("large", None, None, None, False),
        ("tiny", None, None, None, False),
    ]


def test_subjects_are_the_units_so_ten_copies_of_a_film_prove_no_more() -> None:
    y, right, _ = _films(60, seed=3)
    site = np.array(["a", "b"])[np.arange(60) % 2]
    once = worse(site == "a", site == "b", y, right, np.arange(60))
    copies = [np.tile(column, 10) for column in (site == "a", site == "b", y, right, np.arange(60))]
    ten = worse(*copies)
    assert ten["p"] == pytest.approx(once["p"], abs=1e-9)
    assert ten["difference"] == pytest.approx(once["difference"], abs=1e-9)


def test_attributes_of_one_value_or_of_many_are_left_out_and_numbers_are_cut_into_quarters() -> None:
    y, right, subjects = _films(400)
    rows = [{"id": f"x{i}", "hospital": "one", "age": str(i % 80)} for i in range(400)]
    found = _cut(rows, right, y, subjects)
    assert {row["attribute"] for row in found} == {"age"}
    assert [row["value"] for row in found] == ["up to 19.75", "19.75 to 39.5", "39.5 to 59.25", "above 59.25"]
    assert [row["n"] for row in found] == [100] * 4


def test_only_the_named_attributes_are_cut_and_an_unknown_one_is_named() -> None:
    y, right, subjects = _films(100)
    rows = [{"site": "ab"[i % 2], "sex": "fm"[i % 2]} for i in range(100)]
    assert {row["attribute"] for row in _cut(rows, right, y, subjects, ("sex",))} == {"sex"}
    with pytest.raises(BadOverride, match=r"--slice scanner: no film has this attribute; expected sex, site"):
        _cut(rows, right, y, subjects, ("scanner",))
    assert _cut([{}] * 100, right, y, subjects) == ()
