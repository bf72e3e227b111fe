"""What the checks of a data set found, as one self-contained page with the films side by side."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rounds.core.records import DatasetVersion
from rounds.data.findings import SEVERITIES, Finding, Survey
from rounds.data.survey import MOVED
from rounds.report.pages import render
from rounds.report.shifts import named, p_text, shift_chart

SHOWN_PAIRS = 24
SHOWN_FILMS = 36
LISTED = 500

HEADINGS = {
    "copies_across_splits": "The same film in two splits",
    "near_copies_across_splits": "Near copies in two splits",
    "subjects_across_splits": "One subject in two splits",
    "contradictory_labels": "One picture, two labels",
    "copies": "Films that occur more than once",
    "near_copies": "Near copies",
    "unsearched": "Comparisons that were left out",
    "blank": "Films that show nothing",
    "inverted": "Negatives",
    "mostly_border": "Mostly border",
    "odd_shape": "Odd shapes",
    "odd_size": "Odd sizes",
    "class_absent": "Classes that are absent",
    "class_small": "Classes with few films",
    "class_imbalance": "Classes of very different size",
    "shift": "Splits that differ",
    "labels_in_doubt": "Labels worth a look",
}
MEANINGS = {
    "copies_across_splits": "What is measured on a film that was learned by heart says nothing about new films. "
    "rounds train refuses this data set; rounds data prepare --repair makes one without these pairs.",
    "near_copies_across_splits": "The pixels differ by encoding, size, a shift of gray or a mirror only: to a network "
    "they are the same film. rounds train refuses this data set; rounds data prepare --repair makes one without them.",
    "subjects_across_splits": "Films of one subject resemble each other more than those of two. rounds train refuses "
    "this data set; rounds data prepare --repair makes one without these pairs.",
    "contradictory_labels": "One of the two labels is wrong; no rule can tell which. --repair leaves both films out.",
    "copies": "Each counts as often as it occurs. They are in one split, so nothing leaks.",
    "near_copies": "Each counts as often as it occurs. They are in one split, so nothing leaks.",
    "labels_in_doubt": "A cheap classifier, cross-validated by subject, finds another class likely. It is no judge: a "
    "hard film is doubted as a wrong label is. Nothing was changed.",
    "shift": "The measures that the watch uses, compared within classes, one film a subject; p-values are corrected "
    "for the number of questions.",
}


class Shown(NamedTuple):
    """A finding with the pictures of its first pairs and films."""

    finding: Finding
    heading: str
    meaning: str
    pairs: list[tuple[str, str, Mapping[str, Any]]]
    films: list[tuple[str, Mapping[str, Any]]]


def check_page(survey: Survey, dataset: DatasetVersion, picture: Callable[[str], bytes]) -> str:
    """The page; `picture` gives the PNG of a film by name, small enough to be shown."""
    shown = [_shown(finding, picture) for finding in survey.findings]
    chart = shift_chart(survey.shifts, title="Splits against train", reach=MOVED) if survey.shifts else None
    return render(
        "check.html.j2",
        survey=survey,
        dataset=dataset,
        counts=survey.counts(),
        lead=_lead(survey),
        groups=[(kind, [one for one in shown if one.finding.severity == kind]) for kind in SEVERITIES],
        chart=chart,
        shifts=[(named(row), row, p_text(row["p"]), p_text(row["p_corrected"])) for row in survey.shifts],
        listed=LISTED,
    )


def _shown(finding: Finding, picture: Callable[[str], bytes]) -> Shown:
    def source(name: str) -> str:
        return f"data:image/png;base64,{base64.b64encode(picture(name)).decode()}"

    pairs = [(source(pair["files"][0]), source(pair["files"][1]), pair) for pair in finding.pairs[:SHOWN_PAIRS]]
    films = [] if pairs else [(source(film["file"]), film) for film in finding.films[:SHOWN_FILMS]]
    return Shown(finding, HEADINGS.get(finding.kind, finding.kind), MEANINGS.get(finding.kind, ""), pairs, films)


def _lead(survey: Survey) -> str:
    counts = survey.counts()
    if counts["leak"]:
        return f"{len(survey.leaks):,} pairs of films leak between the splits: this data set is not trained on."
    if counts["fault"]:
        return f"Nothing leaks, but {counts['fault']} things are wrong and should be mended."
    return "Nothing leaks and nothing is wrong." + (" Some things are worth a look." if counts["note"] else "")
