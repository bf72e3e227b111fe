"""What a data card and a model card say: gathered from records, the log, the ledger and what people declared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rounds.core.ids import plain, restore
from rounds.core.ports import Ports
from rounds.core.records import Bundle, DatasetVersion, EvalReport, Event, TrainedRun
from rounds.data.findings import Survey
from rounds.data.known import known
from rounds.data.statistics import statistics
from rounds.imaging.packed import Films, open_dataset
from rounds.loop import checking, intake, measuring, ruling, statements
from rounds.loop.limits import data_limits, model_limits
from rounds.registry.catalogue import Catalogue

SHOWN_VALUES = 12
# Beside what is asked of the bundle itself, these events say what became of it.
_STORY = (
    "packed",
    "imported",
    "recalibrated",
    "registered",
    "gated",
    "promoted",
    "rolled_back",
    "refused",
    "described",
)


def data_card(ports: Ports, ref: str) -> dict[str, Any]:
    """The facts of a data set as JSON types; it is checked anew, at the cost of `rounds data check`.

    Keys: card ("data"), name, digest, written; `said` (by heading: text, by, at, of; or null), `known` (what is
    published of its sources), `prepared` (or null where it was not made here), `counts` as `statistics` has them,
    `attributes`, `checks` (severity, kind, what, and how many films and pairs), `unchecked`, `nameless` (films
    that bear pseudonyms only), `bundles` made from it, `cost`, and `limits`, in sentences. Raises:
    UnknownId, DamagedData.
    """
    dataset, survey = checking.check(ports, ref)
    events = ports.events.read()
    prepared = _prepared(events, dataset.digest)
    sources = prepared["sources"] if prepared else []
    nameless = intake.nameless(dataset)
    if prepared and nameless:
        # The place of a DICOM tree may name somebody: the log is the operator's, a card is passed on.
        prepared |= {"sources": ["a DICOM tree"], "why": f"{prepared['taken']} films"}
    facts = {
        "card": "data",
        **_named(dataset),
        "written": plain(ports.clock()),
        "said": statements.of_data(events, dataset.digest),
        "known": [{"of": source, **told} for source in sources if (told := known(source))],
        "prepared": prepared,
        "counts": statistics(dataset),
        "attributes": _attributes(Films(dataset.path).rows().attributes),
        **_checks(survey),
        "nameless": nameless,
        "bundles": _bundles_of(events, dataset.digest),
        "cost": _data_cost(ports, dataset, events),
    }
    return facts | {"limits": data_limits(facts)}


def model_card(ports: Ports, ref: str) -> dict[str, Any]:
    """The facts of a bundle as JSON types.

    Keys: card ("model"), bundle, variant, written, `parents`, `classes`, `imaging`, `calibration`, `files` (bytes by
    name), `said`, `run` (or null), `policy` (how the operating point was chosen, or null), `data` (or null where this
    workspace lacks it), `evaluations` (the newest by data set and split), `robustness` and `comparisons` where
    measured, `variant_of` (how it compares with the bundle it varies), `imported`, `service`, `gate`, `rules`,
    `alarms`, `history`, `cost`, and `limits`, in sentences. Raises: UnknownId, DamagedBundle, DamagedData.
    """
    bundle = measuring.open_bundle(ports, ref)
    events = ports.events.read()
    own = [event for event in events if event.evidence.get("bundle") == bundle.digest]
    made = next((event for event in own if event.kind in ("packed", "imported", "recalibrated")), None)
    reports = list(_reports(ports, own, {entry.digest: entry.name for entry in Catalogue.of(events).datasets}))
    facts = {
        "card": "model",
        "bundle": bundle.digest,
        "variant": bundle.variant,
        "written": plain(ports.clock()),
        "parents": plain(bundle.parents),
        "classes": list(bundle.classes),
        "imaging": plain(bundle.imaging),
        "calibration": plain(bundle.calibration),
        "scores": list(bundle.scoring.names),
        "files": {file.name: file.stat().st_size for file in sorted(bundle.path.iterdir())},
        "said": statements.of_model(events, bundle.digest, bundle.parents.bundle),
        "run": _run(events, bundle.parents.run),
        "policy": _policy(events, bundle),
        "data": _data(ports, events, bundle.parents.data),
        "evaluations": _newest(reports, bundle.parents.data),
        "robustness": next((_at(one) | one["robustness"] for one in reversed(reports) if "robustness" in one), None),
        "comparisons": _comparisons(reports),
        "variant_of": made.evidence.get("comparison") if made else None,
        "imported": dict(made.evidence) if made and made.kind == "imported" and "file" in made.evidence else None,
        **_service(events, bundle.digest),
        "rules": plain(ruling.in_force(ports).gate),
        "history": [_told(event) for event in own if event.kind in _STORY],
        "cost": _model_cost(ports, bundle),
    }
    return facts | {"limits": model_limits(facts)}


def _named(dataset: DatasetVersion) -> dict[str, str]:
    return {"name": dataset.name, "digest": dataset.digest}


def _told(event: Event) -> dict[str, Any]:
    return {"at": plain(event.at), "kind": event.kind, "who": event.who, "why": event.why}


def _prepared(events: Sequence[Event], digest: str) -> dict[str, Any] | None:
    """The last time that this content was made here; what an older release did not write down is null."""
    made = [event for event in events if event.kind == "prepared" and event.evidence.get("digest") == digest]
    if not made:
        return None
    keys = ("taken", "refused", "reasons", "repaired", "burned_in")
    told = {key: made[-1].evidence.get(key) for key in keys}
    return {**_told(made[-1]), "sources": list(made[-1].evidence.get("sources", [])), **told}


def _attributes(rows: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    counted: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in row.items():
            if value.strip():
                counted.setdefault(name, Counter())[value] += 1
    return [
        {
            "name": name,
            "films": values.total(),
            "distinct": len(values),
            "values": dict(values.most_common(SHOWN_VALUES)),
        }
        for name, values in sorted(counted.items())
    ]


def _checks(survey: Survey) -> dict[str, Any]:
    """What was found, without the names of films: those are in the answer of `rounds data check`."""
    rows = [
        {"severity": one.severity, "kind": one.kind, "what": one.what, "films": len(one.films), "pairs": len(one.pairs)}
        for one in survey.findings
    ]
    return {"checks": rows, "unchecked": list(survey.skipped)}


def _bundles_of(events: Sequence[Event], digest: str) -> list[dict[str, Any]]:
    catalogue = Catalogue.of(events)
    versions = {version.bundle: version.version for version in catalogue.versions}
    return [
        {"bundle": entry.bundle, "version": versions.get(entry.bundle), "at": plain(entry.at)}
        for entry in catalogue.bundles
        if entry.data == digest
    ]


def _data_cost(ports: Ports, dataset: DatasetVersion, events: Sequence[Event]) -> dict[str, Any] | None:
    """Of the preparation that this version came of: the last of its name that began before it was entered."""
    made = [event for event in events if event.kind == "prepared" and event.evidence.get("digest") == dataset.digest]
    if not made or made[-1].who != "prepare":
        return None
    costs = [cost for cost in ports.ledger.read() if (cost.kind, cost.subject) == ("prepare", dataset.name)]
    before = [cost for cost in costs if cost.at <= made[-1].at]
    return {"seconds": before[-1].seconds, "cpu_seconds": before[-1].cpu_seconds} if before else None


def _run(events: Sequence[Event], name: str) -> dict[str, Any] | None:
    entry = next((entry for entry in reversed(Catalogue.of(events).runs) if entry.run == name), None)
    if entry is None:
        return None
    run: TrainedRun = restore(TrainedRun, entry.record)
    told: dict[str, Any] = {"at": plain(entry.at), **plain(run)}
    return {key: value for key, value in told.items() if key != "checkpoint"}


def _policy(events: Sequence[Event], bundle: Bundle) -> dict[str, Any] | None:
    """How the operating point was chosen: as the bundle was made, or the one whose operating point it kept."""
    wanted = (bundle.digest, bundle.parents.bundle) if bundle.variant == "int8" else (bundle.digest,)
    packed = {event.evidence["bundle"]: event for event in events if event.kind in ("packed", "imported")}
    for digest in wanted:
        if digest in packed and "export" in packed[digest].evidence:
            operating: dict[str, Any] = packed[digest].evidence["export"]["operating"]
            return operating
    return None


def _data(ports: Ports, events: Sequence[Event], digest: str) -> dict[str, Any] | None:
    entry = next((entry for entry in reversed(Catalogue.of(events).datasets) if entry.digest == digest), None)
    if entry is None:
        return None
    dataset = open_dataset(ports.home / entry.path)
    prepared = _prepared(events, digest)
    sources = prepared["sources"] if prepared else []
    return {
        **_named(dataset),
        "splits": dict(dataset.splits),
        "subjects_known": dataset.subjects_known,
        "notes": list(dataset.notes),
        "sources": sources,
        "known": [{"of": source, **told} for source in sources if (told := known(source))],
        "said": statements.of_data(events, digest),
    }


def _reports(ports: Ports, own: Sequence[Event], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Every stored report on a bundle in the order of time, as its public self with what the card needs beside it."""
    for event in own:
        if event.kind == "evaluated":
            report: EvalReport = restore(EvalReport, json.loads(ports.blobs.get(event.evidence["report"])))
            more = {key: report.curves.get(key) for key in ("subjects", "ms")}
            yield {"at": plain(event.at), "name": names.get(report.data, ""), **more, **report.public()}


