"""Searches over settings, and cross-validation: many trainings that answer one question."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rounds.core.errors import BadSource, Fault
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.core.records import DatasetVersion, Metric
from rounds.core.specs import Axis, TrainSpec
from rounds.costs.meter import metered
from rounds.data.split import divide, groups_of
from rounds.imaging.packed import Films, Rows
from rounds.loop import checking, intake
from rounds.nets.weights import load_weights
from rounds.stats.difference import area_difference
from rounds.stats.intervals import metric_intervals
from rounds.stats.metrics import metrics
from rounds.train.fit import fit
from rounds.train.judge import probabilities
from rounds.train.surroundings import code_revision
from rounds.train.tune import Compose, Search, StudySpec, Trial, compare, tune

SEALED = "test"


def study(
    ports: Ports, spec: StudySpec, axes: tuple[Axis, ...], base: Sequence[str], compose: Compose, data: str
) -> dict[str, Any]:
    """Search for better settings; the public answer of `rounds tune`.

    `difference` is the best trial's stressed validation AUC minus that of trial 0, the settings as they are, on another
    draw of scanners than the one the best was chosen on. The weights of both are kept, those of the others go.
    """
    dataset = intake.find(ports, data)
    checking.refuse_leaks(ports, dataset)
    folder = ports.home / "studies" / spec.name
    search = Search(spec, axes, tuple(base), compose, dataset, folder)
    with metered(ports.ledger, ports.clock, "tune", dataset.digest):
        trials = tune(search)
        complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
        best = max(complete, key=lambda trial: trial.value or 0.0)
        first = next((trial for trial in complete if not trial.overrides), None)
        gain = _gain(search, best, first) if first else None
    _keep_only(folder, [trial for trial in (best, first) if trial])
    answer = {"study": spec.name, "data": dataset.digest, "name": dataset.name, "base": list(base), "axes": plain(axes)}
    answer |= {"trials": [_public(trial) for trial in trials], "best": _public(best)}
    answer |= {"default": _public(first) if first else None, "difference": plain(gain) if gain else None}
    evidence = {"study": spec.name, "data": dataset.digest, "best": _public(best), "difference": answer["difference"]}
    ports.events.append("tuned", who="tune", why=f"{len(trials)} trials on {dataset.name}", evidence=evidence)
    return answer


def _gain(search: Search, best: Trial, first: Trial) -> Metric:
    y, subjects, (one, other) = compare(search, best, first)
    return Metric(*area_difference(y, one, other, subjects))


def _keep_only(folder: Path, trials: Sequence[Trial]) -> None:
    kept = {trial.checkpoint.parent for trial in trials if trial.checkpoint}
    for run in folder.iterdir():
        if run.is_dir() and run not in kept:
            shutil.rmtree(run)


def _public(trial: Trial) -> dict[str, Any]:
    shown = ("number", "state", "value", "overrides", "curve", "seconds")
    return {name: plain(getattr(trial, name)) for name in shown}


@dataclass(frozen=True)
class Fold:
    """One part of the films: what was trained on, what was held out, and what was said of it."""

    train: Rows
    held: Rows
    said: npt.NDArray[np.float64]
    seconds: float


def cross_validate(ports: Ports, spec: TrainSpec, folds: int) -> dict[str, Any]:
    """Train `folds` times, each time without one part of the films, by subject and with every class's share; the
    public answer of `rounds cross-validate`.

    All films but the sealed test split take part. `metrics` are those of all films, each as the one network that never
    saw its subject answers, with 95 % intervals over subjects; `folds` has each part's own, whose spread also shows how
    much one training differs from the next. The answers of all films are kept in `predictions` (Parquet).
    Raises BadSource where a class has fewer subjects than folds.
    """
    dataset = intake.find(ports, spec.data)
    checking.refuse_leaks(ports, dataset)
    films = Films(dataset.path)
    place = ports.home / "cross-validation" / f"{dataset.digest[:12]}-{ports.clock():%Y%m%dT%H%M%S%f}"
    with metered(ports.ledger, ports.clock, "cross-validate", dataset.digest):
        done = [_fold(ports, spec, dataset, films, parts, place) for parts in _parts(films, folds, spec.seed)]
    shutil.rmtree(place / "runs", ignore_errors=True)
    predictions = place / "predictions.parquet"
    pq.write_table(_table(films, done), predictions)
    y = np.concatenate([fold.held.labels for fold in done])
    said = np.concatenate([fold.said for fold in done])
    subjects = [name for fold in done for name in fold.held.subjects]
    answer: dict[str, Any] = {"data": dataset.digest, "name": dataset.name, "classes": list(films.classes), "n": len(y)}
    answer |= {"metrics": plain(_measured(y, said, subjects)), "spread": _spread(done)}
    answer |= {"folds": [_fold_public(fold) for fold in done], "predictions": str(predictions)}
    ports.events.append(
        "cross_validated",
        who="cross-validate",
        why=f"{folds} folds of {dataset.name}",
        evidence={"data": dataset.digest, "metrics": answer["metrics"], "spec": plain(spec)},
    )
    return answer


def _parts(films: Films, folds: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Rows to train on and rows held out, for each fold; films of a subject, and exact copies, stay together."""
    rows = films.rows()
    open_to_all = [i for i, split in enumerate(films.splits()) if split != SEALED]
    groups = groups_of(
        [(("subject", rows.subjects[i]), ("bytes", rows.digests[i])) for i in open_to_all],
        [films.classes[rows.labels[i]] for i in open_to_all],
        [rows.digests[i] for i in open_to_all],
    )
    faults = [
        Fault("too few subjects of a class", name, f"at least {folds}, one a fold", str(n), "ask for fewer: --folds")
        for name in films.classes
        if (n := sum(group.classes.get(name, 0) > 0 for group in groups)) < folds
    ]
    if faults:
        raise BadSource("these films cannot be divided so", faults)
    names = [f"fold-{number}" for number in range(1, folds)]
    where = divide(groups, dict.fromkeys(names, 1 / folds), seed)
    parts = []
    for name in ("train", *names):
        inside = {
            open_to_all[member]
            for group, at in zip(groups, where, strict=True)
            if at == name
            for member in group.members
        }
        parts.append((rows.take([i for i in open_to_all if i not in inside]), rows.take(sorted(inside))))
    return parts


