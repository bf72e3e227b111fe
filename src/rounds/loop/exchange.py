"""Data sets, runs and bundles as folders of their own, as a pipeline hands them from stage to stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from rounds.core.errors import DamagedData, Fault, NotWritable, UnknownId
from rounds.core.ids import canonical, restore, write_whole
from rounds.core.ports import Ports
from rounds.core.records import Bundle, DatasetVersion, TrainedRun
from rounds.imaging.packed import open_dataset
from rounds.registry.catalogue import Catalogue
from rounds.runtime import bundle as bundles

RUN = "run.json"
# rebuilt, or held, where it is needed: no part of what a folder says
_NOT_CONTENT = {"cache", "lock"}


def give_dataset(dataset: DatasetVersion, out: Path) -> None:
    """Copy a data set, without its pixel cache, to a folder that replaces what stood there; NotWritable."""
    _copied(dataset.path, out)


def give_run(ports: Ports, ref: str, out: Path) -> None:
    """Copy a finished run with what the log says of it to a folder; UnknownId, NotWritable."""
    found = Catalogue.of(ports.events.read()).run(ref)
    record = restore(TrainedRun, found.record)
    _copied((ports.home / record.checkpoint).parent, out)
    write_whole(out / RUN, canonical(dict(found.record) | {"checkpoint": Path(record.checkpoint).name}))


def give_bundle(bundle: Bundle, out: Path) -> None:
    """Copy a bundle to a folder of any name; NotWritable."""
    _copied(bundle.path, out)


def is_dataset(path: Path) -> bool:
    """Whether a folder says of itself that it holds a data set."""
    return (path / "dataset.json").is_file()


def take_dataset(ports: Ports, path: Path) -> DatasetVersion:
    """Bring a data set that lies in a folder into the workspace, verified; what is there already stays.

    Raises UnknownId, DamagedData.
    """
    outside = open_dataset(path)
    place = ports.datasets / outside.digest
    if not place.exists():
        _copied(outside.path, place)
    return open_dataset(place)


def find_run(ports: Ports, ref: str) -> str:
    """The id of the run that an id, a unique prefix, `latest`, `champion` or a folder names; UnknownId, DamagedData."""
    return take_run(ports, Path(ref)) if Path(ref).is_dir() else Catalogue.of(ports.events.read()).run(ref).run


def take_run(ports: Ports, path: Path) -> str:
    """Bring a run that lies in a folder into the workspace and the log; its id. UnknownId, DamagedData."""
    try:
        record = json.loads((path / RUN).read_bytes())
        run: TrainedRun = restore(TrainedRun, record)
    except FileNotFoundError as error:
        fault = Fault("no run in this folder", str(path), f"a folder with {RUN}", next="rounds train --out FOLDER")
        raise UnknownId(f"no run at {path}", [fault]) from error
    except (ValueError, KeyError, TypeError) as error:
        fault = Fault("not the record of a run", str(path / RUN), "what rounds train --out wrote", repr(error))
        raise DamagedData(f"the run at {path} is damaged", [fault]) from error
    place = ports.checkpoints / run.run
    if not place.exists():
        _copied(path, place)
    if all(entry.run != run.run for entry in Catalogue.of(ports.events.read()).runs):
        inside = {**record, "checkpoint": str((place / run.checkpoint.name).relative_to(ports.home))}
        evidence = {"run": run.run, "data": run.data, "config": run.config, "code": run.code, "seed": run.spec.seed}
        ports.events.append("trained", who="import", why="a run from a folder", evidence=evidence | {"record": inside})
    return run.run


def take_bundle(ports: Ports, bundle: Bundle, who: str) -> Bundle:
    """Bring a bundle that lies in a folder of its own into the workspace and the log; one that is known stays."""
    if any(entry.bundle == bundle.digest for entry in Catalogue.of(ports.events.read()).bundles):
        return bundle
    place = ports.bundles / bundle.digest
    if not place.exists():
        _copied(bundle.path, place)
    parents = bundle.parents
    facts: dict[str, str | None] = {
        "bundle": bundle.digest,
        "path": str(place.relative_to(ports.home)),
        "run": parents.run,
    }
    facts |= {"data": parents.data, "parent": parents.bundle}
    ports.events.append("imported", who=who, why="a bundle from a folder", evidence=facts)
    return bundles.read(place)


def _copied(source: Path, out: Path) -> None:
    """Copy a folder's content, whole or not at all, over what stood there."""
    part = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, part, ignore=_leave_out)
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(out), "a folder to write to", next="name another: --out")
        raise NotWritable(f"cannot write {out}", [fault]) from error


def _leave_out(_: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name in _NOT_CONTENT or name.endswith(".part")]
