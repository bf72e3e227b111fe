"""The house's charts as SVG text: plain arguments in, one drawing out, with its title and its description in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from rounds.core.records import Metric
from rounds.report import drawing
from rounds.report.drawing import Frame, Line, Mark, box, clip, colour, path, stroke, svg, tag, text
from rounds.stats.intervals import clopper_pearson

LOWER_IS_BETTER = ("brier", "ece")
METRIC_NAMES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "calibration error",
    "average_precision": "average precision",
}
UNIT = ((0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1"))
EVIDENCE_FLOOR = -1.0
DOTS = 100


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: mean stated probability, observed share, and how many films it holds."""

    confidence: float
    accuracy: float
    n: int


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    limit: float | None = None,
    limit_text: str = "limit",
    marks: Sequence[Mark] = (),
    step: bool = False,
) -> Markup:
    """Curves over a common axis, with a dashed limit and named places; `step` holds each value until the next."""
    thinned = [(line.name, *drawing.thin(line.x, line.y)) for line in lines]
    y_range = _range([float(v) for _, _, ys in thinned for v in ys if math.isfinite(v)], limit)
    frame = _wide(thinned, marks, y_range)
    y_ticks = drawing.ticks(*y_range)
    return _chart(frame, thinned, y_ticks, title, x_label, y_label, limit, limit_text, marks, step)


def evidence_chart(
    points: Sequence[tuple[float, float]],
    limit: float,
    *,
    change_at: float | None = None,
    alarm_at: float | None = None,
    title: str = "Evidence that the films have changed",
    x_label: str = "images since the watch began",
) -> Markup:
    """The watch over images: (n, log_e) after each look and the alarm's limit, natural logarithms as in `Finding`,
    shown in powers of ten and cut off a little above the limit; with the places of the change and of the alarm."""
    scale, top = math.log(10), max(limit / math.log(10), 1.0)
    heights = np.nan_to_num(np.array([log_e for _, log_e in points], np.float64) / scale, nan=EVIDENCE_FLOOR)
    xs, ys = drawing.thin([n for n, _ in points], np.clip(heights, EVIDENCE_FLOOR, top * 1.2).tolist())
    marks = [] if change_at is None else [Mark(change_at, "the change begins")]
    if alarm_at is not None:
        after = "" if change_at is None else f" after {drawing.short(alarm_at - change_at)} images"
        marks.append(Mark(alarm_at, f"alarm{after}", "bad"))
    curves = [("evidence", xs, ys)]
    frame = _wide(curves, marks, (EVIDENCE_FLOOR, top * 1.2))
    y_ticks = drawing.powers(EVIDENCE_FLOOR, top * 1.2)
    said = f"alarm from {drawing.short(float(f'{10**top:.3g}'))}"
    return _chart(frame, curves, y_ticks, title, x_label, "evidence for a change", top, said, marks, False)


def roc(curves: Sequence[Line], *, point: tuple[float, float] | None = None, title: str = "ROC curve") -> Markup:
    """Sensitivity (y) over 1 - specificity (x), 0..1; `point` is the operating point in the same order (x, y)."""
    frame = Frame(44, 52, 270, 270)
    body = [drawing.axes(frame, x_ticks=UNIT, y_ticks=UNIT, x_label="1 − specificity", y_label="sensitivity")]
    body.append(stroke(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "diagonal"))
    for index, line in enumerate(curves):
        xs, ys = drawing.thin(line.x, line.y, 400)
        body.append(path([(frame.x(x), frame.y(y)) for x, y in zip(xs, ys, strict=True)], f"line {colour(index)}"))
    if len(curves) > 1:
        body += _keys_inside(frame, [line.name for line in curves])
    described = "The chance of a hit over the chance of a false call at every threshold."
    if point is not None:
        x, y = frame.x(point[0]), frame.y(point[1])
        body.append(tag("circle", cx=x, cy=y, r=6.0, class_="dot c1"))
        body.append(text(x + 12, y + 16, "operating point", "strong"))
        body.append(text(x + 12, y + 32, f"sensitivity {point[1]:.3f}", "small"))
        body.append(text(x + 12, y + 47, f"specificity {1 - point[0]:.3f}", "small"))
        described += f" At the operating point sensitivity is {point[1]:.3f} and specificity {1 - point[0]:.3f}."
    return svg(330, 366, title, described, *body)


