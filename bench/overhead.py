"""What Lightning, the checkpoints and MLflow add to a bare loop of PyTorch.

    python -m bench.overhead

Both sides train the recipe pneumonia28, without a moving average, on the same batches, network, optimizer and schedule,
on one thread, and measure AUC and accuracy on the validation films after each epoch. The bare loop writes nothing;
`fit` keeps its record, its checkpoints and an MLflow run in SQLite. CPU seconds of the process, all threads,
alternated; the middle of the pairs. Once, before: imports, and MLflow's database, which take as long however long is
trained.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from bench.films import films, recipe
from rounds.core.records import DatasetVersion
from rounds.core.specs import TrainSpec
from rounds.imaging.packed import Films
from rounds.nets.names import build
from rounds.stores.runs import MlflowRuns
from rounds.train.batches import TrainBatches, ValBatches, open_splits, stream
from rounds.train.fit import fit
from rounds.train.optimise import optimise

CEILING, PAIRS = 10.0, 3


def measure() -> list[dict[str, Any]]:
    """One row: per cent of CPU seconds on top of the bare loop's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            dataset, name = films(place / "data")
            runs = MlflowRuns(f"sqlite:///{place / 'mlflow.db'}", place / "artifacts")
            plain = ("train.threads=1", "train.ema=0", "train.balance=false")
            spec, short = recipe(*plain), recipe(*plain, "train.epochs=1")
            fit(short, dataset, runs=runs, folder=place / "runs")
            bare(short, dataset)
            pairs = [
                (cpu(lambda: bare(spec, dataset)), cpu(lambda: fit(spec, dataset, runs=runs, folder=place / "runs")))
                for _ in range(PAIRS)
            ]
    finally:
        torch.set_num_threads(before)
    added = [100 * (ours / alone - 1) for alone, ours in pairs]
    alone, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    detail = f"{name}; {ours:.2f} against {alone:.2f} CPU s; pairs {', '.join(f'{one:+.1f} %' for one in added)}"
    row = {"name": "Lightning and MLflow around the bare loop", "value": statistics.median(added), "floor": CEILING}
    return [row | {"higher_is_better": False, "unit": "%", "detail": detail}]


def bare(spec: TrainSpec, dataset: DatasetVersion) -> float:
    """The loop as one writes it by hand; the last validation AUC."""
    torch.manual_seed(spec.seed)
    train, val = open_splits(Films(dataset.path), spec)
    net = build(spec.model, channels=spec.imaging.channels, classes=2, size=spec.imaging.size)
    net.prepare(train.sample(2048, stream(spec.seed, "prepare")))
    batches = TrainBatches(train, spec.train.batch, spec.augment, spec.seed)
    optimizer, schedule = optimise(net, spec.train, spec.train.epochs * len(batches))
    auc, accuracy = BinaryAUROC(), MulticlassAccuracy(2, average="micro")
    for _ in range(spec.train.epochs):
        net.train()
        for pixels, labels in batches:
            loss = torch.nn.functional.cross_entropy(net(pixels)[0], labels, label_smoothing=spec.train.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        net.eval()
        auc.reset()
        accuracy.reset()
        with torch.no_grad():
            for pixels, labels in ValBatches(val):
                logits = net(pixels)[0]
                auc.update(logits[:, 1] - logits[:, 0], labels)
                accuracy.update(logits, labels)
        accuracy.compute()
        area = float(auc.compute())
    return area


def cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    for found in measure():
        print(json.dumps(found))
