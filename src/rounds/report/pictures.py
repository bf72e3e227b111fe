"""Two pictures of the house as SVG text: the loop, and which version answered when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from rounds.report import drawing
from rounds.report.drawing import Frame, box, colour, path, svg, text

STATIONS = (
    ("collect", "images, and labels", "that come later"),
    ("check", "duplicates, leaks,", "one subject, one side"),
    ("train", "Lightning, Hydra,", "tracked by MLflow"),
    ("pack", "one ONNX bundle,", "named by its content"),
    ("gate", "is it really as good?", "P(worse let in) ≤ α"),
    ("serve", "HTTP, hot swap,", "every answer kept"),
    ("watch", "has anything moved?", "P(false alarm) ≤ α"),
    ("decide", "hold, ask, cure,", "retrain, roll back"),
)
WORDS = (
    (15, 40, "training", None),
    (15, 240, "service", None),
    (668, 193, "a candidate", None),
    (82, 186, "labels,", "end"),
    (82, 202, "retrain", "end"),
)
WIDTH, HEIGHT, STEP = 150.0, 84.0, 190.0


@dataclass(frozen=True)
class Served:
    """A stretch of time in which one version answered; `end` is None while it still does."""

    version: str
    start: float
    end: float | None
    note: str = ""


def loop() -> Markup:
    """The loop: collect, check, train, pack, gate, serve, watch, decide, and back; the event log runs through it."""
    places = [(15 + STEP * min(i, 7 - i), 54.0 if i < 4 else 250.0) for i in range(8)]
    body = [box(0, 0, 750, 412, "paper", rx=12)]
    body += _tracks(places)
    for index, ((x, y), (name, first, second)) in enumerate(zip(places, STATIONS, strict=True)):
        tone = ("c0", "c2")[index >= 4]
        body.append(box(x, y, WIDTH, HEIGHT, f"station {tone}", rx=9))
        body.append(text(x + WIDTH / 2, y + 29, name, "name", "middle"))
        body.append(text(x + WIDTH / 2, y + 51, first, "tick", "middle"))
        body.append(text(x + WIDTH / 2, y + 67, second, "tick", "middle"))
    body.append(box(125, 172, 500, 44, "log", rx=6))
    body.append(text(375, 191, "the event log: who or which rule, why, on what evidence", "strong", "middle"))
    body.append(text(375, 207, "every decision can be traced, replayed and undone", "tick", "middle"))
    for x, y, word, anchor in WORDS:
        body.append(text(x, y, word, "label", anchor))
    described = (
        "Collect, check, train and pack lead to a bundle; the gate lets it serve; what serves is watched; the policy "
        "decides to hold, to ask for labels, to recalibrate, to retrain or to roll back, and the loop begins again. "
        "Every decision is written to the event log."
    )
    return svg(750, 412, "The loop", described, *body, heading=False)


def timeline(
    spans: Sequence[Served], *, title: str = "Which version answered when", x_label: str = "seconds since the start"
) -> Markup:
    """One row a version, a bar for each stretch in which it served; an open end reaches the right edge."""
    versions = list(dict.fromkeys(span.version for span in spans))
    last = max((value for span in spans for value in (span.start, span.end or span.start)), default=1.0)
    first = min((span.start for span in spans), default=0.0)
    high = last + (last - first or 1.0) * 0.08
    frame = Frame(64, 36, 640, 42.0 * max(len(versions), 1), (first, high))
    ticks = drawing.ticks(first, high, 8)
    body = [drawing.axes(frame, x_ticks=ticks, y_ticks=(), x_label=x_label, y_label="")]
    for row, version in enumerate(versions):
        base, free = frame.top + 42 * row, 0.0
        body.append(text(0, base + 34, drawing.clip(version, 9), "strong"))
        for span in (span for span in spans if span.version == version):
            left, right = frame.x(span.start), frame.x(high if span.end is None else span.end)
            body.append(box(left, base + 22, max(right - left, 2.0), 16, f"bar {colour(row)}", rx=3, tip=_said(span)))
            start = min(left, frame.right - 6.2 * len(span.note))
            if span.note and start >= free:
                body.append(text(start, base + 16, span.note, "small"))
                free = start + 6.2 * len(span.note) + 8
    return svg(720, frame.bottom + 44, title, "; ".join(map(_said, spans)) + ".", *body)


def _said(span: Served) -> str:
    end = "on" if span.end is None else f"to {drawing.short(span.end)}"
    return f"{span.version} from {drawing.short(span.start)} {end}" + (f" ({span.note})" if span.note else "")


def _tracks(places: Sequence[tuple[float, float]]) -> list[Markup]:
    """The arrows: around the loop, and the two short ways that spare a retrain."""
    parts: list[Markup] = []
    for (x, y), (after, _) in pairwise(places[:4]):
        parts += _arrow([(x + WIDTH, y + HEIGHT / 2), (after, y + HEIGHT / 2)], "track", "note")
    for (x, y), (after, _) in pairwise(places[4:]):
        parts += _arrow([(x, y + HEIGHT / 2), (after + WIDTH, y + HEIGHT / 2)], "track", "note")
    (pack_x, pack_y), (gate_x, gate_y) = places[3], places[4]
    parts += _arrow([(pack_x + WIDTH / 2, pack_y + HEIGHT), (gate_x + WIDTH / 2, gate_y)], "track", "note")
    (home_x, home_y), (end_x, end_y) = places[0], places[7]
    parts += _arrow([(end_x + WIDTH / 2, end_y), (home_x + WIDTH / 2, home_y + HEIGHT)], "track", "note")
    below = end_y + HEIGHT
    for station, depth, name, tone in ((5, 26.0, "roll back", "c1"), (4, 58.0, "recalibrate", "c3")):
        start, goal = end_x + (104 if depth < 40 else 46), places[station][0] + WIDTH / 2
        corners = [(start, below), (start, below + depth), (goal, below + depth), (goal, below)]
        parts += _arrow(corners, f"back {tone}", tone)
        parts.append(text((start + goal) / 2, below + depth - 7, name, f"strong said {tone}", "middle"))
    return parts


def _arrow(corners: Sequence[tuple[float, float]], kind: str, tone: str) -> list[Markup]:
    """A line through the corners that ends in a head; the line stops short of it."""
    (x0, y0), (x1, y1) = corners[-2], corners[-1]
    length = max(abs(x1 - x0), abs(y1 - y0)) or 1.0
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    back = (x1 - 10 * dx, y1 - 10 * dy)
    head = [(x1, y1), (back[0] - 5 * dy, back[1] + 5 * dx), (back[0] + 5 * dy, back[1] - 5 * dx)]
    return [path([*corners[:-1], back], kind), path(head, f"head {tone}", closed=True)]
