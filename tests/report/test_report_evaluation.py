"""The page of a measured bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rounds.core.records import Bundle, EvalReport, Metric
from rounds.evaluate.curves import curves
from rounds.report.evaluation import evaluation_page

HOSTILE = '<script>alert("x")</script>'


def test_the_page_is_whole_and_escapes_hostile_class_names(
    report: EvalReport, bundle: Bundle, whole: Callable[[str], Any]
) -> None:
    page = evaluation_page(report, bundle)
    whole(page)
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in page


def test_the_page_leads_with_the_measured_numbers_and_says_what_it_is_not(report: EvalReport, bundle: Bundle) -> None:
    page = evaluation_page(report, bundle)
    lead = "On 100 films of the test split this model reached an AUC of 0.900 (0.850 to 0.940) and an accuracy of 0.830"
    assert lead in page
    assert "100 films of 80 subjects, 0.21 ms a film in batches of 32." in page
    assert "Not a medical device." in page
    assert "What an interval means" in page


def test_the_page_names_everything_the_bundle_is_made_of(report: EvalReport, bundle: Bundle) -> None:
    page = evaluation_page(report, bundle)
    facts = [bundle.digest, bundle.parents.data, "run7", "ef" * 32, "65c660e", "64 x 64, gray, stretch", "1.250"]
    assert [fact for fact in facts if fact not in page] == []
    assert "0.000, -0.500" in page
    assert "logit, exposure" in page


def test_a_measure_that_could_not_be_told_says_so(report: EvalReport, bundle: Bundle) -> None:
    page = evaluation_page(report, bundle)
    row = '<th scope="row">F1</th><td class="figure">not measured</td><td>no interval</td>'
    assert row in page
    assert '<th scope="row">calibration error</th><td class="figure">0.040</td><td>no interval</td>' in page


def test_a_report_without_curves_or_metrics_still_makes_a_page(
    report: EvalReport, bundle: Bundle, whole: Callable[[str], Any]
) -> None:
    page = evaluation_page(replace(report, curves={}, metrics={}), bundle)
    whole(page)
    assert "100 films of the test split were measured." in page
    assert "ROC" not in page


def test_ten_classes_as_evaluate_measures_them_make_a_page(bundle: Bundle, whole: Callable[[str], Any]) -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"class {i}" for i in range(10))
    y = rng.integers(0, 10, 300)
    probabilities = rng.dirichlet(np.ones(10), 300)
    calibration = replace(bundle.calibration, threshold=None, bias=(0.0,) * 10, conformal=(0.9,) * 10)
    label = probabilities.argmax(1)
    made = curves(names, calibration, y, label, probabilities)
    confusion = tuple(tuple(int(((y == a) & (label == b)).sum()) for b in range(10)) for a in range(10))
    metrics = {"auc": Metric(0.5, 0.4, 0.6)}
    report = EvalReport("ab" * 32, "cd" * 32, "val", 300, names, None, metrics, confusion, made)
    page = evaluation_page(report, replace(bundle, classes=names, calibration=calibration))
    whole(page)
    assert "ROC curves, the 6 lowest classes" in page
    assert "probability of the true class" in page
    assert "operating point" not in page
    assert "each class against the rest, averaged" in page
