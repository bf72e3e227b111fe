"""One process at a time: locks of a workspace that end with the process that holds them, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(home: Path, what: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the workspace's only turn at `what` for the length of the block; it holds between the processes and threads
    of one machine. Without `wait` the block runs all the same, and False says that another has the turn."""
    with (home / f".{what}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = True
        except BlockingIOError:
            mine = False
        yield mine
