"""What needs torch: training and packing, each entered in the log."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import rounds.core
from rounds.core.errors import Fault, WorldFault
from rounds.core.ids import plain, restore
from rounds.core.ports import Ports
from rounds.core.records import Bundle, TrainedRun
from rounds.core.specs import ExportSpec, TrainSpec
from rounds.costs.meter import metered
from rounds.export.pack import pack
from rounds.loop import intake
from rounds.registry.catalogue import Catalogue
from rounds.train.fit import fit


def train(ports: Ports, spec: TrainSpec, export_spec: ExportSpec) -> dict[str, Any]:
    """Fit, track, pack; the public answer of `rounds train`."""
    dataset = intake.find(ports, spec.data)
    with metered(ports.ledger, ports.clock, "train", dataset.digest):
        run = fit(spec, dataset, runs=ports.runs, folder=ports.checkpoints, code=code_revision())
    record = plain(run) | {"checkpoint": str(run.checkpoint.relative_to(ports.home))}
    evidence: dict[str, Any] = {
        "run": run.run,
        "data": run.data,
        "config": run.config,
        "code": run.code,
        "seed": spec.seed,
    }
    ports.events.append("trained", who="train", why=f"on {dataset.name}", evidence=evidence | {"record": record})
    return _answer(run, _pack(ports, run, export_spec))


def export(ports: Ports, ref: str, export_spec: ExportSpec) -> dict[str, Any]:
    """Pack a finished run again; the public answer of `rounds export`."""
    found = Catalogue.of(ports.events.read()).run(ref)
    record = restore(TrainedRun, found.record)
    run = restore(TrainedRun, dict(found.record) | {"checkpoint": str(ports.home / record.checkpoint)})
    if not run.checkpoint.is_file():
        fault = Fault("the weights are gone", str(run.checkpoint), "a checkpoint", "no file", "train again")
        raise WorldFault(f"run {run.run} cannot be packed", [fault])
    bundle = _pack(ports, run, export_spec)
    return {"run": run.run, "bundle": bundle.digest, "path": str(bundle.path)}


def interrupted(ports: Ports) -> list[str]:
    """What earlier commands left unfinished, said once: their runs are closed as killed, their whole checkpoints
    stay."""
    from rounds.train.resume import interrupted as cut_off

    if ports.runs is not None:
        ports.runs.unfinished()
    return [str(found) for found in cut_off(ports.checkpoints)]


def code_revision() -> str:
    """The git revision of the code in use with `+` where it was changed since, or the version of the installed
    package."""
    place = Path(rounds.core.__file__).parent
    try:
        git = ["git", "-C", str(place)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        state = subprocess.run(
            [*git, "status", "--porcelain", "--", str(place.parent)], capture_output=True, timeout=10
        )
        return head.stdout.strip() + ("+" if state.stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        from importlib.metadata import version

        return f"rounds {version('rounds')}"


def _pack(ports: Ports, run: TrainedRun, spec: ExportSpec) -> Bundle:
    dataset = intake.find(ports, run.data)
    with metered(ports.ledger, ports.clock, "export", run.run):
        bundle = pack(run, dataset, spec, folder=ports.bundles)
    evidence = {
        "bundle": bundle.digest,
        "path": str(bundle.path.relative_to(ports.home)),
        "run": run.run,
        "data": run.data,
    }
    ports.events.append("packed", who="export", why=f"run {run.run}", evidence=evidence | {"parent": None})
    return bundle


def _answer(run: TrainedRun, bundle: Bundle) -> dict[str, Any]:
    answer: dict[str, Any] = {"run": run.run, "bundle": bundle.digest, "path": str(bundle.path), "seed": run.spec.seed}
    return answer | {"seconds": run.seconds, "cpu_seconds": run.cpu_seconds, "val": dict(run.val)}
