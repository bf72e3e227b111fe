"""Elements, ticks and long curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rounds.report import drawing
from rounds.report.drawing import Frame, tag, thin, ticks


def test_an_element_escapes_its_text_and_its_attributes_and_drops_none() -> None:
    made = tag("text", "a < b & c", x=1.0, stroke_width=0.333, class_='"><script>', rx=None, y=-0.001)
    assert made == '<text x="1" stroke-width="0.33" class="&#34;&gt;&lt;script&gt;" y="0">a &lt; b &amp; c</text>'
    assert tag("line", x1=10) == '<line x1="10"/>'


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 1, 5, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 1, 4, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (0, 1640, 8, ["0", "250", "500", "750", "1,000", "1,250", "1,500"]),
        (-0.3, 0.3, 3, ["-0.2", "0.0", "0.2"]),
        (0, 10, 4, ["0.0", "2.5", "5.0", "7.5", "10.0"]),
        (3, 3, 5, ["3"]),
        (float("nan"), 1, 5, []),
    ],
)
def test_ticks_are_round(low: float, high: float, count: int, expected: list[str]) -> None:
    assert [name for _, name in ticks(low, high, count)] == expected


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6))
def test_ticks_lie_inside_the_range_ascend_and_are_told_apart(low: float, width: float) -> None:
    found = ticks(low, low + width)
    values = [value for value, _ in found]
    assert 2 <= len(values) <= 7
    assert values == sorted(values)
    assert low - 1e-6 * width <= values[0] <= values[-1] <= low + width * (1 + 1e-6)
    assert len({name for _, name in found}) == len(found)


def test_powers_of_ten_are_written_as_people_write_them() -> None:
    assert drawing.powers(-1, 8.2) == [(0.0, "1"), (2.0, "100"), (4.0, "10⁴"), (6.0, "10⁶"), (8.0, "10⁸")]
    assert [drawing.power_text(i) for i in (-3, -1, 0, 2, 12)] == ["10⁻³", "0.1", "1", "100", "10¹²"]


def test_a_long_curve_is_thinned_without_losing_its_peak_or_its_ends() -> None:
    x = np.arange(100_000, dtype=np.float64)
    y = np.sin(x / 5000)
    y[41_234] = 9.0
    xs, ys = thin(x.tolist(), y.tolist())
    assert len(xs) <= 802
    assert (xs[0], xs[-1], ys.max(), xs[ys.argmax()]) == (0.0, 99_999.0, 9.0, 41_234.0)


def test_points_that_are_no_numbers_are_left_out_of_a_curve() -> None:
    xs, ys = thin([0, 1, 2, math.inf], [1.0, math.nan, 3.0, 4.0])
    assert (xs.tolist(), ys.tolist()) == ([0, 2], [1, 3])


def test_a_frame_maps_its_ranges_to_its_box_and_survives_an_empty_one() -> None:
    frame = Frame(10, 20, 100, 50, (0, 4), (0, 2))
    assert (frame.x(0), frame.x(4), frame.y(0), frame.y(2), frame.right, frame.bottom) == (10, 110, 70, 20, 110, 70)
    assert Frame(10, 20, 100, 50, (3, 3)).x(3) == 10


def test_numbers_and_names_are_shortened_for_a_reader() -> None:
    assert [drawing.short(v) for v in (0.0, 12.0, 1234567.8, 0.12345, math.nan)] == [
        "0",
        "12",
        "1,234,568",
        "0.123",
        "–",
    ]
    assert drawing.clip("a" * 20, 5) == "aaaa…"
