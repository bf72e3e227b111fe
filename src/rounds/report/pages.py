"""The frame of every page: templates with escaping on, the style inline, and numbers as a reader wants them."""

from __future__ import annotations

import math
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

MISSING = "not measured"
THIN = "\u202f"


@cache
def environment() -> Environment:
    """The templates of this room; everything that is put into them is escaped unless it is Markup of ours."""
    made = Environment(
        loader=PackageLoader("rounds.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "count": count, "seconds": seconds, "decimal": decimal, "moment": moment}
    made.globals |= {"rounds_version": _version()}
    return made


def render(template: str, **values: Any) -> str:
    """One whole page as text."""
    return environment().get_template(template).render(**values)


def percent(value: float | None) -> str:
    """A share as per cent with one decimal."""
    return MISSING if _absent(value) else f"{100 * float(value or 0):.1f}{THIN}%"


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    return MISSING if _absent(value) else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A duration: milliseconds below a second, minutes from two on."""
    if value is None or _absent(value):
        return MISSING
    if value < 1:
        return f"{value * 1000:.0f}{THIN}ms"
    if value < 120:
        return f"{value:.1f}{THIN}s"
    whole = round(value)
    return f"{whole // 60}{THIN}min {whole % 60:02d}{THIN}s"


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals."""
    return MISSING if _absent(value) else f"{value:.{digits}f}"


def moment(at: object) -> str:
    """RFC 3339 text (or a datetime) to the second, as a reader wants it."""
    return str(at).replace("T", " ")[:19]


def _absent(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def _version() -> str:
    try:
        return version("rounds")
    except PackageNotFoundError:
        return ""
