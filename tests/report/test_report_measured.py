"""Slices, harm, comparison and the worst errors on the page of a measured bundle."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from tests.report.conftest import HOSTILE

from rounds.core.records import Bundle, EvalReport
from rounds.evaluate.mistakes import Mistake
from rounds.imaging.overlay import overlaid, shown
from rounds.report.evaluation import evaluation_page

ACCURACY = {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.94}}


def _slice(value: str, flagged: bool) -> dict[str, Any]:
    gap = {"value": -0.08, "low": -0.12, "high": -0.04} if flagged else None
    told = {"attribute": HOSTILE, "value": value, "n": 1200, "subjects": 60, "metrics": ACCURACY, "difference": gap}
    return told | {"p": 0.001 if flagged else None, "p_corrected": 0.002 if flagged else None, "flagged": flagged}


def _harm() -> dict[str, Any]:
    both = {"auc": {"value": 0.95, "low": 0.9, "high": 0.99}} | ACCURACY
    points = [{"severity": 0.5} | both, {"severity": 2.0} | ACCURACY]
    curves = {"gamma": {"neutral": 1.0, "points": points}}
    return {"n": 300, "subjects": 120, "clean": both, "stress": both, "curves": curves}


def _comparison() -> dict[str, Any]:
    film = {"film": HOSTILE, "digest": "ab", "true": "normal", "this": "normal", "other": HOSTILE}
    return {
        "against": "cd" * 32,
        "n": 100,
        "subjects": 80,
        "auc_difference": {"value": 0.0123, "low": -0.001, "high": 0.0256},
        "accuracy_difference": {"value": 0.03, "low": 0.01, "high": 0.05},
        "right": {"both": 80, "this": 9, "other": 4, "neither": 7},
        "p_mcnemar": 0.2668,
        "disagreements": 13,
        "films": [film | {"this_probability": 0.9, "other_probability": 0.2}],
    }


def _mistake(heat: np.ndarray | None) -> Mistake:
    pixels = np.full((1, 8, 8), 90, np.uint8)
    return Mistake(f"a/b/{HOSTILE}.png", "ab", "normal", HOSTILE, 0.0001, pixels, heat)


def test_everything_that_can_be_measured_is_on_one_whole_page(
    report: EvalReport, bundle: Bundle, whole: Callable[[str], Any]
) -> None:
    more = {"robustness": _harm(), "comparison": _comparison()}
    pr = {"pr": {"recall": [0.5, 1.0], "precision": [1.0, 0.6], "prevalence": 0.6}}
    operating = {"operating": {"fpr": 0.1, "tpr": 0.8, "precision": 0.92, "threshold": 0.43}}
    rich = replace(
        report, curves={**report.curves, **more, **pr, **operating}, slices=(_slice("a", False), _slice("b", True))
    )
    page = evaluation_page(rich, bundle, [_mistake(np.eye(4, dtype=np.float32))])
    whole(page)
    assert "<script" not in page
    for said in (
        "1 of 2 slices is worse than the rest of their attribute",
        "accuracy -0.080 within the true class, -0.120 to -0.040",
        "<td>+0.0100 to +0.0500</td>",
        "McNemar, first films of subjects: p = 0.267",
        "13 films that were given different classes, the 1 furthest apart",
        "the accuracy is 0.900 (0.850 to 0.940), and 0.900 on the same films untouched",
        "Of 17 errors the 1 whose true class was given the lowest probability",
        "p of the truth under 0.001",
        "Precision and recall",
        "precision 0.920",
    ):
        assert said in page, said
    assert page.count("data:image/jpeg;base64,") == 2


def test_what_was_not_measured_is_not_on_the_page(report: EvalReport, bundle: Bundle) -> None:
    page = evaluation_page(report, bundle)
    headings = ("Against another bundle", "Where it is worse", "What it withstands", "Where it was surest, and wrong")
    assert [heading for heading in headings if heading in page] == []


def test_a_bundle_without_activation_maps_shows_its_errors_as_they_are(report: EvalReport, bundle: Bundle) -> None:
    page = evaluation_page(report, bundle, [_mistake(None)])
    assert page.count("data:image/jpeg;base64,") == 1
    assert "in orange" not in page


def test_slices_that_are_all_right_are_said_to_be(report: EvalReport, bundle: Bundle) -> None:
    page = evaluation_page(replace(report, slices=(_slice("a", False),)), bundle)
    assert "No slice is shown to be worse than the rest of its attribute." in page
    assert "not tested" in page


def test_an_overlay_tints_the_film_where_the_map_is_high_and_nowhere_else() -> None:
    film = np.full((1, 28, 28), 100, np.uint8)
    heat = np.zeros((7, 7), np.float32)
    heat[:3, :3] = 2.0
    plain, tinted = (_read(data) for data in (shown(film), overlaid(film, heat)))
    assert plain.shape == tinted.shape == (224, 224, 3)
    assert np.abs(tinted[150:, 150:] - plain[150:, 150:]).max() <= 3
    red, green, blue = tinted[30, 30]
    assert red > 180 > 130 > green > blue
    assert (_read(overlaid(film, -heat)) == plain).all()
    assert _read(shown(np.zeros((3, 300, 300), np.uint8))).shape == (224, 224, 3)


def _read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), np.int64)
