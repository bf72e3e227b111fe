"""Sources become versioned data sets that the log knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rounds.core.ports import Ports
from rounds.core.records import DatasetVersion, Prepared
from rounds.core.specs import DataSpec
from rounds.costs.meter import metered
from rounds.data import prepare as preparing
from rounds.data import statistics as describing
from rounds.imaging.packed import Films, open_dataset
from rounds.loop import exchange
from rounds.registry.catalogue import Catalogue

Progress = Callable[[int, int], None]
# What a film of a DICOM tree is called: two pseudonyms, see `data.dicom`.
_NAMELESS = re.compile(r"(.*/)?[0-9a-f]{32}/[0-9a-f]{32}\.png")


def prepare(ports: Ports, spec: DataSpec, *, mirror: str | None = None, progress: Progress | None = None) -> Prepared:
    """Take sources in and append `prepared`; LeakFound and BadSource leave neither files nor an event behind."""
    cache = ports.home / "cache"
    with metered(ports.ledger, ports.clock, "prepare", spec.name):
        prepared = preparing.prepare(
            spec, folder=ports.datasets, key=ports.secret, cache=cache, mirror=mirror, progress=progress
        )
    why = f"{prepared.taken} films from {' and '.join((spec.source, *spec.more))}"
    enter(ports, prepared.dataset, why=why, told=_told(spec, prepared))
    return prepared


def nameless(dataset: DatasetVersion) -> int:
    """How many films bear pseudonyms only, as those of DICOM trees do. Raises: DamagedData."""
    return sum(_NAMELESS.fullmatch(name) is not None for name in Films(dataset.path).rows().names)


def reasons(refused: Iterable[tuple[str, str]]) -> dict[str, int]:
    """How often each reason occurs, by its first words: what follows them concerns one file."""
    return dict(Counter(re.split(r"[;,:(]| of ", why)[0].strip() for _, why in refused).most_common())


def enter(
    ports: Ports, dataset: DatasetVersion, *, why: str, who: str = "prepare", told: Mapping[str, Any] | None = None
) -> None:
    """Make the log know a data set as the newest, with what is `told` of its making; one that is the newest already is
    not entered again."""
    known = Catalogue.of(ports.events.read()).datasets
    if known and (known[-1].name, known[-1].digest) == (dataset.name, dataset.digest):
        return
    evidence = {"name": dataset.name, "digest": dataset.digest, "path": str(dataset.path.relative_to(ports.home))}
    ports.events.append("prepared", who=who, why=why, evidence=evidence | dict(told or {}))


def find(ports: Ports, ref: str) -> DatasetVersion:
    """The data set that NAME, NAME@DIGEST, a digest, a unique prefix, `latest` or its folder names; one that lies
    outside is brought into the workspace. UnknownId, DamagedData."""
    known = Catalogue.of(ports.events.read())
    if not exchange.is_dataset(Path(ref)):
        return open_dataset(ports.home / known.dataset(ref).path)
    dataset = exchange.take_dataset(ports, Path(ref))
    if all(entry.digest != dataset.digest for entry in known.datasets):
        enter(ports, dataset, why=f"a folder with {sum(dataset.splits.values())} films", who="import")
    return dataset


def statistics(ports: Ports, ref: str) -> dict[str, Any]:
    """Films per split and class, subjects, sizes, and the measures that the watch uses."""
    dataset = find(ports, ref)
    return {"name": dataset.name, "digest": dataset.digest, **describing.statistics(dataset)}


def _told(spec: DataSpec, prepared: Prepared) -> dict[str, Any]:
    """What a data card says of the making, in counts. A reason may name a file, and a file of a DICOM tree somebody:
    of such a source the log keeps none."""
    return {
        "sources": [spec.source, *spec.more],
        "taken": prepared.taken,
        "refused": len(prepared.refused),
        "reasons": {} if nameless(prepared.dataset) else reasons(prepared.refused),
        "repaired": dict(Counter(did for _, did, _ in prepared.repaired)),
        "burned_in": spec.burned_in,
    }
