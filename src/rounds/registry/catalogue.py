"""What the log says there is: data sets, runs, bundles, versions, and who served when. A fold over events, nothing
else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rounds.core.errors import DamagedData, Fault, UnknownId
from rounds.core.ids import pick
from rounds.core.records import Event, ModelVersion

LATEST, CHAMPION = "latest", "champion"
SHADOW, CANARY, OFF = "shadow", "canary", "off"
PACKED = ("packed", "recalibrated", "imported")


@dataclass(frozen=True)
class DatasetEntry:
    """A prepared data set; `path` is relative to the workspace."""

    name: str
    digest: str
    path: str
    at: datetime


@dataclass(frozen=True)
class RunEntry:
    """A finished training run; `record` is its TrainedRun as JSON types, its checkpoint relative to the workspace."""

    run: str
    data: str
    record: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True)
class BundleEntry:
    """A packed bundle; `at` is when it was frozen."""

    bundle: str
    path: str
    run: str
    data: str
    parent: str | None
    at: datetime


@dataclass(frozen=True)
class GateEntry:
    """A stored answer of the gate; `frozen` is the data set whose test split it stood on."""

    gate: str
    bundle: str
    against: str | None
    passed: bool
    frozen: str


@dataclass(frozen=True)
class Service:
    """One version's time in service; `until` is None for the champion."""

    version: ModelVersion
    since: datetime
    until: datetime | None
    overruled: str | None = None


@dataclass(frozen=True)
class Staged:
    """A version beside the champion: as SHADOW it looks on at every film, as CANARY it also answers a `share` of them,
    `cap` at most; `id` is the event's."""

    id: str
    version: ModelVersion
    stage: str
    share: float
    cap: int


