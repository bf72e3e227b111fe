"""Where a model is worse: the films of each value of an attribute against those of its other values.

Films are compared within their true class, so that a slice with more of the harder class is not blamed for it; bacteria
and virus, say, are both pneumonia. The difference in accuracy of slice and rest is the mean over classes of the
differences, weighted as by Mantel and Haenszel (1959). Its p-value, one-sided for "worse", is of a score test: each
film's excess over its class's pooled accuracy, summed within subjects, which are the units: a Cochran-Mantel-Haenszel
test that is robust to clusters. All slices of a report are tested together, by Holm's correction (1979): the chance of
any false flag is at most 0.05, in large samples. Where nothing differs, three attributes over 60 to 400 subjects were
flagged in .01 to .03 of 600 draws each (as tests/evaluate/test_evaluate_slices.py draws them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from rounds.core.errors import BadOverride, Fault
from rounds.stats.intervals import metric_intervals, places
from rounds.stats.metrics import metrics

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FEWEST, MOST = 2, 20
# Subjects that a slice and its rest must each have to be tested.
SUBJECTS = 20
ALPHA = 0.05
RESAMPLES = 500
SHOWN = ("auc", "accuracy", "sensitivity", "specificity")


def slices(
    attributes: Sequence[Mapping[str, str]],
    y: Ints,
    label: Ints,
    probabilities: Floats,
    subjects: Sequence[str],
    names: Sequence[str] = (),
) -> tuple[dict[str, Any], ...]:
    """Every value of the named attributes, by default of all that have 2 to 20 values (numbers with more: quarters).

    Each: "attribute", "value", "n", "subjects", "metrics" (auc, accuracy, sensitivity, specificity that can be told,
    with 95 % intervals over subjects), "difference" in accuracy from the rest ("value", "low", "high"), its one-sided
    "p" and Holm's "p_corrected" (null where slice or rest has under 20 subjects or shares no class with the other), and
    "flagged": worse than the rest. Raises BadOverride naming every attribute that no film has.
    """
    columns = {name: _values(attributes, name) for name in names or sorted({key for row in attributes for key in row})}
    unknown = [name for name, values in columns.items() if not any(values)]
    if unknown:
        there = ", ".join(sorted({key for row in attributes for key in row})) or "no attribute"
        faults = [Fault("no film has this attribute", f"--slice {name}", there) for name in unknown]
        raise BadOverride(f"{len(unknown)} of the slices cannot be cut", faults)
    place = places(subjects)
    found = []
    for name, values in columns.items():
        kinds = sorted(set(values) - {""}, key=_order)
        if FEWEST <= len(kinds) <= MOST:
            column = np.asarray(values)
            found += [
                {"attribute": name, "value": kind}
                | _slice(column == kind, (column != "") & (column != kind), y, label, probabilities, place)
                for kind in kinds
            ]
    return _corrected(found)


def _values(attributes: Sequence[Mapping[str, str]], name: str) -> list[str]:
    """One attribute of every film, "" where it is unknown; numbers of more than 20 values by their quarter."""
    values = [row.get(name, "").strip() for row in attributes]
    known = [value for value in values if value]
    if len(set(known)) <= MOST:
        return values
    try:
        numbers = np.array([float(value) for value in known])
    except ValueError:
        return values
    if not np.isfinite(numbers).all():
        return values
    edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75]))
    texts = [f"up to {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(edges))]
    texts.append(f"above {edges[-1]:g}")
    return [texts[int(np.searchsorted(edges, float(value)))] if value else "" for value in values]


def _order(text: str) -> tuple[float, str]:
    """Quarters in their order, other values by the alphabet."""
    head, _, tail = text.partition(" ")
    numbers = {"up": -np.inf, "above": np.inf}
    if " to " in text or head == "above":
        try:
            return numbers[head] if head in numbers else float(head), tail
        except ValueError:
            pass
    return 0.0, text


def _slice(inside: Bools, rest: Bools, y: Ints, label: Ints, probabilities: Floats, place: Ints) -> dict[str, Any]:
    own = place[inside]
    bounds = metric_intervals(y[inside], label[inside], probabilities[inside], own.tolist(), resamples=RESAMPLES)
    values = metrics(y[inside], label[inside], probabilities[inside])
    shown = {
        key: {"value": values[key], "low": bounds[key][0], "high": bounds[key][1]}
        for key in SHOWN
        if np.isfinite(values.get(key, np.nan))
    }
    told = {"n": int(inside.sum()), "subjects": len(np.unique(own)), "metrics": shown, "difference": None, "p": None}
    enough = min(len(np.unique(own)), len(np.unique(place[rest]))) >= SUBJECTS
    return told | (worse(inside, rest, y, label == y, place) if enough else {})


def worse(inside: Bools, rest: Bools, y: Ints, right: Bools, place: Ints) -> dict[str, Any]:
    """The difference in accuracy of two sets of films within classes, its 95 % interval, and the p-value of "worse".

    `inside` and `rest` bool (n,), true classes y (n,), right answers bool (n,), subjects as numbers int64 (n,).
    """
    classes = [c for c in np.unique(y) if (inside & (y == c)).any() and (rest & (y == c)).any()]
    if not classes:
        return {}
    hit = right.astype(np.float64)
    difference, total = 0.0, 0.0
    seen, under_null = np.zeros(len(y)), np.zeros(len(y))
    for c in classes:
        ours, theirs = inside & (y == c), rest & (y == c)
        m, n = int(ours.sum()), int(theirs.sum())
        weight = m * n / (m + n)
        pooled = float(hit[ours | theirs].mean())
        difference += weight * (hit[ours].mean() - hit[theirs].mean())
        total += weight
        for part, size, sign in ((ours, m, 1.0), (theirs, n, -1.0)):
            seen[part] += sign * weight / size * (hit[part] - hit[part].mean())
            under_null[part] += sign * weight / size * (hit[part] - pooled)
    error, null = (_spread(moves, place[inside | rest], inside | rest) / total for moves in (seen, under_null))
    value, units = difference / total, len(np.unique(place[inside | rest]))
    reach = float(stdtrit(units - 1, 0.975)) * max(error, null if error == 0 else 0.0)
    bounds = {"value": value, "low": max(-1.0, value - reach), "high": min(1.0, value + reach)}
    return {"difference": bounds, "p": float(stdtr(units - 1, value / null)) if null > 0 else 1.0}


def _spread(moves: Floats, place: Ints, films: Bools) -> float:
    """The standard error of a sum of films' moves, with subjects as units."""
    sums = np.bincount(place, weights=moves[films])
    units = len(np.unique(place))
    return float(np.sqrt(units / (units - 1) * (sums**2).sum()))


def _corrected(found: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Holm's correction over all slices that were tested."""
    tested = sorted((row for row in found if row["p"] is not None), key=lambda row: float(row["p"]))
    most = 0.0
    for rank, row in enumerate(tested):
        most = max(most, min(1.0, float(row["p"]) * (len(tested) - rank)))
        row["p_corrected"] = most
    return tuple(
        row | {"p_corrected": row.get("p_corrected"), "flagged": row.get("p_corrected", 1.0) <= ALPHA} for row in found
    )
