"""One of the processes that train together: python -m rounds.train.rank JOB, started by torchrun."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rounds.core.errors import RoundsError
from rounds.core.ids import canonical
from rounds.core.records import DatasetVersion
from rounds.core.specs import TrainSpec
from rounds.nets.network import Network
from rounds.train.launch import TOLD, read_job
from rounds.train.learn import learn
from rounds.train.parent import end_with_parent
from rounds.train.record import keep_weights

_STEP_EVERY_S = 0.2


class Teller:
    """Writes down for the process that keeps the record what it hears; a line at a time, each whole."""

    def __init__(self, place: Path, spec: TrainSpec, dataset: DatasetVersion) -> None:
        self._place, self._spec, self._classes, self._last = place, spec, len(dataset.classes), 0.0

    def say(self, **what: Any) -> None:
        with (self._place / TOLD).open("ab") as file:
            file.write(canonical(what) + b"\n")

    def step(self, done: int) -> None:
        if (now := time.monotonic()) > self._last + _STEP_EVERY_S:
            self._last = now
            self.say(step=done)

    def epoch(self, number: int, figures: Mapping[str, float], net: Network | None) -> None:
        assert net is not None, "this process holds the weights"
        keep_weights(self._place, net, self._spec, self._classes)
        self.say(epoch=number, figures=dict(figures))


def train(path: Path, trainer: dict[str, Any]) -> None:
    """Do this process's part of the job; the first says how it went."""
    job = read_job(path, trainer)
    teller = Teller(job.place, job.spec, job.dataset)
    try:
        learnt = learn(job, teller)
    except RoundsError as error:
        teller.say(**error.public())
        raise
    if os.environ.get("RANK", "0") == "0":
        teller.say(learnt=learnt)


if __name__ == "__main__":
    end_with_parent()
    train(Path(sys.argv[1]), {"strategy": "ddp", "devices": int(os.environ["LOCAL_WORLD_SIZE"]), "accelerator": "auto"})
