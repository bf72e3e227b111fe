"""Training, from top to bottom in the order of time: check, record, loop, answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rounds.core.ids import canonical, digest
from rounds.core.ports import Runs
from rounds.core.records import DatasetVersion, TrainedRun
from rounds.core.specs import TrainSpec
from rounds.imaging.packed import Rows
from rounds.nets.network import Network
from rounds.nets.weights import load_weights
from rounds.train.launch import launched
from rounds.train.learn import Job, check, learn
from rounds.train.progress import Bar
from rounds.train.record import Record, recorded
from rounds.train.resume import CHECKPOINT

Each = Callable[[int, Network], None]


def fit(
    spec: TrainSpec,
    dataset: DatasetVersion,
    *,
    runs: Runs | None,
    folder: Path,
    code: str = "",
    rows: tuple[Rows, Rows] | None = None,
    each: Each | None = None,
    resume: str | None = None,
    start: Path | None = None,
) -> TrainedRun:
    """Train the network that the spec describes on the data set's `train` rows and measure it on its `val` rows.

    The weights after the last epoch are the ones kept: the learning rate has fallen to nothing by then, and the best of
    many looks at a few hundred validation images would flatter itself. `folder/<run>/` holds config.json, weights.pt
    and resume.ckpt (whole after each epoch; the latter goes when the run is done), curve.csv and state.json. The same
    seed gives the same weights on one machine's CPU, also where the run was killed and is resumed: `resume` names it.
    `seconds` and `cpu_seconds` are those of the loop alone, without imports, decoding and the tracker's start.

    `spec.launcher` says in which processes the loop runs; this one alone keeps the record. `rows` name other films to
    train and measure on than those of the two splits, as cross-validation does; `each` is called with the number of
    each epoch and its network, and may end the training by an exception of its own. `start` is a file of weights, of
    the network that the spec describes, to go on from instead of random ones.

    Raises: BadSource for a data set without images of every class in both splits, BadOverride for a network or a
    training that cannot be had here, CallerFault where the loss stops being a number, NotWritable, UnknownId where
    there is nothing to resume, WorldFault where a process of several died.
    """
    steps, splits = check(spec, dataset, rows)
    with recorded(spec, dataset, runs, folder, code, resume) as record, Bar(steps, shown=spec.train.progress) as bar:
        job = Job(spec, dataset, record.place, record.state.epoch, rows, start=start, splits=splits)
        told = Teller(record, bar, each)
        learnt = learn(job, told) if spec.launcher.name == "local" else launched(job, told)
    (record.place / CHECKPOINT).unlink(missing_ok=True)
    return TrainedRun(
        run=record.run,
        checkpoint=record.checkpoint,
        spec=spec,
        classes=dataset.classes,
        data=dataset.digest,
        config=digest(canonical(spec)),
        code=code,
        seconds=learnt.seconds,
        cpu_seconds=learnt.cpu_seconds,
        val={name: learnt.figures[name] for name in ("auc", "accuracy")},
    )


class Teller:
    """Keeps each epoch in the record, shows it on the bar, and hands it to the caller."""

    def __init__(self, record: Record, bar: Bar, each: Each | None) -> None:
        self._record, self._bar, self._each = record, bar, each

    def step(self, done: int) -> None:
        self._bar.step(done)

    def epoch(self, number: int, figures: Mapping[str, float], net: Network | None) -> None:
        """`net` is None where another process has kept its weights."""
        self._record.epoch(number, figures, net)
        self._bar.epoch(number, self._record.state.epochs, dict(figures))
        if self._each is not None:
            self._each(number, net or load_weights(self._record.checkpoint))
