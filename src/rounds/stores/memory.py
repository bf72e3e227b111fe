"""The same ports in memory: for tests, and wherever nothing needs to outlive the process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rounds.core.errors import Fault, UnknownId
from rounds.core.ids import canonical, new_id
from rounds.core.ids import digest as digest_of
from rounds.core.ports import Clock, Ports
from rounds.core.records import GENESIS, Captured, Cost, Event, Label, Shadowed
from rounds.stores.rows_chain import chained, utc_now


class MemoryBlobs:
    """Bytes by their digest."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Keep the bytes once; return their digest."""
        digest = digest_of(data)
        self._kept.setdefault(digest, bytes(data))
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes; UnknownId where absent."""
        data = self._kept.get(digest)
        if data is None:
            fault = Fault("no such blob", digest, "the digest of kept bytes", "none", "it may have been erased")
            raise UnknownId(f"no blob {digest[:12]!r}", [fault])
        return data

    def has(self, digest: str) -> bool:
        """Whether bytes of this digest are kept."""
        return digest in self._kept

    def size(self, digest: str) -> int | None:
        """How many bytes are kept under this digest; None where there are none."""
        data = self._kept.get(digest)
        return None if data is None else len(data)

    def delete(self, digest: str) -> bool:
        """Forget the bytes; False where they were not there."""
        return self._kept.pop(digest, None) is not None

    def put_many(self, datas: Sequence[bytes]) -> list[str]:
        """Keep each once; their digests, in order."""
        return [self.put(data) for data in datas]

    def delete_many(self, digests: Sequence[str]) -> int:
        """Forget them all; how many were there."""
        return sum(self.delete(digest) for digest in digests)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._kept))


class MemoryEvents:
    """The append-only, hash-chained log."""

    def __init__(self, clock: Clock = utc_now) -> None:
        self._events: list[Event] = []
        self._clock = clock
        self._lock = threading.Lock()

    def append(self, kind: str, *, who: str, why: str, evidence: Mapping[str, Any]) -> Event:
        """Add one event, chained to the last; ValueError where the evidence holds NaN or infinity."""
        with self._lock:
            last = (self._events[-1].seq, self._events[-1].hash) if self._events else (0, GENESIS)
            made = chained(last, self._clock(), kind, who, why, evidence)
            self._events.append(made)
        return _copy(made)

    def read(self, after: int = 0, kinds: Sequence[str] = ()) -> Sequence[Event]:
        """Events with seq > after, in order, of these kinds or of all."""
        return [_copy(event) for event in self._events[max(0, after) :] if not kinds or event.kind in kinds]

    def head(self) -> int:
        """The seq of the last event, 0 for an empty log."""
        return len(self._events)


class MemoryCaptures:
    """What was asked and answered, and the labels that come later."""

    def __init__(self) -> None:
        self._rows: dict[str, Captured] = {}
        self._labels: dict[str, Label] = {}
        self._shadows: dict[tuple[str, str], Shadowed] = {}
        self._last = 0
        self._last_shadow = 0
        self._lock = threading.Lock()

    def record(self, rows: Sequence[Captured]) -> Sequence[int]:
        """Keep answered films; their places in the total order. One that is kept already is left, under its place."""
        with self._lock:
            for row in rows:
                if row.prediction not in self._rows:
                    self._last += 1
                    self._rows[row.prediction] = replace(row, seq=self._last)
            return [self._rows[row.prediction].seq for row in rows]

    def since(self, seq: int, limit: int = 10_000, bundle: str | None = None) -> Sequence[Captured]:
        """Rows with a greater seq, in order, of one bundle or of all."""
        return [row for row in self._all() if row.seq > seq and bundle in (None, row.bundle)][:limit]

    def find(self, prediction: str) -> Captured | None:
        """The row of a prediction id."""
        return self._rows.get(prediction)

    def by_reference(self, reference: str) -> Sequence[Captured]:
        """Rows that the caller gave this number, in order."""
        return [row for row in self._all() if row.reference == reference]

    def attach(self, labels: Sequence[tuple[str, Label]]) -> None:
        """Keep labels for predictions that are kept; the first label of a prediction stays."""
        with self._lock:
            for prediction, label in labels:
                if prediction in self._rows:
                    self._labels.setdefault(prediction, replace(label, prediction=prediction))

    def labels(self, predictions: Sequence[str] | None = None) -> Mapping[str, Label]:
        """The label of each of these predictions, or of all, by prediction id."""
        with self._lock:
            if predictions is None:
                return dict(self._labels)
            return {name: self._labels[name] for name in predictions if name in self._labels}

    def erase(self, subject: str) -> Sequence[str]:
        """Drop a subject's rows, labels and shadow answers; digests of images that no other row needs."""
        with self._lock:
            gone = [row for row in self._rows.values() if row.subject == subject]
            for row in gone:
                del self._rows[row.prediction]
                self._labels.pop(row.prediction, None)
            self._shadows = {key: row for key, row in self._shadows.items() if row.prediction in self._rows}
            needed = {row.image for row in self._rows.values()}
        return sorted({row.image for row in gone} - needed)

    def record_shadows(self, rows: Sequence[Shadowed]) -> int:
        """Keep shadow answers of films that are kept, one for each prediction and bundle; how many are new."""
        with self._lock:
            before = len(self._shadows)
            for row in rows:
                key = (row.prediction, row.bundle)
                if row.prediction in self._rows and key not in self._shadows:
                    self._last_shadow += 1
                    self._shadows[key] = replace(row, seq=self._last_shadow)
            return len(self._shadows) - before

    def shadows(self, bundle: str | None = None, after: int = 0, limit: int = 10_000) -> Sequence[Shadowed]:
        """Shadow answers with a greater seq, in order, of one bundle or of all."""
        with self._lock:
            rows = list(self._shadows.values())
        return [row for row in rows if row.seq > after and bundle in (None, row.bundle)][:limit]

    def images(self) -> Iterator[tuple[str, datetime, int, bool]]:
        """Each image that was not dropped, the one asked for longest ago first: its digest, when it was last asked for,
        its size in bytes (0 where nobody said), and whether a film that the audit drew still has no label."""
        found: dict[str, tuple[datetime, int, bool]] = {}
        for row in self._all():
            if not row.gone:
                waits = row.audited and row.prediction not in self._labels
                at, size, waited = found.get(row.image, (row.at, 0, False))
                found[row.image] = (max(at, row.at), max(size, row.size), waited or waits)
        return iter([(image, *found[image]) for image in sorted(found, key=lambda image: (found[image][0], image))])

    def drop_images(self, images: Sequence[str]) -> None:
        """Mark every row of these images: the image is gone."""
        with self._lock:
            some = set(images)
            self._rows |= {k: replace(row, gone=True) for k, row in self._rows.items() if row.image in some}

    def last(self) -> int:
        """The greatest place that a film was given, 0 for none yet."""
        return self._last

    def count(self) -> int:
        """How many films are kept."""
        return len(self._rows)

    def _all(self) -> list[Captured]:
        with self._lock:
            return list(self._rows.values())


