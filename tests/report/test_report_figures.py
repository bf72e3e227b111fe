"""The charts: whole where they are small, by their parts where they are large."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from rounds.core.records import Metric
from rounds.report import figures, pictures
from rounds.report.drawing import Line, Mark, standalone
from rounds.report.figures import Bin
from rounds.report.pictures import Served

HOSTILE = "<script>alert(1)</script>"
NS = "{http://www.w3.org/2000/svg}"
LOOP = Path(__file__).parents[2] / "docs" / "img" / "loop.svg"


def texts(drawing: Markup) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(drawing).iter(f"{NS}text")]


def of_class(drawing: Markup, kind: str) -> list[ElementTree.Element]:
    return [node for node in ElementTree.fromstring(drawing).iter() if kind in (node.get("class") or "").split()]


DRAWN = {
    "line chart": lambda: figures.line_chart(
        [Line("a", [0, 1, 2], [3, 1, 2]), Line(HOSTILE, [0, 1, 2], [1, math.nan, 5])],
        title=HOSTILE,
        x_label="epoch",
        y_label="loss",
        limit=2.5,
        marks=[Mark(1, HOSTILE)],
        step=True,
    ),
    "empty line chart": lambda: figures.line_chart([], title="t", x_label="x", y_label="y"),
    "one point": lambda: figures.line_chart([Line("a", [3], [3])], title="t", x_label="x", y_label="y"),
    "evidence": lambda: figures.evidence_chart(
        [(20, 1.0), (40, -math.inf), (60, 99.0)], 15.8, change_at=30, alarm_at=60
    ),
    "no evidence": lambda: figures.evidence_chart([], 15.8),
    "roc": lambda: figures.roc([Line(HOSTILE, [0, 1], [0, 1]), Line("b", [0, 1], [0, 1])], point=(0.1, 0.8)),
    "reliability": lambda: figures.reliability([Bin(0.5, 0.4, 10), Bin(0.9, 0.95, 0)]),
    "no reliability": lambda: figures.reliability([]),
    "histogram": lambda: figures.histogram([0, 0.5, 1], {HOSTILE: [1, 2], "b": [0, 0]}, threshold=0.9),
    "many classes": lambda: figures.histogram([0, 0.5, 1], {str(i): [1, i] for i in range(9)}),
    "confusion": lambda: figures.confusion_matrix([[3, 1], [0, 0]], ["a", HOSTILE]),
    "large confusion": lambda: figures.confusion_matrix([[1] * 40] * 40, [f"class {i}" for i in range(40)]),
    "metrics": lambda: figures.metric_bars({"auc": Metric(0.9, 0.8, 1.0), HOSTILE: Metric(0.5, math.nan, math.nan)}),
    "no metrics": lambda: figures.metric_bars({"auc": Metric(math.nan, math.nan, math.nan)}),
    "loop": pictures.loop,
    "timeline": lambda: pictures.timeline([Served(HOSTILE, 0, 5, HOSTILE), Served("v2", 5, None)]),
    "empty timeline": lambda: pictures.timeline([]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_is_xml_with_title_description_and_no_markup_of_others(name: str) -> None:
    drawn = DRAWN[name]()
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    assert root.findtext(f"{NS}title")
    assert root.findtext(f"{NS}desc")
    assert "<script" not in drawn
    assert "nan" not in drawn.replace(HOSTILE, "")
    assert "inf" not in drawn
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    for node in root.iter(f"{NS}circle"):
        assert 0 <= float(node.get("cx", -1)) <= width
        assert 0 <= float(node.get("cy", -1)) <= height


def test_a_confusion_matrix_of_one_class_is_this_drawing() -> None:
    assert figures.confusion_matrix([[3]], ["a"]) == (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 132.6 178" width="132.6" height="178" role="img"'
        ' aria-label="Confusion matrix. of 3 a, 3 were given a." class="fig">'
        "<title>Confusion matrix</title><desc>of 3 a, 3 were given a.</desc>"
        '<text x="0" y="15" class="heading">Confusion matrix</text>'
        '<text x="24.6" y="42" class="label">given class</text><text x="0" y="42" class="label">true class</text>'
        '<text x="76.6" y="62" class="strong" text-anchor="middle">a</text>'
        '<text x="15.6" y="126" class="strong" text-anchor="end">a</text>'
        '<rect x="24.6" y="70" width="104" height="104" class="cell" fill-opacity="0.56">'
        "<title>3 of 3 a were given a</title></rect>"
        '<text x="76.6" y="124" class="name" text-anchor="middle">3</text>'
        '<text x="76.6" y="142" class="small" text-anchor="middle">100.0 %</text></svg>'
    )


def test_the_evidence_chart_says_where_the_change_began_and_how_long_the_alarm_took() -> None:
    drawn = figures.evidence_chart([(20, 1.0), (1500, 5.0), (1640, 17.0)], math.log(7e6), change_at=1500, alarm_at=1640)
    said = texts(drawn)
    assert "the change begins" in said
    assert "alarm after 140 images" in said
    assert "alarm from 7,000,000" in said
    assert [name for name in said if name.startswith("10")] == ["100", "10⁴", "10⁶", "10⁸"]
    (limit,) = of_class(drawn, "limit")
    assert limit.get("y1") == limit.get("y2")


def test_evidence_far_above_the_limit_is_cut_off_inside_the_plot() -> None:
    drawn = figures.evidence_chart([(1, 0.0), (2, 5000.0)], 15.8)
    highest = min(float(dot.get("cy", 0)) for dot in of_class(drawn, "dot"))
    axis_label = next(n for n in ElementTree.fromstring(drawn).iter(f"{NS}text") if n.text == "evidence for a change")
    assert highest > float(axis_label.get("y", 0))


def test_a_step_chart_holds_each_value_until_the_next() -> None:
    drawn = figures.line_chart([Line("a", [0, 1, 2], [0, 1, 0])], title="t", x_label="x", y_label="y", step=True)
    (curve,) = of_class(drawn, "line")
    points = [tuple(map(float, p.split())) for p in (curve.get("d") or "")[1:].split("L")]
    assert len(points) == 5
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(points))


def test_the_operating_point_stands_on_the_roc_curve_with_its_two_numbers() -> None:
    drawn = figures.roc([Line("a", [0, 0.1, 1], [0, 0.8, 1])], point=(0.1, 0.8))
    assert texts(drawn)[-3:] == ["operating point", "sensitivity 0.800", "specificity 0.900"]
    (dot,) = of_class(drawn, "dot")
    (curve,) = of_class(drawn, "line")
    assert f"{dot.get('cx')} {dot.get('cy')}" in (curve.get("d") or "")


def test_metric_bars_print_value_and_interval_and_leave_out_what_is_not_known() -> None:
    drawn = figures.metric_bars({"auc": Metric(0.9, 0.85, 0.94), "f1": Metric(math.nan, math.nan, math.nan)})
    assert texts(drawn)[-3:] == ["AUC", "0.900", "0.850 to 0.940"]
    assert "F1" not in texts(drawn)


def test_a_metric_without_an_interval_has_no_whisker_and_says_so() -> None:
    drawn = figures.metric_bars({"auc": Metric(0.9, math.nan, math.nan)})
    assert texts(drawn)[-3:] == ["AUC", "0.900", "no interval"]
    assert of_class(drawn, "line") == []
    assert len(of_class(drawn, "dot")) == 1


def test_the_timeline_gives_each_version_a_row_and_each_stretch_a_bar() -> None:
    spans = [Served("v1", 0, 60), Served("v2", 60, 90), Served("v1", 90, None, "rolled back")]
    drawn = pictures.timeline(spans)
    assert [bar.findtext(f"{NS}title") for bar in of_class(drawn, "bar")] == [
        "v1 from 0 to 60",
        "v1 from 90 on (rolled back)",
        "v2 from 60 to 90",
    ]
    assert [name for name in texts(drawn) if name.startswith("v")] == ["v1", "v2"]


def test_the_loop_names_its_eight_stations_in_order() -> None:
    named = [node.text for node in of_class(pictures.loop(), "name")]
    assert named == ["collect", "check", "train", "pack", "gate", "serve", "watch", "decide"]


def test_the_readmes_picture_is_the_one_this_code_draws() -> None:
    """Regenerate: write `standalone(loop())` to docs/img/loop.svg."""
    assert LOOP.read_text("utf-8") == standalone(pictures.loop())


def test_the_readmes_picture_is_a_whole_svg_with_its_style_and_a_white_ground() -> None:
    root = ElementTree.fromstring(LOOP.read_bytes())
    assert "--card: #ffffff" in (root.findtext(f"{NS}style") or "")
    ground = root.find(f"{NS}rect")
    assert ground is not None
    assert (ground.get("class"), ground.get("width"), ground.get("height")) == ("paper", "750", "412")