def reliability(bins: Sequence[Bin], *, title: str = "Reliability") -> Markup:
    """Observed share over stated probability, with exact 95 % intervals; bars below count the films of each bin."""
    frame, counts = Frame(44, 52, 270, 220), Frame(44, 282, 270, 40)
    held = [b for b in bins if b.n > 0]
    most = max((b.n for b in held), default=1)
    body = [drawing.axes(frame, x_ticks=(), y_ticks=UNIT, x_label="", y_label="observed share")]
    body.append(stroke(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "diagonal"))
    for b in held:
        low, high = clopper_pearson(min(max(round(b.accuracy * b.n), 0), b.n), b.n)
        x, tall = counts.x(b.confidence), counts.height * b.n / most
        body.append(stroke(x, frame.y(low), x, frame.y(high), "thin c0"))
        body.append(box(x - 4, counts.bottom - tall, 8, tall, "bar note", tip=f"{b.n:,} films"))
    body.append(path([(frame.x(b.confidence), frame.y(b.accuracy)) for b in held], "line c0") if held else Markup(""))
    body += [tag("circle", cx=frame.x(b.confidence), cy=frame.y(b.accuracy), r=4.5, class_="dot c0") for b in held]
    body.append(drawing.axes(counts, x_ticks=UNIT, y_ticks=(), x_label="stated probability", y_label=""))
    body.append(text(frame.left - 7, counts.top + 10, drawing.short(most), "tick", "end"))
    body.append(text(frame.left - 7, counts.bottom, "films", "tick", "end"))
    described = "How often the statement was right over what was stated: " + "; ".join(
        f"stated {b.confidence:.2f}, observed {b.accuracy:.2f} of {b.n:,} films" for b in held
    )
    return svg(330, 366, title, described + ".", *body)


def histogram(
    edges: Sequence[float],
    counts: Mapping[str, Sequence[float]],
    *,
    threshold: float | None = None,
    title: str = "Scores by true class",
    x_label: str = "probability of the last class",
) -> Markup:
    """One row a class, each to its own height: how many films (`counts`, one fewer than `edges`) fell into each bin."""
    row, low, high = 74 if len(counts) <= 3 else 44, float(edges[0]), float(edges[-1])
    frame = Frame(110, 36, 590, (row + 10.0) * len(counts), (low, high))
    body: list[Markup] = []
    for index, (name, values) in enumerate(counts.items()):
        bottom, most = frame.top + (row + 10) * (index + 1), max([*values, 0])
        corners = [(frame.x(low), bottom)]
        for left, right, value in zip(edges[:-1], edges[1:], values, strict=True):
            height = bottom - row * (value / most if most else 0)
            corners += [(frame.x(left), height), (frame.x(right), height)]
        corners.append((frame.x(high), bottom))
        tone = colour(index if len(counts) == 2 else 0)
        body += [path(corners, f"area {tone}", closed=True), path(corners, f"thin {tone}")]
        body.append(text(0, bottom - row / 2, clip(name, 15), "strong"))
        body.append(text(0, bottom - row / 2 + 15, f"{drawing.short(sum(values))} films", "small"))
    body.append(drawing.axes(frame, x_ticks=drawing.ticks(low, high), y_ticks=(), x_label=x_label, y_label=""))
    if threshold is not None:
        x, near = frame.x(threshold), threshold > low + 0.8 * (high - low)
        body.append(stroke(x, frame.top - 12, x, frame.bottom, "limit"))
        at = x - 6 if near else x + 6
        body.append(text(at, frame.top - 3, f"threshold {threshold:.3f}", "limit-text", "end" if near else None))
    described = "; ".join(f"{name}: {drawing.short(sum(values))} films" for name, values in counts.items())
    return svg(720, frame.bottom + 44, title, f"Histograms of the score, one for each true class. {described}.", *body)