class MemorySnapshots:
    """Small states, replaced only by whoever saw the last one."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, bytes]] = {}
        self._lock = threading.Lock()

    def load(self, key: str) -> tuple[int, bytes] | None:
        """The state's number, from 1 on, and its bytes."""
        return self._kept.get(key)

    def save(self, key: str, seen: int, data: bytes) -> bool:
        """Replace the state numbered `seen` (0 for none yet); False where somebody else was first."""
        with self._lock:
            if self._kept.get(key, (0, b""))[0] != seen:
                return False
            self._kept[key] = (seen + 1, bytes(data))
            return True


class MemoryLedger:
    """Costs in the order in which they were booked."""

    def __init__(self) -> None:
        self._costs: list[Cost] = []

    def book(self, cost: Cost) -> None:
        """Keep one cost."""
        self._costs.append(cost)

    def read(self) -> Sequence[Cost]:
        """Every cost."""
        return list(self._costs)


class MemoryRuns:
    """The experiment tracker: `kept` holds, by run, its name, params, tags, points, files and state."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.models: dict[str, tuple[Sequence[Mapping[str, str]], str | None]] = {}
        self._lock = threading.Lock()

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run: str = "") -> str:
        """Open a run under this id, or one made here; its id."""
        run = run or new_id("run-")
        entered = {"params": {key: str(value) for key, value in params.items()}, "tags": dict(tags)}
        with self._lock:
            self.kept[run] = {"name": name, **entered, "points": {}, "files": {}, "state": "RUNNING"}
        return run

    def reopen(self, run: str) -> None:
        """Let a run that ended go on."""
        self._known(run)["state"] = "RUNNING"

    def log(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Enter the figures of a step."""
        with self._lock:
            for name, value in metrics.items():
                self._known(run)["points"].setdefault(name, []).append((step, value))

    def keep(self, run: str, file: Path, folder: str = "") -> None:
        """Store the bytes of a file, or of a folder whole."""
        for part in file.rglob("*") if file.is_dir() else [file]:
            if part.is_file():
                self._known(run)["files"][str(Path(folder) / part.relative_to(file.parent))] = part.read_bytes()

    def finish(self, run: str, *, ok: bool) -> None:
        """Close a run as finished or failed."""
        self._known(run)["state"] = "FINISHED" if ok else "FAILED"

    def unfinished(self) -> Sequence[str]:
        """None: what is kept here is gone with its process."""
        return []

    def mirror(self, model: str, versions: Sequence[Mapping[str, str]], champion: str | None) -> None:
        """Remember the versions of a model and its champion."""
        self.models[model] = (tuple(versions), champion)

    def _known(self, run: str) -> dict[str, Any]:
        if run not in self.kept:
            raise UnknownId(f"no run {run!r}", [Fault("no such run", run)])
        return self.kept[run]


def memory_ports(home: Path, *, secret: str = "memory", clock: Clock = utc_now) -> Ports:  # noqa: S107
    """Ports that forget everything with the process; only what is written below `home` stays."""
    return Ports(
        home=home,
        clock=clock,
        blobs=MemoryBlobs(),
        events=MemoryEvents(clock),
        captures=MemoryCaptures(),
        snapshots=MemorySnapshots(),
        ledger=MemoryLedger(),
        secret=secret,
    )


def _copy(event: Event) -> Event:
    # Whoever is given an event may not change the one in the log.
    return replace(event, evidence=json.loads(canonical(event.evidence)))
