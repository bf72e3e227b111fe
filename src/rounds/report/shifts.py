"""How two groups of films differ, measure by measure: one row each, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rounds.report import drawing
from rounds.report.drawing import Frame, box, clip, stroke, svg, tag, text

_ROW = 24.0
_TICKS = ((0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1"))


def shift_chart(
    rows: Sequence[Mapping[str, Any]], *, title: str, reach: float, x_label: str = "share of films above those before"
) -> Markup:
    """Rows as `data.survey.compare` makes them: the probability that a film of the one is above a film of the other,
    with its 95 % interval, over the band (half a width of `reach`) in which nothing is called moved."""
    known = [row for row in rows if row["superiority"] is not None]
    frame = Frame(180, 36, 330, _ROW * max(len(known), 1))
    # the paper lies under the title too: such a drawing is also a file of its own, on whatever colour
    body = [box(0, 0, 640, frame.bottom + 48, "paper"), text(0, 15, title, "heading")]
    body += [
        box(frame.x(0.5 - reach), frame.top, frame.x(0.5 + reach) - frame.x(0.5 - reach), frame.height, "band note")
    ]
    body += [stroke(frame.x(v), frame.top, frame.x(v), frame.bottom, "grid") for v, _ in _TICKS]
    body.append(drawing.axes(frame, x_ticks=_TICKS, y_ticks=(), x_label=x_label, y_label=""))
    said = []
    for index, row in enumerate(known):
        y, tone = frame.top + _ROW * (index + 0.5), "c1" if row["moved"] else "c0"
        body.append(text(0, y + 4, clip(named(row), 26), "strong" if row["moved"] else ""))
        body.append(stroke(frame.x(row["low"]), y, frame.x(row["high"]), y, f"mark {tone}"))
        body.append(tag("circle", cx=frame.x(row["superiority"]), cy=y, r=4.0, class_=f"dot {tone}"))
        body.append(text(frame.right + 14, y + 4, f"{row['size']:+.2f} spreads", "tick"))
        said.append(f"{named(row)} {row['superiority']:.2f}, {row['low']:.2f} to {row['high']:.2f}")
    return svg(640, frame.bottom + 48, title, "; ".join(said) + ".", *body, heading=False)


def named(row: Mapping[str, Any]) -> str:
    """The measure, after its split where there is one."""
    return f"{row['split']}: {row['measure']}" if row.get("split") else str(row["measure"])


def p_text(p: float) -> str:
    """A p-value as readers write it."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
