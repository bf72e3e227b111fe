"""The quantitative part of a model card: what was measured, by data set, slice, harm and other bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rounds.core.records import Metric
from rounds.report import figures, panels
from rounds.report.cards import Block, Figure, Section, Table, Text, listed
from rounds.report.evaluation import MANY_MEANINGS, MEANINGS
from rounds.report.forest import forest
from rounds.report.pages import count, decimal, moment, percent


def measured(facts: Mapping[str, Any]) -> Iterator[Section]:
    """The sections on every data set, on harm, and against other bundles."""
    if not facts["evaluations"]:
        ref = facts["version"] or facts["bundle"][:12]
        yield Section("Quantitative analyses", [Text(f"None yet: rounds evaluate {ref} --data NAME measures it.")])
    else:
        yield Section(
            "Quantitative analyses",
            [
                Text(
                    "Every value stands with its 95 % interval over subjects: had other people of the same kind been "
                    "filmed, values would have come out a little different. An interval speaks for films like "
                    "those that "
                    "were measured and for no others."
                )
            ],
        )
    for one in facts["evaluations"]:
        yield Section(where(one), list(_results(one)), 3)
        if one["slices"]:
            yield Section(f"Slices of {where(one)}", list(_slices(one)), 3)
    if facts["robustness"]:
        yield Section("Under harm done on purpose", list(_robust(facts["robustness"])), 3)
    if facts["comparisons"]:
        yield Section("Against other bundles", list(_compared(facts["comparisons"])), 3)
    if facts["variant_of"]:
        yield Section("Against the bundle that it came of", [Text(_variant(facts["variant_of"]))], 3)


def where(one: Mapping[str, Any]) -> str:
    """The data set and split of a report."""
    return f"{one['name'] or one['data'][:12]}, {one['split']}"


def _results(one: Mapping[str, Any]) -> Iterator[Block]:
    meanings = MEANINGS | (MANY_MEANINGS if len(one["classes"]) > 2 else {})
    metrics = one["metrics"]
    rows = [
        [figures.METRIC_NAMES.get(name, name), decimal(m["value"]), bounds(m), meanings.get(name, "")]
        for name, m in metrics.items()
    ]
    yield Figure(figures.metric_bars({name: Metric(**m) for name, m in metrics.items()}))
    caption = f"Measured {moment(one['at'])[:10]} on {count(one['n'])} films of {count(one['subjects'])} subjects"
    yield Table(caption, ["measure", "value", "95 % interval", "what it is"], rows, frozenset({1}))
    classes = one["classes"]
    rows = [[name, *map(count, row)] for name, row in zip(classes, one["confusion"], strict=True)]
    head = ["true class", *(f"given {name}" for name in classes)]
    yield Table(
        "Films of each true class by the class that they were given", head, rows, frozenset(range(1, len(head)))
    )


def _slices(one: Mapping[str, Any]) -> Iterator[Block]:
    rows, accuracy = one["slices"], one["metrics"].get("accuracy")
    worse = [f"{row['attribute']} {row['value']}" for row in rows if row["flagged"]]
    said = (
        f"It is worse for {listed(worse)} than for the rest."
        if worse
        else "No slice is shown to be worse than the rest."
    )
    yield Text(
        f"{said} The chance that any such flag is false is at most 5 %, over all slices together; slices under 20 "
        "subjects are shown and not tested."
    )
    shown = [row for row in rows if "accuracy" in row["metrics"]]
    if shown:
        yield Figure(forest(shown, accuracy["value"] if accuracy else None))
    told = [
        [
            f"{row['attribute']} {row['value']}",
            count(row["n"]),
            count(row["subjects"]),
            *(_interval(row["metrics"].get(key)) for key in ("auc", "accuracy")),
            _signed(row["difference"]) if row["difference"] else "not tested",
            "worse" if row["flagged"] else "",
        ]
        for row in rows
    ]
    head = ["slice", "films", "subjects", "AUC", "accuracy", "accuracy against the rest", "flag"]
    yield Table("Slices; differences are taken within the true class", head, told, frozenset({1, 2}))


def _robust(found: Mapping[str, Any]) -> Iterator[Block]:
    yield Text(
        f"{count(found['n'])} films of {count(found['subjects'])} subjects of {where(found)} were harmed on "
        "purpose and "
        "answered again at the same operating point."
    )
    yield Figure(panels.harm(found))
    rows = [["as they are", *_two(found["clean"])], ["as other scanners might show them", *_two(found["stress"])]]
    for kind, curve in found["curves"].items():
        told = [point for point in curve["points"] if point.get("accuracy")]
        if told:
            worst = min(told, key=lambda point: float(point["accuracy"]["value"]))
            rows.append([f"{kind} at its worst, {worst['severity']:g}", *_two(worst)])
    caption = "With 95 % intervals; every severity that was tried is in the answer of --json"
    yield Table(caption, ["films", "AUC", "accuracy"], rows)


def _two(point: Mapping[str, Any]) -> list[str]:
    return [_interval(point.get(key)) for key in ("auc", "accuracy")]


def _compared(found: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    rows = [
        [
            one["against"][:12],
            where(one),
            count(one["n"]),
            _signed(one["auc_difference"]) if one["auc_difference"] else "not measured",
            _signed(one["accuracy_difference"]),
        ]
        for one in found
    ]
    head = ["the other", "measured on", "films", "AUC", "accuracy"]
    yield Table(
        "This model less the other on the same films; an interval that holds 0 does not tell them apart",
        head,
        rows,
        frozenset({2}),
    )


def _variant(found: Mapping[str, Any]) -> str:
    gap = found["auc_difference"]
    auc = f"its AUC less the other's is {_signed(gap)}" if gap else "the difference in AUC could not be told"
    return (
        f"On validation films {percent(found['agreement'])} of the labels agree and {auc}. A film alone takes "
        f"{decimal(found['ms_1'], 2)} ms, {decimal(found['speedup_1'], 2)} times as fast; in batches of 32 it is "
        f"{decimal(found['speedup_32'], 2)} times as fast."
    )


def bounds(metric: Mapping[str, float]) -> str:
    """An interval in words."""
    return f"{metric['low']:.3f} to {metric['high']:.3f}"


def _interval(metric: Mapping[str, float] | None) -> str:
    return f"{metric['value']:.3f} ({bounds(metric)})" if metric else "not measured"


def _signed(gap: Mapping[str, float]) -> str:
    return f"{gap['value']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"
