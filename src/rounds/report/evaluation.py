"""A measured bundle as one self-contained page."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from rounds.core.records import Bundle, EvalReport
from rounds.imaging.overlay import overlaid, shown
from rounds.report import figures, panels
from rounds.report.drawing import Line
from rounds.report.figures import METRIC_NAMES, Bin
from rounds.report.forest import forest
from rounds.report.pages import decimal, render

MEANINGS = {
    "auc": "how often a film of the positive class scores higher than one of the other",
    "accuracy": "the share of films that were given the right class, at the operating point",
    "balanced_accuracy": "the mean over the classes of the share that was recognised",
    "sensitivity": "the share of the positive class that was recognised",
    "specificity": "the share of the other class that was left alone",
    "f1": "the harmonic mean of sensitivity and positive predictive value",
    "brier": "the mean squared error of the probabilities; lower is better",
    "ece": "how far stated probabilities lie from observed shares; too high where films are few, lower is better",
    "average_precision": "the mean precision over the films of the positive class, as they come by falling score",
}
MANY_MEANINGS = {
    "auc": "the same for each class against the rest, averaged over the classes",
    "accuracy": "the share of films that were given the right class",
    "f1": "the F1 of each class against the rest, averaged over the classes",
    "average_precision": "that of each class against the rest, averaged over the classes",
}
SHOWN_CLASSES = 6


class Wrong(Protocol):
    """A film that was given the wrong class, as `evaluate.mistakes` finds it."""

    @property
    def film(self) -> str: ...
    @property
    def true(self) -> str: ...
    @property
    def said(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def pixels(self) -> npt.NDArray[np.uint8]: ...
    @property
    def heat(self) -> npt.NDArray[np.float32] | None: ...


def evaluation_page(report: EvalReport, bundle: Bundle, mistakes: Sequence[Wrong] = ()) -> str:
    """Metrics with their intervals, confusion, curves, slices, the worst errors, and what the bundle is made of; what
    the report does not hold is left out.

    `report.curves` as `evaluate.curves` makes them: roc, pr, operating, reliability, scores, ms, subjects, and
    robustness and comparison as the modules of these names do.
    """
    return render(
        "evaluation.html.j2",
        report=report,
        lead=_lead(report),
        rows=_rows(report),
        bars=figures.metric_bars(report.metrics),
        confusion=figures.confusion_matrix(report.confusion, report.classes),
        drawings=_drawings(report),
        forest=_forest(report),
        slices=report.slices,
        compared=report.curves.get("comparison"),
        harm=_harm(report),
        robust=report.curves.get("robustness"),
        mistakes=[_picture(one) for one in mistakes],
        wrong=report.n - sum(row[i] for i, row in enumerate(report.confusion)),
        subjects=report.curves.get("subjects"),
        ms=report.curves.get("ms"),
        positive=report.classes[-1] if len(report.classes) == 2 else None,
        facts=_facts(bundle),
        conformal=list(zip(bundle.classes, bundle.calibration.conformal, strict=False)),
        bundle=bundle,
    )


def _lead(report: EvalReport) -> str:
    said = []
    for name, unit in (("auc", "an AUC of"), ("accuracy", "an accuracy of")):
        metric = report.metrics.get(name)
        if metric is not None and math.isfinite(metric.value):
            said.append(f"{unit} {metric.value:.3f} ({figures.interval(metric)})")
    on = f"On {report.n:,} films of the {report.split} split this model reached "
    return f"{on}{' and '.join(said)}." if said else f"{report.n:,} films of the {report.split} split were measured."


def _rows(report: EvalReport) -> list[tuple[str, str, str, str]]:
    """Name, value, interval and meaning of every metric."""
    meanings = MEANINGS | (MANY_MEANINGS if len(report.classes) > 2 else {})
    rows = []
    for name, metric in report.metrics.items():
        shown = METRIC_NAMES.get(name, name), decimal(metric.value), figures.interval(metric), meanings.get(name, "")
        rows.append(shown)
    return rows


def _drawings(report: EvalReport) -> list[Markup]:
    """The figures whose points the report holds."""
    curves = report.curves
    drawn = []
    if curves.get("roc"):
        drawn.append(_roc(curves["roc"], curves.get("operating")))
    if curves.get("pr"):
        at = curves.get("operating") or {}
        point = (at["tpr"], at["precision"]) if at.get("precision") is not None else None
        drawn.append(panels.precision_recall(curves["pr"], point=point))
    if curves.get("reliability"):
        bins = [Bin(float(row["mean"]), float(row["share"]), int(row["n"])) for row in curves["reliability"]]
        drawn.append(figures.reliability(bins))
    scores = curves.get("scores")
    if scores:
        two = len(report.classes) == 2
        x_label = f"probability of {report.classes[-1]}" if two else "probability of the true class"
        drawn.append(figures.histogram(scores["edges"], scores["counts"], threshold=report.threshold, x_label=x_label))
    return drawn


def _roc(curves: Sequence[Mapping[str, Any]], operating: Mapping[str, float] | None) -> Markup:
    """One curve, or those of the classes that are told from the rest worst, so that many classes stay readable."""
    worst = sorted(curves, key=lambda curve: (curve.get("auc") is None, curve.get("auc")))[:SHOWN_CLASSES]
    title = "ROC curve" if len(curves) == 1 else "ROC curves, each class against the rest"
    if len(curves) > SHOWN_CLASSES:
        title = f"ROC curves, the {SHOWN_CLASSES} lowest classes"
    lines = [Line(str(curve.get("class", "")), curve["fpr"], curve["tpr"]) for curve in worst]
    return figures.roc(lines, point=(operating["fpr"], operating["tpr"]) if operating else None, title=title)


def _forest(report: EvalReport) -> Markup | None:
    accuracy = report.metrics.get("accuracy")
    shown = [row for row in report.slices if "accuracy" in row["metrics"]]
    return forest(shown, accuracy.value if accuracy else None) if shown else None


def _harm(report: EvalReport) -> Markup | None:
    found = report.curves.get("robustness")
    return panels.harm(found) if found else None


def _picture(one: Wrong) -> dict[str, str]:
    """A film and its overlay (empty where there is none) as data, with its words."""
    pictures = {"film": shown(one.pixels), "overlay": b"" if one.heat is None else overlaid(one.pixels, one.heat)}
    data = {
        key: f"data:image/jpeg;base64,{b64encode(value).decode()}" if value else "" for key, value in pictures.items()
    }
    given = decimal(one.probability) if one.probability >= 0.0005 else "under 0.001"
    return data | {"true": one.true, "said": one.said, "probability": given, "name": one.film.rpartition("/")[2]}


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    """What the bundle is and where it comes from, ids in full."""
    parents, imaging, calibration = bundle.parents, bundle.imaging, bundle.calibration
    colours = {1: "gray", 3: "RGB"}.get(imaging.channels, f"{imaging.channels} channels")
    facts = [
        ("bundle", bundle.digest),
        ("variant", bundle.variant),
        ("trained on data set", parents.data),
        ("training run", parents.run),
        ("configuration", parents.config),
        ("code", parents.code),
        ("varies bundle", parents.bundle or ""),
        ("classes", ", ".join(bundle.classes)),
        ("image", f"{imaging.size} x {imaging.size}, {colours}, {imaging.fit.value}"),
        ("temperature", decimal(calibration.temperature)),
        ("bias", ", ".join(decimal(value) for value in calibration.bias)),
        ("operating point", "" if calibration.threshold is None else decimal(calibration.threshold)),
        ("monitoring scores", ", ".join(bundle.scoring.names)),
    ]
    return [(name, value) for name, value in facts if value]
