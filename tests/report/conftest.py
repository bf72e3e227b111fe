"""Records with hostile names, and the two checks that every page must pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rounds.core.records import Bundle, Calibration, EvalReport, Metric, Parents, Scoring
from rounds.core.specs import ImagingSpec

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = '<script>alert("x")</script>'


class Balance(HTMLParser):
    """Every element that opens also closes, in order; collects element names, attributes and headers of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


@pytest.fixture
def whole() -> Callable[[str], Balance]:
    """Checks that a page is balanced, self-contained, runs no script, and that its pictures have words."""

    def check(page: str) -> Balance:
        assert page.startswith("<!doctype html>")
        parsed = Balance()
        parsed.feed(page)
        parsed.close()
        assert parsed.open == []
        names = [name for name, _ in parsed.seen]
        assert not {"script", "link", "iframe", "object"} & set(names)
        policy = next(a["content"] for name, a in parsed.seen if a.get("http-equiv"))
        assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        assert not re.search(r"https?://", page.replace('xmlns="http://www.w3.org/2000/svg"', ""))
        assert not [a for _, a in parsed.seen if any(key.startswith("on") for key in a)]
        ids = [a["id"] for _, a in parsed.seen if "id" in a]
        assert len(ids) == len(set(ids))
        assert names.count("table") == names.count("thead")
        assert all(a.get("scope") for name, a in parsed.seen if name == "th")
        assert all(a.get("alt") and str(a["src"]).startswith("data:image/") for n, a in parsed.seen if n == "img")
        for found in re.findall(r"<svg.*?</svg>", page, re.S):
            figure = ElementTree.fromstring(found)
            assert figure.get("role") == "img"
            assert figure.get("aria-label")
            assert figure.findtext("{http://www.w3.org/2000/svg}title")
            assert figure.findtext("{http://www.w3.org/2000/svg}desc")
        return parsed

    return check


@pytest.fixture
def bundle() -> Bundle:
    return Bundle(
        digest="ab" * 32,
        path=Path("bundles") / ("ab" * 32),
        classes=("normal", HOSTILE),
        imaging=ImagingSpec(size=64),
        calibration=Calibration(1.25, (0.0, -0.5), 0.43, (0.61, 0.72), 0.1),
        scoring=Scoring(("logit", "exposure"), (), (), ()),
        parents=Parents("cd" * 32, "run7", "ef" * 32, "65c660e"),
    )


@pytest.fixture
def report() -> EvalReport:
    curves: dict[str, Any] = {
        "roc": [{"class": HOSTILE, "auc": 0.9, "fpr": [0, 0.1, 1], "tpr": [0, 0.8, 1], "threshold": [1, 0.43, 0]}],
        "operating": {"fpr": 0.1, "tpr": 0.8, "threshold": 0.43},
        "reliability": [
            {"low": 0.0, "high": 0.5, "n": 40, "mean": 0.2, "share": 0.25, "share_low": 0.13, "share_high": 0.41},
            {"low": 0.5, "high": 1.0, "n": 60, "mean": 0.9, "share": 0.85, "share_low": 0.73, "share_high": 0.93},
        ],
        "scores": {"edges": [0.0, 0.5, 1.0], "counts": {"normal": [35, 5], HOSTILE: [12, 48]}},
        "ms": 0.21,
        "subjects": 80,
    }
    metrics = {
        "auc": Metric(0.9, 0.85, 0.94),
        "accuracy": Metric(0.83, 0.75, 0.9),
        "ece": Metric(0.04, float("nan"), float("nan")),
        "f1": Metric(float("nan"), float("nan"), float("nan")),
    }
    return EvalReport(
        "ab" * 32, "cd" * 32, "test", 100, ("normal", HOSTILE), 0.43, metrics, ((35, 5), (12, 48)), curves
    )
