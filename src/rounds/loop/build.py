"""What needs torch: training and packing, each entered in the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rounds.core.errors import Fault, NotWritable, WorldFault
from rounds.core.ids import plain, restore, write_whole
from rounds.core.ports import Ports
from rounds.core.records import Bundle, DatasetVersion, TrainedRun
from rounds.core.specs import ExportSpec, TrainSpec
from rounds.costs.meter import metered
from rounds.export.pack import pack
from rounds.loop import checking, intake
from rounds.loop.entering import BUNDLES, enter
from rounds.registry.catalogue import Catalogue
from rounds.train.fit import fit
from rounds.train.resume import unfinished
from rounds.train.sheet import contact_sheet as train_sheet
from rounds.train.surroundings import code_revision


def train(ports: Ports, spec: TrainSpec, export_spec: ExportSpec) -> dict[str, Any]:
    """Fit, track, pack; the public answer of `rounds train`. LeakFound where films stand in two splits."""
    return _train(ports, spec, intake.find(ports, spec.data), export_spec)


def resume(ports: Ports, ref: str, export_spec: ExportSpec) -> dict[str, Any]:
    """Go on with a run that was cut off, as it began and on the same films; the answer of `train`."""
    state = unfinished(ports.checkpoints, ref)
    began = json.loads((ports.checkpoints / state.run / "config.json").read_bytes())
    spec: TrainSpec = restore(TrainSpec, began)
    return _train(ports, spec, intake.find(ports, state.data or spec.data), export_spec, state.run)


def contact_sheet(ports: Ports, spec: TrainSpec, path: Path) -> None:
    """Draw what a network would be shown by this training, as a PNG file; NotWritable."""
    drawn = train_sheet(spec, intake.find(ports, spec.data))
    try:
        write_whole(path, drawn)
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(path), "a place to write a picture")
        raise NotWritable("the contact sheet cannot be kept", [fault]) from error


def _train(
    ports: Ports, spec: TrainSpec, dataset: DatasetVersion, export_spec: ExportSpec, cut_off: str | None = None
) -> dict[str, Any]:
    checking.refuse_leaks(ports, dataset)
    with metered(ports.ledger, ports.clock, "train", dataset.digest):
        run = fit(spec, dataset, runs=ports.runs, folder=ports.checkpoints, code=code_revision(), resume=cut_off)
    record = plain(run) | {"checkpoint": str(run.checkpoint.relative_to(ports.home))}
    evidence: dict[str, Any] = {
        "run": run.run,
        "data": run.data,
        "config": run.config,
        "code": run.code,
        "seed": spec.seed,
    }
    ports.events.append("trained", who="train", why=f"on {dataset.name}", evidence=evidence | {"record": record})
    bundle = _pack(ports, run, export_spec)
    enter(ports, run, dataset, bundle)
    return _answer(run, bundle)


def export(ports: Ports, ref: str, export_spec: ExportSpec) -> dict[str, Any]:
    """Pack a finished run again; the public answer of `rounds export`."""
    found = Catalogue.of(ports.events.read()).run(ref)
    record = restore(TrainedRun, found.record)
    run = restore(TrainedRun, dict(found.record) | {"checkpoint": str(ports.home / record.checkpoint)})
    if not run.checkpoint.is_file():
        fault = Fault("the weights are gone", str(run.checkpoint), "a checkpoint", "no file", "train again")
        raise WorldFault(f"run {run.run} cannot be packed", [fault])
    bundle = _pack(ports, run, export_spec)
    if ports.runs is not None:
        ports.runs.keep(run.run, bundle.path, BUNDLES)
    return {"run": run.run, "bundle": bundle.digest, "path": str(bundle.path)}


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
    ports.events.append(
        "packed", who="export", why=f"run {run.run}", evidence=evidence | {"parent": None, "export": plain(spec)}
    )
    return bundle


def _answer(run: TrainedRun, bundle: Bundle) -> dict[str, Any]:
    answer: dict[str, Any] = {"run": run.run, "bundle": bundle.digest, "path": str(bundle.path), "seed": run.spec.seed}
    return answer | {"seconds": run.seconds, "cpu_seconds": run.cpu_seconds, "val": dict(run.val)}