def confusion_matrix(
    counts: Sequence[Sequence[int]], classes: Sequence[str], *, title: str = "Confusion matrix"
) -> Markup:
    """Films of each true class (row) by the class they were given (column); shades are shares of the row."""
    k = len(classes)
    cell = min(104.0, 560.0 / max(k, 1))
    room = 8.6 * min(max((len(name) for name in classes), default=1), 14) + 16
    body, said = [text(room, 42, "given class", "label"), text(0, 42, "true class", "label")], []
    for j, name in enumerate(classes):
        body.append(text(room + cell * (j + 0.5), 62, clip(name, max(2, int(cell / 7))), "strong", "middle"))
    for i, row in enumerate(counts):
        y, total = 70 + cell * i, sum(row)
        body.append(text(room - 9, y + cell / 2 + 4, clip(classes[i], 14), "strong", "end"))
        said.append(f"of {total:,} {classes[i]}, {row[i]:,} were given {classes[i]}")
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            tip = f"{count:,} of {total:,} {classes[i]} were given {classes[j]}"
            body += _cell(room + cell * j, y, cell, count, share, i == j, tip)
    return svg(room + cell * k + 4, 74 + cell * k, title, "; ".join(said) + ".", *body)


def metric_bars(metrics: Mapping[str, Metric], *, title: str = "Measured, with 95 % intervals") -> Markup:
    """One row a metric: a bar to its value and a whisker over its interval, on 0..1."""
    known = {name: m for name, m in metrics.items() if math.isfinite(m.value)}
    frame = Frame(140, 36, 270, 30.0 * max(len(known), 1))
    body = [stroke(frame.x(v), frame.top, frame.x(v), frame.bottom, "grid") for v, _ in UNIT]
    body.append(drawing.axes(frame, x_ticks=UNIT, y_ticks=(), x_label="", y_label=""))
    said = []
    for index, (name, m) in enumerate(known.items()):
        y, tone = frame.top + 30 * index + 15, "note" if name in LOWER_IS_BETTER else "c0"
        bounds = interval(m)
        body.append(text(0, y + 4, METRIC_NAMES.get(name, clip(name, 20)), "strong"))
        body.append(box(frame.left, y - 7, frame.x(min(m.value, 1.0)) - frame.left, 14, f"area {tone}"))
        if _has_interval(m):
            low, high = (frame.x(min(max(at, 0.0), 1.0)) for at in (m.low, m.high))
            body.append(stroke(low, y, high, y, f"line {tone}"))
            body += [stroke(at, y - 5, at, y + 5, f"line {tone}") for at in (low, high)]
        body.append(tag("circle", cx=frame.x(min(m.value, 1.0)), cy=y, r=3.5, class_=f"dot {tone}"))
        body.append(text(frame.right + 14, y + 4, f"{m.value:.3f}", "strong"))
        body.append(text(frame.right + 58, y + 4, bounds, "tick"))
        said.append(f"{METRIC_NAMES.get(name, name)} {m.value:.3f}, {bounds}")
    return svg(564, frame.bottom + 26, title, "; ".join(said) + ".", *body)


def interval(metric: Metric) -> str:
    """The bounds in words."""
    return f"{metric.low:.3f} to {metric.high:.3f}" if _has_interval(metric) else "no interval"


def _chart(
    frame: Frame,
    curves: Sequence[tuple[str, drawing.Floats, drawing.Floats]],
    y_ticks: drawing.Ticks,
    title: str,
    x_label: str,
    y_label: str,
    limit: float | None,
    limit_text: str,
    marks: Sequence[Mark],
    step: bool,
) -> Markup:
    body = [
        drawing.axes(frame, x_ticks=drawing.ticks(*frame.x_range, 8), y_ticks=y_ticks, x_label=x_label, y_label=y_label)
    ]
    body += _marks(frame, marks)
    if limit is not None:
        body.append(stroke(frame.left, frame.y(limit), frame.right, frame.y(limit), "limit"))
        body.append(text(frame.left + 6, frame.y(limit) - 6, limit_text, "limit-text"))
    for index, (_, xs, ys) in enumerate(curves):
        points = [(frame.x(x), frame.y(y)) for x, y in zip(xs, ys, strict=True)]
        if points:
            body.append(path(_stairs(points) if step else points, f"line {colour(index)}"))
        if len(points) <= DOTS:
            body += [tag("circle", cx=x, cy=y, r=3.0, class_=f"dot {colour(index)}") for x, y in points]
    if len(curves) > 1:
        body.append(drawing.legend([name for name, _, _ in curves], frame.right, 15))
    described = [f"{y_label} over {x_label}"] + [f"{mark.text} at {drawing.short(mark.x)}" for mark in marks]
    return svg(720, frame.bottom + 44, title, "; ".join(described) + ".", *body)


