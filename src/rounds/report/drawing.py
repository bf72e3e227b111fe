"""SVG text by hand: elements, scales, round ticks and axes. Colours come from the page's CSS variables, so that one
drawing serves a light page, a dark one and paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

Floats = npt.NDArray[np.float64]
Ticks = Sequence[tuple[float, str]]
FIGURE_CSS = Path(__file__).parent / "templates" / "figure.css"
COLOURS = 6
POINTS = 800
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Line:
    """One named curve: x and y of the same length, in data units."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Mark:
    """A named place on the x axis, in data units; `tone` is note, good or bad."""

    x: float
    text: str
    tone: str = "note"


@dataclass(frozen=True)
class Frame:
    """The plot's box in the drawing (pixels) and the ranges of data that it shows; y grows upwards."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / ((high - low) or 1.0) * self.width

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / ((high - low) or 1.0) * self.height


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """One element; text and attributes are escaped, `stroke_width` becomes stroke-width, `class_` class, None drops."""
    parts = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
        if value is not None
    ]
    inner = Markup("").join(escape(child) for child in children)
    head = Markup("<{}").format(name) + Markup("").join(parts)
    return head + (Markup(">{}</{}>").format(inner, name) if children else Markup("/>"))


def svg(width: float, height: float, title: str, description: str, *body: Markup, heading: bool = True) -> Markup:
    """A whole drawing with its title (also shown at its top, unless `heading` is off) and its description in words."""
    shown = [text(0, 15, title, "heading")] if heading else []
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *shown,
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_plain(width)} {_plain(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=f"{title}. {description}",
        class_="fig",
    )


def standalone(drawing: Markup) -> Markup:
    """The drawing with its own style, for a file that no page surrounds."""
    head, inner = drawing.split("<title>", 1)
    style = tag("style", FIGURE_CSS.read_text("utf-8"))
    return head + style + Markup("\n<title>") + inner + Markup("\n")


def text(x: float, y: float, content: object, kind: str = "", anchor: str | None = None) -> Markup:
    return tag("text", content, x=x, y=y, class_=kind or None, text_anchor=anchor)


def stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def box(
    x: float, y: float, width: float, height: float, kind: str, *, rx: float | None = None, tip: str = ""
) -> Markup:
    inside = [tag("title", tip)] if tip else []
    return tag("rect", *inside, x=x, y=y, width=max(width, 0.0), height=max(height, 0.0), rx=rx, class_=kind)


def path(points: Sequence[tuple[float, float]], kind: str, *, closed: bool = False) -> Markup:
    """Straight lines through the points (pixels)."""
    steps = "L".join(f"{_plain(x)} {_plain(y)}" for x, y in points)
    return tag("path", d=f"M{steps}{'Z' if closed else ''}", class_=kind)


def colour(index: int) -> str:
    """The class of the index-th colour of the colour-blind safe palette; every series has its own dashes as well."""
    return f"c{index % COLOURS}"


def ticks(low: float, high: float, count: int = 5) -> Ticks:
    """About `count` round values (1, 2, 2.5 or 5 times a power of ten) inside [low, high], with their texts."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return [(low, short(low))] if math.isfinite(low) else []
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if power * m >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (1 if round(step / power, 1) == 2.5 else 0))
    return [(i * step, f"{i * step + 0.0:,.{digits}f}") for i in range(first, last + 1)]


def powers(low: float, high: float, count: int = 5) -> Ticks:
    """Ticks on an axis of base-10 logarithms, written as powers of ten."""
    step = max(1, math.ceil((math.floor(high) - math.ceil(low)) / max(count, 1)))
    first = math.ceil(low / step) * step
    return [(float(i), power_text(i)) for i in range(first, math.floor(high) + 1, step)]


def power_text(exponent: int) -> str:
    """10 to the exponent as people write it: 0.1, 1, 10, 100, then 10³ and on."""
    return f"{10.0**exponent:g}" if -2 <= exponent <= 2 else f"10{str(exponent).translate(SUPERSCRIPT)}"


def axes(frame: Frame, *, x_ticks: Ticks, y_ticks: Ticks, x_label: str, y_label: str) -> Markup:
    """Grid lines, tick texts and labels; the y label lies flat above the axis, where it is read without turning."""
    parts = [stroke(frame.left, frame.y(v), frame.right, frame.y(v), "grid") for v, _ in y_ticks]
    parts += [text(frame.left - 7, frame.y(v) + 4, name, "tick", "end") for v, name in y_ticks]
    parts += [stroke(frame.x(v), frame.bottom, frame.x(v), frame.bottom + 4, "axis") for v, _ in x_ticks]
    parts += [text(frame.x(v), frame.bottom + 17, name, "tick", "middle") for v, name in x_ticks]
    parts.append(stroke(frame.left, frame.bottom, frame.right, frame.bottom, "axis"))
    parts.append(text(frame.right, frame.bottom + 34, x_label, "label", "end"))
    parts.append(text(0, frame.top - 10, y_label, "label"))
    return Markup("").join(parts)


def legend(names: Sequence[str], right: float, y: float) -> Markup:
    """Keys of the series, written leftwards from `right`."""
    parts, x = [], right
    for index, name in reversed(list(enumerate(names))):
        x -= 7 * len(clip(name, 18)) + 6
        parts.append(text(x, y, clip(name, 18), "key"))
        parts.append(stroke(x - 24, y - 4, x - 5, y - 4, f"line {colour(index)}"))
        x -= 38
    return Markup("").join(parts)


def thin(x: Sequence[float], y: Sequence[float], points: int = POINTS) -> tuple[Floats, Floats]:
    """At most about `points` of a long curve: of each stretch the lowest and the highest, so that no peak is lost."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    keep = np.isfinite(xs) & ~np.isnan(ys)
    xs, ys = xs[keep], ys[keep]
    if len(xs) <= points:
        return xs, ys
    chosen = {0, len(xs) - 1}
    for part in np.array_split(np.arange(len(xs)), points // 2):
        chosen |= {int(part[ys[part].argmin()]), int(part[ys[part].argmax()])}
    order = np.array(sorted(chosen))
    return xs[order], ys[order]


def clip(name: str, length: int = 16) -> str:
    """The name, or its beginning and an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def short(value: float) -> str:
    """A number as a reader wants it: thousands apart, three figures after a small one."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _plain(value: object) -> str:
    if not isinstance(value, float | np.floating):
        return str(value)
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written
