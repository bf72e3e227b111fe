"""Small pictures side by side: the precision-recall curve, and what each kind of harm does to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rounds.report import drawing
from rounds.report.drawing import Frame, colour, path, stroke, svg, tag, text

UNIT = ((0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1"))
LABELS = {
    "gamma": "gamma: darker above 1",
    "blur": "blur, pixels of 28",
    "noise": "noise, of full range",
    "contrast": "contrast, times",
    "brightness": "brightness added",
    "shift": "shift, of the side",
    "rotate": "rotation, degrees",
}
SHOWN = (("auc", "AUC"), ("accuracy", "accuracy"))
WIDE, TALL, COLUMNS = 240.0, 196.0, 3


def precision_recall(
    curve: Mapping[str, Any], *, point: tuple[float, float] | None = None, title: str = "Precision and recall"
) -> Markup:
    """Precision (y) over recall (x) in steps; dashed what chance gives; `point` is the operating point (x, y)."""
    frame = Frame(44, 52, 270, 270)
    body = [drawing.axes(frame, x_ticks=UNIT, y_ticks=UNIT, x_label="recall (sensitivity)", y_label="precision")]
    chance = frame.y(float(curve["prevalence"]))
    body.append(stroke(frame.x(0), chance, frame.x(1), chance, "diagonal"))
    xs, ys = drawing.thin(curve["recall"], curve["precision"], 400)
    body.append(path([(frame.x(x), frame.y(y)) for x, y in zip(xs, ys, strict=True)], "line c0"))
    described = f"Precision over recall at every threshold; chance gives {float(curve['prevalence']):.3f}."
    if point is not None:
        x, y = frame.x(point[0]), frame.y(point[1])
        body.append(tag("circle", cx=x, cy=y, r=6.0, class_="dot c1"))
        for row, (said, kind) in enumerate(
            (("operating point", "strong"), (f"recall {point[0]:.3f}", "small"), (f"precision {point[1]:.3f}", "small"))
        ):
            body.append(text(x - 12, y + 20 + 15 * row, said, kind, "end"))
        described += f" At the operating point recall is {point[0]:.3f} and precision {point[1]:.3f}."
    return svg(330, 366, title, described, *body)


def harm(found: Mapping[str, Any], *, title: str = "Under harm done on purpose") -> Markup:
    """One panel a kind: AUC and accuracy over severity, 95 % intervals as bands, the untouched films at the line."""
    kinds = list(found["curves"])
    values = [
        m["low"] for k in kinds for p in found["curves"][k]["points"] for m in (p.get(name) for name, _ in SHOWN) if m
    ]
    low = max(0.0, min([*values, 0.9]) - 0.02)
    rows = -(-len(kinds) // COLUMNS)
    body, said = [_key(690)], []
    for place, kind in enumerate(kinds):
        left, top = WIDE * (place % COLUMNS), 40 + TALL * (place // COLUMNS)
        body += _panel(kind, found["curves"][kind], found["clean"], left, top, low)
        ends = [p for p in found["curves"][kind]["points"] if "accuracy" in p]
        if ends:
            worst = min(ends, key=lambda p: p["accuracy"]["value"])
            said.append(f"{kind} {worst['severity']:g} leaves an accuracy of {worst['accuracy']['value']:.3f}")
    return svg(WIDE * COLUMNS, 40 + TALL * rows, title, "; ".join(said) + ".", *body)


def _key(right: float) -> Markup:
    return drawing.legend([name for _, name in SHOWN], right, 15)


def _panel(
    kind: str, curve: Mapping[str, Any], clean: Mapping[str, Any], left: float, top: float, low: float
) -> list[Markup]:
    points = sorted(
        [*curve["points"], {"severity": curve["neutral"]} | dict(clean)], key=lambda p: float(p["severity"])
    )
    xs = [float(p["severity"]) for p in points]
    frame = Frame(left + 40, top + 30, WIDE - 62, TALL - 84, (xs[0], xs[-1]), (low, 1.0))
    marks = drawing.ticks(xs[0], xs[-1], 4)
    body = [
        text(left, top + 14, LABELS.get(kind, kind), "strong"),
        drawing.axes(frame, x_ticks=marks, y_ticks=drawing.ticks(low, 1.0, 3), x_label="", y_label=""),
        stroke(frame.x(curve["neutral"]), frame.top, frame.x(curve["neutral"]), frame.bottom, "diagonal"),
    ]
    for index, (name, _) in enumerate(SHOWN):
        body += _curve(frame, [(float(p["severity"]), p[name]) for p in points if name in p], index)
    return body


def _curve(frame: Frame, points: Sequence[tuple[float, Mapping[str, float]]], index: int) -> list[Markup]:
    if not points:
        return []
    upper = [(frame.x(x), frame.y(m["high"])) for x, m in points]
    lower = [(frame.x(x), frame.y(m["low"])) for x, m in reversed(points)]
    line = [(frame.x(x), frame.y(m["value"])) for x, m in points]
    tone = colour(index)
    dots = [tag("circle", cx=x, cy=y, r=2.5, class_=f"dot {tone}") for x, y in line]
    return [path([*upper, *lower], f"band {tone}", closed=True), path(line, f"line {tone}"), *dots]
