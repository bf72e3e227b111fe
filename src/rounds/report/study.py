"""The page of a study: how the search went, what each setting did, and what the best one gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from rounds.report import drawing, figures
from rounds.report.drawing import Frame, Line, svg, tag, text
from rounds.report.pages import render

_DATA = "data="
_QUIET = "train.progress="


def study_page(found: Mapping[str, Any]) -> str:
    """One self-contained page of the answer of `rounds tune`: keys study, name, data, base, axes, trials, best,
    default, difference."""
    judged = [trial for trial in found["trials"] if trial["value"] is not None]
    return render(
        "study.html.j2",
        found=found,
        judged=judged,
        counts={state: sum(t["state"] == state for t in found["trials"]) for state in ("complete", "pruned", "fail")},
        progress=_progress(judged),
        curves=_curves(judged),
        scatters=[_scatter(axis, judged, found["best"]) for axis in found["axes"]],
        command=train_command(found),
        ordered=sorted(judged, key=lambda trial: -trial["value"]),
    )


def train_command(found: Mapping[str, Any]) -> str:
    """What to type to train with the best settings."""
    base = [text for text in found["base"] if not text.startswith((_DATA, _QUIET))]
    return " ".join(["rounds train --data", found["name"], *base, *found["best"]["overrides"]])


def _progress(judged: Sequence[Mapping[str, Any]]) -> Markup:
    numbers, values = [trial["number"] for trial in judged], [trial["value"] for trial in judged]
    best = list(accumulate(values, max))
    lines = [Line("each trial", numbers, values), Line("best so far", numbers, best)]
    return figures.line_chart(lines, title="The search", x_label="trial", y_label="stressed validation AUC")


def _curves(judged: Sequence[Mapping[str, Any]]) -> Markup:
    """The epochs of every trial; those that fell behind end early."""
    frame = Frame(48, 52, 662, 200, (1, max(len(trial["curve"]) for trial in judged)), _range(judged, "curve"))
    labels = {"x_label": "epoch", "y_label": "stressed validation AUC"}
    body = [
        drawing.axes(frame, x_ticks=drawing.ticks(*frame.x_range, 8), y_ticks=drawing.ticks(*frame.y_range), **labels)
    ]
    for trial in judged:
        points = [(frame.x(epoch), frame.y(value)) for epoch, value in enumerate(trial["curve"], 1)]
        body.append(drawing.path(points, f"thin {'c1' if trial['state'] == 'pruned' else 'c0'}"))
    return svg(
        720, frame.bottom + 44, "Epoch by epoch (ended early in orange)", "Each trial's AUC after each epoch.", *body
    )


def _scatter(axis: Mapping[str, Any], judged: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> Markup:
    """The value of each trial over one setting."""
    name, options = axis["name"], list(axis["options"])
    places = [(place, trial) for trial in judged if (place := _place(axis, trial)) is not None]
    x_range = (-0.5, len(options) - 0.5) if options else (_scale(axis, axis["low"]), _scale(axis, axis["high"]))
    frame = Frame(48, 52, 270, 190, x_range, _range(judged, "value"))
    ticks = list(enumerate(options)) if options else _ticks(axis, x_range)
    marks = drawing.axes(
        frame,
        x_ticks=[(float(x), drawing.clip(str(t), 10)) for x, t in ticks],
        y_ticks=drawing.ticks(*frame.y_range, 4),
        x_label=name,
        y_label="stressed AUC",
    )
    dots = [
        tag(
            "circle",
            tag("title", f"trial {trial['number']}: {trial['value']:.4f}"),
            cx=frame.x(x),
            cy=frame.y(trial["value"]),
            r=6.0 if trial["number"] == best["number"] else 3.5,
            class_=f"dot {'c1' if trial['state'] == 'pruned' else 'c0'}",
        )
        for x, trial in places
    ]
    best_text = [
        text(frame.x(x) + 9, frame.y(t["value"]) + 4, "best", "strong")
        for x, t in places
        if t["number"] == best["number"]
    ]
    return svg(330, frame.bottom + 44, name, f"Stressed AUC of each trial over {name}.", marks, *dots, *best_text)


def _place(axis: Mapping[str, Any], trial: Mapping[str, Any]) -> float | None:
    chosen = dict(text.split("=", 1) for text in trial["overrides"])
    if axis["name"] not in chosen:
        return None
    value = chosen[axis["name"]]
    return float(list(axis["options"]).index(value)) if axis["options"] else _scale(axis, float(value))


def _scale(axis: Mapping[str, Any], value: float) -> float:
    return math.log10(value) if axis["log"] else value


def _ticks(axis: Mapping[str, Any], x_range: tuple[float, float]) -> drawing.Ticks:
    if not axis["log"]:
        return drawing.ticks(*x_range, 4)
    return [
        (_scale(axis, end), f"{end:g}") for end in (axis["low"], math.sqrt(axis["low"] * axis["high"]), axis["high"])
    ]


def _range(judged: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    values = [value for trial in judged for value in (trial[key] if key == "curve" else [trial[key]])]
    air = (max(values) - min(values)) * 0.06 or 0.01
    return min(values) - air, max(values) + air
