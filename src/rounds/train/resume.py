"""The state of each run on disk, and runs that were cut off in the middle.

A run's folder holds `config.json`, `weights.pt` and `resume.ckpt` (whole, after each epoch), `curve.csv` and
`state.json`. Whoever trains holds a lock on `lock`, which the kernel releases when the process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from rounds.core.errors import CallerFault, Fault
from rounds.core.ids import canonical, pick, restore, write_whole

# Lightning's checkpoint: weights, their average, optimizer, schedule and progress. A run without one begins again.
CHECKPOINT = "resume.ckpt"


class Phase(Enum):
    """Where a run stands."""

    TRAINING = "training"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class State:
    """How far a run has come on the data set of digest `data`: `epoch` of `epochs` are in its checkpoint."""

    run: str
    epoch: int
    epochs: int
    phase: Phase = Phase.TRAINING
    data: str = ""

    def __str__(self) -> str:
        cut = f"run {self.run} was interrupted at epoch {self.epoch} of {self.epochs}"
        return f"{cut}; to go on: rounds train --resume {self.run}"


def settle(part: Path, path: Path) -> None:
    """Put a file that was written aside in its place: after a crash that holds the old bytes or all the new ones."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


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


def unfinished(folder: Path, ref: str) -> State:
    """The state of a run below the folder that can go on, by its id or a unique prefix.

    Raises UnknownId, CallerFault where the run is done or under way.
    """
    known = sorted(path.parent.name for path in folder.glob("*/state.json"))
    run = pick("run", ref, known, "begin one: rounds train")
    state: State = restore(State, json.loads((folder / run / "state.json").read_bytes()))
    if state.phase is Phase.DONE:
        fault = Fault("the run is done", run, "one that was cut off", "", f"to pack it again: rounds export {run}")
        raise CallerFault("there is nothing to resume", [fault])
    if _is_held(folder / run):
        raise CallerFault(
            "there is nothing to resume", [Fault("the run is under way", run, next="let it come to its end")]
        )
    return state


def _is_held(folder: Path) -> bool:
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
