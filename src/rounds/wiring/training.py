"""Settings to open ports with the experiment tracker beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from logging import getLogger
from pathlib import Path

from rounds.core.errors import BadOverride, Fault
from rounds.core.ports import Ports, Runs
from rounds.core.specs import TrackingSpec
from rounds.wiring import serving
from rounds.wiring.settings import Settings

Tell = Callable[[str], None]
NAMES = ("mlflow", "wandb", "both", "none")
MODES = ("", "online", "offline", "disabled")
WARN: Tell = getLogger("rounds").warning
MLFLOW = TrackingSpec()


@contextmanager
def open_ports(settings: Settings, tracking: TrackingSpec = MLFLOW, *, tell: Tell = WARN) -> Iterator[Ports]:
    """What `serving.open_ports` opens, and the trackers that are asked for; `tell` hears, once, of one that is away.

    What a tracker was not told when the block ends waits below the workspace. Raises BadOverride where no such tracker
    is known, WorldFault where its package is not installed.
    """
    faults = [
        Fault(what, where, " or ".join(filter(None, known)), repr(got))
        for what, where, known, got in (
            ("no such tracker", "tracking.name", NAMES, tracking.name),
            ("no such mode of W&B", "tracking.mode", MODES, tracking.mode),
        )
        if got not in known
    ]
    if faults:
        raise BadOverride(f"{len(faults)} of the settings cannot be used", faults)
    with serving.open_ports(settings) as ports, ExitStack() as stack:
        made = _trackers(settings, tracking, ports.home, tell, stack)
        if len(made) > 1:
            from rounds.stores.both import Both

            yield replace(ports, runs=Both(*made))
        else:
            yield replace(ports, runs=made[0] if made else None)


def _trackers(settings: Settings, spec: TrackingSpec, home: Path, tell: Tell, stack: ExitStack) -> list[Runs]:
    made: list[Runs] = []
    if spec.name in ("mlflow", "both"):
        from rounds.stores.runs import MlflowRuns
        from rounds.stores.spool import Spooled

        tracker = MlflowRuns(settings.tracking_uri, home / "artifacts", spec.project)
        made.append(spooled := Spooled(tracker, home / "spool", tell))
        stack.callback(spooled.close)
    if spec.name in ("wandb", "both"):
        from rounds.stores.wandb import WandbRuns

        made.append(wandb := WandbRuns(spec, home, tell))
        stack.callback(wandb.close)
    return made