def _fold(
    ports: Ports, spec: TrainSpec, dataset: DatasetVersion, films: Films, parts: tuple[Rows, Rows], place: Path
) -> Fold:
    run = fit(spec, dataset, runs=ports.runs, folder=place / "runs", code=code_revision(), rows=parts)
    said = probabilities(load_weights(run.checkpoint), films.pixels(spec.imaging)[parts[1].index])
    return Fold(*parts, said, run.seconds)


def _measured(y: npt.NDArray[np.int64], said: npt.NDArray[np.float64], subjects: Sequence[str]) -> dict[str, Metric]:
    label = said.argmax(axis=1)
    bounds = metric_intervals(y, label, said, subjects)
    return {name: Metric(value, *bounds[name]) for name, value in metrics(y, label, said).items() if np.isfinite(value)}


def _fold_public(fold: Fold) -> dict[str, Any]:
    own = metrics(fold.held.labels, fold.said.argmax(axis=1), fold.said)
    figures = {name: value for name, value in own.items() if np.isfinite(value)}
    return {"train": len(fold.train), "held": len(fold.held), "seconds": fold.seconds, "metrics": figures}


def _spread(done: Sequence[Fold]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each metric over the folds."""
    each = [_fold_public(fold)["metrics"] for fold in done]
    names = [name for name in each[0] if all(name in one for one in each)]
    values = {name: np.array([one[name] for one in each]) for name in names}
    return {name: {"mean": float(v.mean()), "sd": float(v.std(ddof=1))} for name, v in values.items()}


def _table(films: Films, done: Sequence[Fold]) -> pa.Table:
    columns: dict[str, list[Any]] = {"image": [], "name": [], "subject": [], "label": [], "fold": []}
    for number, fold in enumerate(done):
        columns["image"] += fold.held.digests
        columns["name"] += fold.held.names
        columns["subject"] += fold.held.subjects
        columns["label"] += [films.classes[c] for c in fold.held.labels]
        columns["fold"] += [number] * len(fold.held)
    said = np.concatenate([fold.said for fold in done])
    return pa.table(columns | {f"p_{name}": said[:, c] for c, name in enumerate(films.classes)})