def _newest(reports: Sequence[Mapping[str, Any]], made_from: str) -> list[dict[str, Any]]:
    """The last report of each data set and split; those of the data set that the model came of first, test first."""
    newest = {(one["data"], one["split"]): one for one in reports}
    order = ("test", "val", "calibration", "train")
    ordered = sorted(newest.values(), key=lambda one: (one["data"] != made_from, order.index(one["split"]), one["at"]))
    extra = ("robustness", "comparison")
    return [
        {key: value for key, value in one.items() if key not in extra} | {"own": one["data"] == made_from}
        for one in ordered
    ]


def _at(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("at", "name", "data", "split")}


def _comparisons(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last comparison with each other bundle on each data set and split, without the films."""
    last = {
        (one["comparison"]["against"], one["data"], one["split"]): _at(one)
        | {key: value for key, value in one["comparison"].items() if key != "films"}
        for one in reports
        if "comparison" in one
    }
    return list(last.values())


def _service(events: Sequence[Event], digest: str) -> dict[str, Any]:
    catalogue = Catalogue.of(events)
    version = next((known.version for known in catalogue.versions if known.bundle == digest), None)
    gates = [event for event in events if event.kind == "gated" and event.evidence.get("bundle") == digest]
    alarms = [event for event in events if event.kind == "alarm" and event.evidence.get("version") == version]
    champion = catalogue.champion
    times = [
        {"since": s.since, "until": s.until, "overruled": s.overruled}
        for s in catalogue.services
        if s.version.bundle == digest
    ]
    return {
        "version": version,
        "champion": champion is not None and champion.bundle == digest,
        "service": plain(times),
        "gate": _told(gates[-1]) | dict(gates[-1].evidence["report"]) if gates else None,
        "alarms": [_told(event) for event in alarms] if version else [],
    }


def _model_cost(ports: Ports, bundle: Bundle) -> dict[str, dict[str, float]]:
    """What the ledger holds of packing and measuring, summed; training is in the record of the run."""
    wanted = {("export", bundle.parents.run): "packing", ("evaluate", bundle.digest): "measuring"}
    found: dict[str, dict[str, float]] = {}
    for cost in ports.ledger.read():
        if name := wanted.get((cost.kind, cost.subject)):
            row = found.setdefault(name, {"times": 0, "seconds": 0.0, "cpu_seconds": 0.0})
            row["times"] += 1
            row["seconds"] += cost.seconds
            row["cpu_seconds"] += cost.cpu_seconds
    return found
