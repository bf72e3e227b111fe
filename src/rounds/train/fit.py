"""Training, from top to bottom in the order of time: data, seed, network, loop, record."""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from rounds.core.ids import canonical, digest
from rounds.core.ports import Runs
from rounds.core.records import DatasetVersion, TrainedRun
from rounds.core.specs import TrainSpec
from rounds.imaging.packed import Films
from rounds.nets.names import build
from rounds.train.batches import TrainBatches, ValBatches, open_splits
from rounds.train.learner import Learner
from rounds.train.progress import Bar
from rounds.train.record import Record, recorded

_PREPARE_IMAGES = 2048
_STEPS_AN_EPOCH, _FEWEST_A_BATCH = 20, 16


def fit(spec: TrainSpec, dataset: DatasetVersion, *, runs: Runs | None, folder: Path, code: str = "") -> TrainedRun:
    """Train the network that the spec describes on the data set's `train` rows and measure it on its `val` rows.

    The weights after the last epoch are the ones kept: the learning rate has fallen to nothing by then, and the best of
    many looks at a few hundred validation images would flatter itself. `folder/<run>/` holds config.json, weights.pt
    (whole after each epoch), curve.csv and state.json. The same seed gives the same weights on one machine's CPU.
    `seconds` and `cpu_seconds` are those of the loop alone, without imports, decoding and the tracker's start.

    Raises: BadSource for a data set without images of every class in both splits, BadOverride for a network that cannot
    be built, CallerFault where the loss stops being a number, NotWritable.
    """
    films = Films(dataset.path)
    train, val = open_splits(films, spec)
    classes = len(films.classes)
    # Drawing the first weights goes through torch's global generator: borrowed here, put back for everybody else.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        net = build(spec.model, channels=spec.imaging.channels, classes=classes, size=spec.imaging.size)
    generator = torch.Generator().manual_seed(spec.seed)
    batches = TrainBatches(train, _batch(spec.train.batch, len(train.labels)), spec.augment, generator)
    steps = spec.train.epochs * len(batches)
    with _threads(spec.train.threads), _quiet(), recorded(spec, dataset, runs, folder, code) as record:
        started, cpu_started = time.perf_counter(), time.process_time()
        net.prepare(train.sample(_PREPARE_IMAGES, generator))
        learner = Learner(net, spec.train, steps=steps, labels=train.labels, classes=classes)
        with Bar(steps, shown=spec.train.progress) as bar, _ctrl_c():
            _trainer(spec.train.epochs, EachEpoch(record, bar)).fit(learner, batches, ValBatches(val))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return TrainedRun(
        run=record.run,
        checkpoint=record.checkpoint,
        spec=spec,
        classes=films.classes,
        data=dataset.digest,
        config=digest(canonical(spec)),
        code=code,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        val={name: learner.figures[name] for name in ("auc", "accuracy")},
    )


class EachEpoch(Callback):
    """Keeps each epoch in the record and shows it on the bar."""

    def __init__(self, record: Record, bar: Bar) -> None:
        self._record, self._bar = record, bar

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._bar.step(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, learner: Any) -> None:
        number = trainer.current_epoch + 1
        self._record.epoch(number, learner.figures, learner.learned)
        self._bar.epoch(number, trainer.max_epochs or number, learner.figures)


def _trainer(epochs: int, each_epoch: EachEpoch) -> Trainer:
    """Lightning's loop and nothing beside it: log, checkpoint and bar are the record's and ours."""
    return Trainer(
        max_epochs=epochs,
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=1,
        callbacks=[each_epoch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _batch(most: int, images: int) -> int:
    """Smaller batches where images are few: an epoch of four steps teaches nothing."""
    return min(most, max(_FEWEST_A_BATCH, images // _STEPS_AN_EPOCH))


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """Let torch compute on so many threads, 0 for every core this process may use."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(wanted or cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """Hand Ctrl-C on as such: Lightning makes exit status 1 of it, our own fault, and stops listening for another."""
    listener = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, listener)
        raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice about loggers, workers and hardware to itself."""
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        for log in logs:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
