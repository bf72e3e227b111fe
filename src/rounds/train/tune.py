"""A search for better settings: Optuna proposes, `fit` trains, stressed validation films judge.

Trials are judged on `val` as other scanners might have taken it (`imaging.stress`), since the plain validation AUC is
near 1 for most settings and tells them apart by chance. What the best promises is measured on another draw of scanners
than the one it was chosen on.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.exc import SQLAlchemyError

from rounds.core.errors import CallerFault, Fault, StoreAway
from rounds.core.records import DatasetVersion
from rounds.core.specs import Axis, TrainSpec
from rounds.nets.network import Network
from rounds.nets.weights import load_weights
from rounds.train.fit import fit
from rounds.train.judge import Stressed, area, probabilities

if TYPE_CHECKING:
    import optuna

# Overrides to the training that they describe: a function that can be sent to another process.
Compose = Callable[[Sequence[str]], TrainSpec]
CHOICE_SEED, PROOF_SEED = 1, 2
_BEAT_S = 2
_OVERRIDES, _FOLDER, _SECONDS = "overrides", "folder", "seconds"


@dataclass(frozen=True)
class StudySpec:
    """A search: `trials` in all, by `workers` processes (of Ray where `ray`) that share the study in `storage`."""

    name: str
    storage: str
    trials: int = 20
    workers: int = 1
    seed: int = 0
    prune: bool = True
    ray: bool = False


@dataclass(frozen=True)
class Trial:
    """One training of the study: `value` is the stressed validation AUC at its end, or when it was pruned."""

    number: int
    state: str
    value: float | None
    overrides: tuple[str, ...]
    curve: tuple[float, ...]
    seconds: float
    checkpoint: Path | None


@dataclass(frozen=True)
class Search:
    """All that a worker needs to know; plain enough to be sent to another process or machine."""

    spec: StudySpec
    axes: tuple[Axis, ...]
    base: tuple[str, ...]
    compose: Compose
    dataset: DatasetVersion
    folder: Path


def tune(search: Search) -> list[Trial]:
    """Run the study until it holds `spec.trials` trials, those of earlier calls included; all its trials.

    Trial 0 is the training as it is without the search. A trial whose process died is run again. With `workers` above
    one they share the study through its storage. Raises StoreAway where the storage does not answer, CallerFault where
    no trial came to its end.
    """
    with _storage_answers(search.spec.storage):
        study = _study(search)
        if not study.trials:
            study.enqueue_trial({}, user_attrs={"default": True})
        if search.spec.ray:
            _with_ray(search)
        elif search.spec.workers > 1:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(search.spec.workers, mp_context=context) as pool:
                for done in [pool.submit(work, search, number) for number in range(search.spec.workers)]:
                    done.result()
        else:
            work(search, 0)
        found = [_trial(trial) for trial in study.trials]
    if not any(trial.state == "complete" for trial in found):
        fault = Fault("no trial came to its end", search.spec.name, "one or more", f"{len(found)} trials", "see above")
        raise CallerFault(f"study {search.spec.name} found nothing", [fault])
    return found


def work(search: Search, number: int) -> None:
    """One worker: take trials from the shared study until it has enough of them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    study = _study(search, number)
    judges: dict[object, Stressed] = {}
    while (wanted := _wanted(study, search.spec.trials)) is not None:
        if wanted:
            study.optimize(lambda trial: _objective(search, judges, trial), n_trials=1, catch=(CallerFault,))
        else:
            time.sleep(_BEAT_S)


def _objective(search: Search, judges: dict[object, Stressed], trial: optuna.Trial) -> float:
    import optuna

    started = time.perf_counter()
    chosen = [] if trial.user_attrs.get("default") else [_suggest(trial, axis) for axis in search.axes]
    trial.set_user_attr(_OVERRIDES, chosen)
    spec = search.compose([*search.base, *chosen])
    judge = judges.setdefault(spec.imaging, Stressed(search.dataset, spec, CHOICE_SEED))
    values: list[float] = []

    def each(epoch: int, net: Network) -> None:
        values.append(area(judge.y, probabilities(net, judge.pixels)))
        trial.report(values[-1], epoch)
        if search.spec.prune and epoch < spec.train.epochs and trial.should_prune():
            raise optuna.TrialPruned

    try:
        run = fit(spec, search.dataset, runs=None, folder=search.folder, each=each)
    finally:
        trial.set_user_attr(_SECONDS, time.perf_counter() - started)
    trial.set_user_attr(_FOLDER, str(run.checkpoint))
    return values[-1]


