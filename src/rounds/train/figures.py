"""The pictures that a run keeps: its curve, and how its bundle does on the validation films."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

INK, MARK, PALE = "#1f2933", "#c0392b", "#b8c2cc"


def curve_png(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Training loss, and validation AUC and accuracy, by epoch; rows hold `epoch` and the figures."""
    figure, (left, right) = _sheet(2)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["loss"] for row in rows], color=INK, marker=".")
    left.set(title="Training loss", xlabel="epoch")
    for name, colour in (("auc", INK), ("accuracy", MARK)):
        right.plot(epochs, [row[name] for row in rows], color=colour, marker=".", label=name)
    right.set(title="Validation", xlabel="epoch")
    right.legend()
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return _png(figure)


def validation_png(curves: Mapping[str, Any]) -> bytes:
    """ROC with the operating point, and reliability with 95 % intervals, from the `curves` of an EvalReport."""
    figure, (left, right) = _sheet(2)
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color=PALE, linewidth=1)
    for roc in curves["roc"]:
        auc = "" if roc["auc"] is None else f", AUC {roc['auc']:.4f}"
        left.plot(roc["fpr"], roc["tpr"], label=f"{roc['class']}{auc}")
    if curves["operating"]:
        left.plot(curves["operating"]["fpr"], curves["operating"]["tpr"], "o", color=MARK, label="operating point")
    left.set(title="ROC", xlabel="false positive share", ylabel="true positive share")
    left.legend(loc="lower right")
    bins = curves["reliability"]
    share = [row["share"] for row in bins]
    spread = [[row["share"] - row["share_low"] for row in bins], [row["share_high"] - row["share"] for row in bins]]
    right.errorbar([row["mean"] for row in bins], share, spread, color=INK, marker=".", capsize=2)
    right.set(title="Reliability", xlabel="stated probability", ylabel="share that came true")
    return _png(figure)


def _sheet(columns: int) -> tuple[Any, Any]:
    # it tells on the console that it builds its list of fonts, once a machine
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * columns, 3.6), dpi=110)
    FigureCanvasAgg(figure)
    # room for what is written; the layout engines find it out by drawing the whole twice
    margins = {"left": 0.08, "right": 0.985, "bottom": 0.14, "top": 0.91, "wspace": 0.25}
    return figure, figure.subplots(1, columns, gridspec_kw=margins)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
