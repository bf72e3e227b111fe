"""A retrain is a child process: out of memory there cannot take the watcher along."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rounds.core.errors import Fault, WorldFault


def in_child_process(home: Path) -> Callable[[str, Sequence[str]], str]:
    """A function of data set digest and overrides that trains in a process of its own and returns the bundle's
    digest."""

    def retrain(data: str, overrides: Sequence[str]) -> str:
        command = [sys.executable, "-m", "rounds", "--home", str(home), "train", "--data", data, "--json", *overrides]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            fault = Fault(
                "the retrain failed", data, "exit 0", f"exit {done.returncode}: {done.stdout[-300:]}", "see above"
            )
            raise WorldFault("the model could not be trained again; the champion stays", [fault])
        return str(json.loads(done.stdout)["bundle"])

    return retrain