def _wide(
    curves: Sequence[tuple[str, drawing.Floats, drawing.Floats]], marks: Sequence[Mark], y_range: tuple[float, float]
) -> Frame:
    xs = [float(x) for _, values, _ in curves for x in values] + [mark.x for mark in marks]
    x_range = (min(xs), max(xs)) if xs else (0.0, 1.0)
    if 0 < x_range[0] < 0.1 * x_range[1]:
        x_range = (0.0, x_range[1])
    if x_range[0] == x_range[1]:
        x_range = (x_range[0], x_range[0] + 1)
    return Frame(48, 56 + 16.0 * len(marks), 662, 200, x_range, y_range)


def _marks(frame: Frame, marks: Sequence[Mark]) -> list[Markup]:
    """Upright lines, each with its own row of text above the plot, later ones higher, so that no text is crossed."""
    parts: list[Markup] = []
    ordered = sorted(marks, key=lambda mark: mark.x)
    if len(ordered) == 2:
        left, right = frame.x(ordered[0].x), frame.x(ordered[1].x)
        parts.append(box(left, frame.top, right - left, frame.height, "band c1"))
    for row, mark in enumerate(ordered):
        x, y = frame.x(mark.x), frame.top - 5 - 16 * row
        leftwards = x > frame.left + frame.width * (0.75 if row else 0.3)
        parts.append(stroke(x, y - 10, x, frame.bottom, f"mark {mark.tone}"))
        at, anchor = (x - 6, "end") if leftwards else (x + 6, None)
        parts.append(text(at, y, mark.text, f"strong said {mark.tone}", anchor))
    return parts


def _keys_inside(frame: Frame, names: Sequence[str]) -> list[Markup]:
    parts, shown = [], list(enumerate(names))[:10]
    top = frame.bottom - 14 * len(shown)
    for row, (index, name) in enumerate(shown):
        y = top + 14 * row
        parts.append(stroke(frame.right - 118, y - 4, frame.right - 96, y - 4, f"line {colour(index)}"))
        parts.append(text(frame.right - 90, y, clip(name, 14), "small"))
    return parts


def _cell(x: float, y: float, size: float, count: int, share: float, right: bool, tip: str) -> list[Markup]:
    fill = 0.06 + 0.5 * share if share else 0.03
    kind = "cell" if right else "cell wrong"
    shade = tag("rect", tag("title", tip), x=x, y=y, width=size, height=size, class_=kind, fill_opacity=fill)
    middle = y + size / 2
    if size < 34:
        return [shade]
    if size < 64:
        return [shade, text(x + size / 2, middle + 4, f"{count:,}", "", "middle")]
    shown = text(x + size / 2, middle + 2, f"{count:,}", "name", "middle")
    return [shade, shown, text(x + size / 2, middle + 20, f"{share:.1%}".replace("%", " %"), "small", "middle")]


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    stairs = [points[0]]
    for (_, before), (x, y) in pairwise(points):
        stairs += [(x, before), (x, y)]
    return stairs


def _range(values: Sequence[float], limit: float | None) -> tuple[float, float]:
    """The values' range and the limit, with a little air."""
    held = [*values, *([] if limit is None else [limit])] or [0.0, 1.0]
    low, high = min(held), max(held)
    air = (high - low) * 0.06 or abs(high) * 0.06 or 0.5
    return (0.0 if 0 <= low < air else low - air), high + air


def _has_interval(metric: Metric) -> bool:
    return math.isfinite(metric.low) and math.isfinite(metric.high)