@dataclass
class Catalogue:
    """The log, folded. `services` are in order of time; `invalid` are events that put a version in service, or let it
    answer a share, and that no passing gate stands behind."""

    datasets: list[DatasetEntry] = field(default_factory=list)
    runs: list[RunEntry] = field(default_factory=list)
    bundles: list[BundleEntry] = field(default_factory=list)
    versions: list[ModelVersion] = field(default_factory=list)
    gates: dict[str, GateEntry] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    invalid: list[Event] = field(default_factory=list)
    staged: Staged | None = None
    _stack: list[ModelVersion] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Catalogue:
        """Fold events in their order; DamagedData where an entry lacks what its kind needs."""
        made = cls()
        for event in events:
            try:
                made._take(event)
            except (KeyError, TypeError, AttributeError) as error:
                then = "`rounds audit` names the first entry that was changed"
                fault = Fault("an entry of the log cannot be read", event.id, event.kind, repr(error), then)
                raise DamagedData("the event log is damaged", [fault]) from error
        return made

    def dataset(self, ref: str) -> DatasetEntry:
        """The data set of NAME (its newest), NAME@DIGEST, a digest, a unique prefix of one, or `latest`; UnknownId."""
        name, _, wanted = ref.partition("@")
        if ref == LATEST and self.datasets:
            return self.datasets[-1]
        named = [entry for entry in self.datasets if entry.name == name]
        if named and not wanted:
            return named[-1]
        among = named if wanted else self.datasets
        digest = pick("data set", wanted or ref, [entry.digest for entry in among], _HINT["data set"])
        return next(entry for entry in reversed(among) if entry.digest == digest)

    def run(self, ref: str) -> RunEntry:
        """The run of an id, a unique prefix, `latest`, or `champion`; UnknownId."""
        if ref == LATEST and self.runs:
            return self.runs[-1]
        if ref == CHAMPION:
            ref = self.bundle(CHAMPION).run
        name = pick("run", ref, [entry.run for entry in self.runs], _HINT["run"])
        return next(entry for entry in reversed(self.runs) if entry.run == name)

    def bundle(self, ref: str) -> BundleEntry:
        """The bundle of an id, a unique prefix, `latest`, `champion`, or a version's number; UnknownId."""
        if ref == LATEST and self.bundles:
            return self.bundles[-1]
        if ref == CHAMPION:
            ref = self._champion_or_fault().bundle
        ref = next((version.bundle for version in self.versions if version.version == ref), ref)
        name = pick("bundle", ref, [entry.bundle for entry in self.bundles], _HINT["bundle"])
        return next(entry for entry in self.bundles if entry.bundle == name)

    def version(self, ref: str) -> ModelVersion:
        """The version of a number (`v3`), `champion`, or a bundle's id; UnknownId."""
        if ref == CHAMPION:
            return self._champion_or_fault()
        known = {version.version: version for version in self.versions}
        if ref in known:
            return known[ref]
        name = pick("version", ref, [version.bundle for version in self.versions], _HINT["bundle"])
        return next(version for version in self.versions if version.bundle == name)

    @property
    def champion(self) -> ModelVersion | None:
        """The version in service, with the time it went there."""
        return self._stack[-1] if self._stack else None

    def previous(self) -> ModelVersion | None:
        """The version that a rollback goes to: the last one before the champion that once passed the gate, and never
        one that was rolled back from."""
        passed = {version.version for version in passed_once(self)}
        return next((known for known in reversed(self._stack[:-1]) if known.version in passed), None)

    @property
    def frozen(self) -> str | None:
        """The digest of the data set whose test split guards now: that of the last gate record."""
        return next((gate.frozen for gate in reversed(self.gates.values())), None)

    @property
    def candidates(self) -> int:
        """How many candidates the gate has judged against a champion, on whatever test set: the level is spent over all
        of them, so that naming another set buys nothing."""
        return sum(gate.against is not None for gate in self.gates.values())

    @property
    def promotions(self) -> int:
        """How many of these it let pass."""
        return sum(gate.passed for gate in self.gates.values() if gate.against is not None)

    def intervals(self) -> list[dict[str, Any]]:
        """Every version with the times it served, in order; one that never served has no times."""
        served = [
            {"version": s.version.version, "bundle": s.version.bundle, "since": s.since, "until": s.until}
            | {"overruled": s.overruled, "provisional": s.version.provisional}
            for s in self.services
        ]
        names = {s.version.version for s in self.services}
        waiting = [v for v in self.versions if v.version not in names]
        blank = {"since": None, "until": None, "overruled": None, "provisional": False}
        return served + [{"version": v.version, "bundle": v.bundle, **blank} for v in waiting]

    def _champion_or_fault(self) -> ModelVersion:
        if self.champion is None:
            fault = Fault("nothing was promoted yet", CHAMPION, "a champion", "none", "promote a bundle first")
            raise UnknownId("there is no champion", [fault])
        return self.champion

    def _take(self, event: Event) -> None:
        evidence = event.evidence
        if event.kind == "prepared":
            self.datasets.append(DatasetEntry(evidence["name"], evidence["digest"], evidence["path"], event.at))
        elif event.kind == "trained":
            self.runs.append(RunEntry(evidence["run"], evidence["data"], evidence["record"], event.at))
        elif event.kind in PACKED:
            made = BundleEntry(
                evidence["bundle"],
                evidence["path"],
                evidence["run"],
                evidence["data"],
                evidence.get("parent"),
                event.at,
            )
            if all(known.bundle != made.bundle for known in self.bundles):
                self.bundles.append(made)
        elif event.kind == "registered":
            made_version = ModelVersion(evidence["version"], evidence["bundle"], event.at)
            # The first to take a number has it, and a bundle keeps its first one.
            if all(made_version.version != v.version and made_version.bundle != v.bundle for v in self.versions):
                self.versions.append(made_version)
        elif event.kind == "gated":
            self.gates[event.id] = GateEntry(
                event.id, evidence["bundle"], evidence["against"], evidence["passed"], evidence["frozen"]
            )
        elif event.kind in ("promoted", "rolled_back"):
            self._serve(event)
        elif event.kind == "staged":
            self._stage(event)

    def _stage(self, event: Event) -> None:
        """Put a version beside the champion, or take it away; only what the gate let pass may answer."""
        evidence = event.evidence
        gate = self.gates.get(evidence.get("gate") or "")
        passed = gate is not None and gate.bundle == evidence["bundle"] and (gate.passed or evidence.get("overruled"))
        if evidence["stage"] == CANARY and not passed:
            self.invalid.append(event)
            return
        version = ModelVersion(evidence["version"], evidence["bundle"], event.at, evidence.get("gate"))
        there = Staged(event.id, version, evidence["stage"], evidence["share"], evidence["cap"])
        self.staged = None if evidence["stage"] == OFF else there

    def _serve(self, event: Event) -> None:
        """Put a version in service, unless no gate ever let that very bundle pass and no person overruled one."""
        evidence, gate = event.evidence, self.gates.get(event.evidence.get("gate", ""))
        overruled = evidence.get("overruled")
        if gate is None or gate.bundle != evidence["bundle"] or not (gate.passed or overruled):
            self.invalid.append(event)
            return
        # What was staged was measured against the champion before.
        self.staged = None
        provisional = bool(evidence.get("provisional"))
        version = ModelVersion(evidence["version"], evidence["bundle"], event.at, gate.gate, provisional)
        if self.services and self.services[-1].until is None:
            last = self.services[-1]
            self.services[-1] = Service(last.version, last.since, event.at, last.overruled)
        self.services.append(Service(version, event.at, None, overruled))
        if event.kind == "rolled_back":
            left = {known.version for known in self._stack[-1:]}
            below = [i for i, known in enumerate(self._stack[:-1]) if known.version == version.version]
            del self._stack[below[-1] if below else -1 :]
            self._stack = [known for known in self._stack if known.version not in left]
        self._stack.append(version)


_HINT: Mapping[str, str] = {
    "data set": "`rounds history` lists what was prepared; `rounds data prepare SOURCE --name N` makes one",
    "run": "`rounds history` lists what was trained; `rounds train` makes one",
    "bundle": "`rounds models` lists versions and `rounds history` all bundles; `rounds train` makes one",
}


def passed_once(catalogue: Catalogue) -> Sequence[ModelVersion]:
    """Versions that some gate record let pass: where a rollback may go."""
    passed = {gate.bundle for gate in catalogue.gates.values() if gate.passed}
    return [version for version in catalogue.versions if version.bundle in passed]
