"""The state of each run on disk, and runs that were cut off in the middle.

A run's folder holds `config.json`, `weights.pt` (whole, after each epoch), `curve.csv` and `state.json`. Whoever trains
holds a lock on `lock`, which the kernel releases when the process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from rounds.core.ids import canonical, restore, write_whole


class Phase(Enum):
    """Where a run stands."""

    TRAINING = "training"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class State:
    """How far a run has come: `epoch` of `epochs` are in its checkpoint."""

    run: str
    epoch: int
    epochs: int
    phase: Phase = Phase.TRAINING

    def __str__(self) -> str:
        return f"run {self.run} was interrupted at epoch {self.epoch} of {self.epochs}"


def write_state(folder: Path, state: State) -> None:
    """Keep the state of the run in its folder, whole."""
    write_whole(folder / "state.json", canonical(state))


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the run's folder while its process lives."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def interrupted(folder: Path) -> Sequence[State]:
    """The runs below the folder whose process died while training, each told once: it is marked by this call.

    A folder whose state was never written belongs to a run that died before its first epoch began; nothing is lost.
    """
    found = []
    for path in sorted(folder.glob("*/state.json")):
        state: State = restore(State, json.loads(path.read_bytes()))
        if state.phase is Phase.TRAINING and not _is_held(path.parent):
            write_state(path.parent, replace(state, phase=Phase.INTERRUPTED))
            found.append(state)
    return found


def _is_held(folder: Path) -> bool:
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
