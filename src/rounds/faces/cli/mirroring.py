"""`rounds sync`, and the child process by which a watch has it done: what watches never loads MLflow itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable

import typer

from rounds.core.ports import Ports
from rounds.faces.cli import say

CHILD_S, AGAIN_S = 120.0, 600.0


def add_to(app: typer.Typer) -> None:
    """Hang the command on `rounds`."""
    app.command()(sync)


def sync(as_json: say.AsJson = False) -> None:
    """Tell the tracker what it was not told yet.

    Runs that waited while it was away, and the versions and champion of the log.
    """
    from rounds.faces.cli import opening
    from rounds.loop import mirror

    with opening.tracked_ports():
        pass
    with opening.ports() as ports:
        waiting, behind = mirror.waiting(ports), mirror.behind(ports)
    versions, left = "are NOT all" if behind else "are", ", ".join(waiting) or "nothing"
    said = f"the versions {versions} in the tracker's registry; {left} waits"
    say.answer({"waiting": waiting, "mirrored": not behind}, as_json, lambda: [said])


def in_child_process() -> Callable[[Ports], None]:
    """A function that has the tracker told, in a process of its own, where it lags behind the log.

    Only where runs are tracked at all, and not again for ten minutes where that did not help. It never fails.
    """
    failed_at = -AGAIN_S

    def follow(ports: Ports) -> None:
        nonlocal failed_at
        from rounds.loop.mirror import behind
        from rounds.wiring.settings import Settings

        tracked = Settings().tracking or (ports.home / "mlflow.db").exists()
        if not tracked or importlib.util.find_spec("mlflow") is None or not behind(ports):
            return
        if time.monotonic() < failed_at + AGAIN_S:
            return
        command = [sys.executable, "-m", "rounds", "--home", str(ports.home), "sync"]
        try:
            subprocess.run(command, stdout=subprocess.DEVNULL, timeout=CHILD_S, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            say.note(f"rounds: the tracker's registry was not told: {error}")
        failed_at = time.monotonic() if behind(ports) else -AGAIN_S

    return follow
