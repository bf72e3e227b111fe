"""Slices as a forest plot: one row a value, its accuracy with the interval, and which are worse than the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from rounds.report import drawing
from rounds.report.drawing import Frame, clip, stroke, svg, tag, text

ROW, HEAD = 24.0, 26.0


def forest(slices: Sequence[Mapping[str, Any]], overall: float | None, *, title: str = "Accuracy by slice") -> Markup:
    """Accuracies with 95 % intervals, values grouped by attribute; a dashed line at the accuracy of all films."""
    groups = [(name, list(rows)) for name, rows in groupby(slices, key=lambda row: str(row["attribute"]))]
    low = min((row["metrics"]["accuracy"]["low"] for row in slices), default=0.0)
    low = max(0.0, min(low, overall if overall is not None else 1.0) - 0.02)
    tall = sum(HEAD + ROW * len(rows) for _, rows in groups)
    frame = Frame(180, 36, 310, tall, (low, 1.0))
    ticks = drawing.ticks(low, 1.0, 5)
    body = [stroke(frame.x(v), frame.top, frame.x(v), frame.bottom, "grid") for v, _ in ticks]
    body.append(drawing.axes(frame, x_ticks=ticks, y_ticks=(), x_label="accuracy", y_label=""))
    if overall is not None:
        body.append(stroke(frame.x(overall), frame.top, frame.x(overall), frame.bottom, "diagonal"))
    y, said = frame.top, []
    for name, rows in groups:
        body.append(text(0, y + 17, clip(name, 24), "strong"))
        y += HEAD
        for row in rows:
            body += _row(frame, y + ROW / 2, row)
            said.append(_said(row))
            y += ROW
    return svg(720, frame.bottom + 44, title, "; ".join(said) + ".", *body)


def _row(frame: Frame, y: float, row: Mapping[str, Any]) -> list[Markup]:
    found, tone = row["metrics"]["accuracy"], "c1" if row["flagged"] else "c0"
    low, high = (frame.x(max(found[key], frame.x_range[0])) for key in ("low", "high"))
    note = "worse than the rest" if row["flagged"] else f"{row['n']:,} films, {row['subjects']:,} subjects"
    return [
        text(16, y + 4, clip(str(row["value"]), 22), "said bad" if row["flagged"] else "small"),
        stroke(low, y, high, y, f"thin {tone}"),
        *(stroke(at, y - 4, at, y + 4, f"thin {tone}") for at in (low, high)),
        tag("circle", cx=frame.x(found["value"]), cy=y, r=4.5, class_=f"dot {tone}"),
        text(frame.right + 14, y + 4, f"{found['value']:.3f}", "strong"),
        text(frame.right + 62, y + 4, note, "said bad" if row["flagged"] else "tick"),
    ]


def _said(row: Mapping[str, Any]) -> str:
    found, flag = row["metrics"]["accuracy"], ", worse than the rest" if row["flagged"] else ""
    bounds = f"{found['low']:.3f} to {found['high']:.3f}"
    return f"{row['attribute']} {row['value']}: {found['value']:.3f} ({bounds}){flag}"
