"""The training loop in one process, which may be one of several that share each batch."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.profilers import PassThroughProfiler

from rounds.core.errors import BadOverride, Fault
from rounds.core.records import DatasetVersion
from rounds.core.specs import LoopSpec, TrainSpec
from rounds.imaging.packed import Films, Rows
from rounds.nets.names import build
from rounds.nets.network import Network
from rounds.nets.weights import load_weights
from rounds.train.batches import Shard, Split, TrainBatches, ValBatches, open_splits, stream
from rounds.train.learner import Learner, Spent
from rounds.train.profile import profiled
from rounds.train.resume import CHECKPOINT, settle

# behind a network's statistics: 2,048 gray films of 64 pixels, fewer of larger ones, so that memory does not grow
_PREPARE_IMAGES, _FEWEST, _PREPARE_VALUES = 2048, 64, 2**23
_STEPS_AN_EPOCH, _FEWEST_A_BATCH = 20, 16


class Told(Protocol):
    """Who hears how the training gets on."""

    def step(self, done: int) -> None:
        """So many steps are done, those of earlier epochs included."""

    def epoch(self, number: int, figures: Mapping[str, float], net: Network | None) -> None:
        """The epoch is over, its checkpoint on disk already; `net` is None where another process has kept its weights.
        May end the training by an exception."""


@dataclass(frozen=True)
class Learnt:
    """The figures of the last epoch, and what the loop cost: seconds, and CPU seconds of all processes."""

    figures: Mapping[str, float]
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Job:
    """What is to be learnt in the run's folder `place`, whose record holds `epoch` epochs: by which other films than
    the two splits, if any, with which further words to Lightning's Trainer, and from which weights, if not random.
    `splits` are the two as this process has opened them, which other processes do for themselves."""

    spec: TrainSpec
    dataset: DatasetVersion
    place: Path
    epoch: int = 0
    rows: tuple[Rows, Rows] | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    start: Path | None = None
    splits: tuple[Split, Split] | None = None


def check(spec: TrainSpec, dataset: DatasetVersion, rows: tuple[Rows, Rows] | None) -> tuple[int, tuple[Split, Split]]:
    """The number of steps and the two splits, after everything that would refuse the training once it runs; raises what
    `fit` names."""
    train, val = open_splits(Films(dataset.path), spec, rows)
    with torch.random.fork_rng(devices=[]):
        _network(spec, len(dataset.classes))
    processes = spec.launcher.processes
    faults = []
    if spec.train.precision == "16-mixed" and not torch.cuda.is_available():
        need = "a GPU that torch can use"
        faults.append(Fault("half precision needs CUDA", "train.precision", need, "none", "take bf16-mixed or 32-true"))
    if spec.launcher.name == "local" and processes > 1:
        then = "take launcher=torchrun or launcher=ray"
        faults.append(Fault("local is this one process", "launcher.processes", "1", str(processes), then))
    batches = TrainBatches(train, _batch(spec.train.batch, len(train)), spec.augment, spec.seed)
    fewest = min(len(train) // len(batches), len(val))
    if fewest < processes:
        faults.append(Fault("too few images for so many", "launcher.processes", f"{fewest} or fewer", str(processes)))
    if faults:
        raise BadOverride("this training cannot run here", faults)
    return spec.train.epochs * len(batches), (train, val)


def learn(job: Job, told: Told) -> Learnt:
    """Train from the run's last whole checkpoint on, or from the start; the first process tells `told` of it.

    What the random numbers are drawn from is made of seed, epoch and step alone, so that a training that was cut off
    ends with the weights of one that was not.
    """
    spec = job.spec
    # Dropout and first weights go through torch's global generator: borrowed here, put back for everybody else.
    with torch.random.fork_rng(devices=[]), _threads(spec.train, job), _quiet(), _ctrl_c(), ExitStack() as stack:
        callbacks: list[Callback] = [EachEpoch(job, told)]
        if spec.train.profile:
            callbacks.append(stack.enter_context(profiled(job.place)))
        trainer = _trainer(spec.train, job, callbacks)
        shard, device = Shard(trainer.global_rank, trainer.world_size), trainer.strategy.root_device
        train, val = job.splits or open_splits(Films(job.dataset.path), spec, job.rows)
        torch.manual_seed(spec.seed)
        classes = len(job.dataset.classes)
        net = load_weights(job.start).train() if job.start else _network(spec, classes)
        spent = Spent()
        size = _batch(spec.train.batch, len(train))
        batches = TrainBatches(train, size, spec.augment, spec.seed, shard=shard, device=device)
        if job.start is None:
            seen = min(_PREPARE_IMAGES, max(_FEWEST, _PREPARE_VALUES // train.pixels[0].size))
            net.prepare(train.sample(seen, stream(spec.seed, "prepare")))
        steps = spec.train.epochs * len(batches)
        learner = Learner(net, spec, steps=steps, labels=train.labels, classes=classes, spent=spent)
        held = ValBatches(val, shard=shard, device=device)
        checkpoint = job.place / CHECKPOINT
        resumed = str(checkpoint) if checkpoint.exists() else None
        trainer.fit(learner, batches, held, ckpt_path=resumed, weights_only=True)
    return Learnt(learner.figures, *spent.so_far)


class EachEpoch(Callback):
    """After each epoch: the checkpoint on disk, whole; then the figures to whoever hears."""

    def __init__(self, job: Job, told: Told) -> None:
        self._job, self._told = job, told

    def on_fit_start(self, trainer: Trainer, learner: Any) -> None:
        # The checkpoint is written before the record: a kill between the two left an epoch that was not told.
        if trainer.is_global_zero and learner.epochs > self._job.epoch:
            self._told.epoch(learner.epochs, learner.figures, learner.learned)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        cast("TrainBatches", trainer.train_dataloader).epoch = trainer.current_epoch

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self._told.step(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, learner: Any) -> None:
        learner.epochs = trainer.current_epoch + 1
        learner.spent.add(lambda own: float(trainer.strategy.reduce(torch.tensor(own), reduce_op="sum")))
        path = self._job.place / CHECKPOINT
        trainer.save_checkpoint(part := path.with_name(f".{path.name}.part"))  # all processes come here, one writes
        if trainer.is_global_zero:
            settle(part, path)
            self._told.epoch(learner.epochs, learner.figures, learner.learned)


class Silent(PassThroughProfiler):
    """No profiler. Lightning's own one enters and leaves a generator around each of the 25 hooks of a step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> Any:  # noqa: ARG002  # the name is Lightning's
        return self._nothing


def _network(spec: TrainSpec, classes: int) -> Network:
    return build(spec.model, channels=spec.imaging.channels, classes=classes, size=spec.imaging.size)


def _trainer(loop: LoopSpec, job: Job, callbacks: list[Callback]) -> Trainer:
    """Lightning's loop and nothing beside it: log, checkpoint and bar are ours."""
    settings = {"accelerator": "cuda" if torch.cuda.is_available() else "cpu", "devices": 1, **job.trainer}
    return Trainer(
        max_epochs=loop.epochs,
        precision=cast("Any", loop.precision),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler=Silent(),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **settings,
    )


def _batch(most: int, images: int) -> int:
    """Smaller batches where images are few: an epoch of four steps teaches nothing."""
    return min(most, max(_FEWEST_A_BATCH, images // _STEPS_AN_EPOCH))


@contextmanager
def _threads(loop: LoopSpec, job: Job) -> Iterator[None]:
    """Let torch compute on so many threads; 0 for the cores that this process may use, or its share of them."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sisters = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if job.trainer else 1
    torch.set_num_threads(loop.threads or max(1, cores // sisters))
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