def _suggest(trial: optuna.Trial, axis: Axis) -> str:
    """The override that the sampler chooses on an axis."""
    if axis.options:
        return f"{axis.name}={trial.suggest_categorical(axis.name, axis.options)}"
    if axis.whole:
        return f"{axis.name}={trial.suggest_int(axis.name, int(axis.low), int(axis.high), log=axis.log)}"
    return f"{axis.name}={trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log):.6g}"


def _study(search: Search, worker: int = 0) -> optuna.Study:
    """The study as it stands in its storage; a beat every two seconds tells the trials of dead processes."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    spec = search.spec
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the heartbeat is marked experimental: the tests kill a worker and see it work
        storage = optuna.storages.RDBStorage(
            spec.storage,
            heartbeat_interval=_BEAT_S,
            grace_period=3 * _BEAT_S,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3),
        )
    warm = min(5, max(2, spec.trials // 4))
    return optuna.create_study(
        study_name=spec.name,
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=warm, seed=spec.seed + 1000 * worker, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=warm, n_warmup_steps=1),
    )


def _wanted(study: optuna.Study, trials: int) -> bool | None:
    """Whether a worker should begin a trial now; None where the study has them all, or half fail.

    A trial that another worker is at counts until that worker's heart stops; then it is put in the queue again.
    """
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    states = Counter(trial.state.name for trial in study.get_trials(deepcopy=False))
    ended = states["COMPLETE"] + states["PRUNED"]
    if ended >= trials or states["FAIL"] > trials:
        return None
    return ended + states["RUNNING"] < trials


def _trial(found: Any) -> Trial:
    attrs = found.user_attrs
    curve = tuple(found.intermediate_values[epoch] for epoch in sorted(found.intermediate_values))
    return Trial(
        number=found.number,
        state=found.state.name.lower(),
        value=found.value if found.value is not None else (curve[-1] if curve else None),
        overrides=tuple(attrs.get(_OVERRIDES, ())),
        curve=curve,
        seconds=float(attrs.get(_SECONDS, 0.0)),
        checkpoint=Path(attrs[_FOLDER]) if _FOLDER in attrs else None,
    )


def _with_ray(search: Search) -> None:
    """The workers as Ray tasks, on the cluster that RAY_ADDRESS names or on one started here."""
    from rounds.train.cluster import ray_cluster

    with ray_cluster(search.spec.workers) as ray:
        task = ray.remote(num_cpus=1)(work)
        ray.get([task.remote(search, number) for number in range(search.spec.workers)])


class _storage_answers:  # noqa: N801  # reads as a statement
    """Say what the study's storage says in the house's own errors."""

    def __init__(self, storage: str) -> None:
        self._storage = storage

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import optuna

        if isinstance(error, SQLAlchemyError | optuna.exceptions.StorageInternalError):
            told = (str(error).splitlines() or [type(error).__name__])[0]
            where = self._storage.rpartition("@")[2]
            fault = Fault("the study's storage does not answer", where, "a database", told, "start it, or name another")
            raise StoreAway("the study cannot be kept", [fault]) from error


def compare(
    search: Search, one: Trial, other: Trial
) -> tuple[npt.NDArray[np.int64], list[str], list[npt.NDArray[Any]]]:
    """Two trials on stressed films that neither was chosen on: true classes int64 (m,), subjects, and the
    probabilities float64 (m, k) of each."""
    said = []
    for trial in (one, other):
        assert trial.checkpoint is not None, "only trials that came to their end are compared"
        judge = Stressed(search.dataset, search.compose([*search.base, *trial.overrides]), PROOF_SEED)
        said.append(probabilities(load_weights(trial.checkpoint), judge.pixels))
    return judge.y, judge.subjects, said
