"""What the house needs from outside, as Protocols; `stores` keeps them, `wiring` opens them, one conformance suite
each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from rounds.core.records import Captured, Cost, Event, Label, Shadowed

Clock = Callable[[], datetime]


class Blobs(Protocol):
    """Bytes by the SHA-256 digest of their content."""

    def put(self, data: bytes) -> str:
        """Keep the bytes once; return their digest. WorldFault where they cannot be kept whole."""

    def put_many(self, datas: Sequence[bytes]) -> Sequence[str]:
        """The same for many, which may then lie together; their digests, in order."""

    def get(self, digest: str) -> bytes:
        """The bytes; UnknownId where absent, DamagedData where they no longer match."""

    def has(self, digest: str) -> bool: ...

    def size(self, digest: str) -> int | None:
        """How many bytes are kept under this digest; None where there are none."""

    def delete(self, digest: str) -> bool:
        """Forget the bytes; False where they were not there."""

    def delete_many(self, digests: Sequence[str]) -> int:
        """The same for many; how many were there."""

    def __iter__(self) -> Iterator[str]: ...


class EventLog(Protocol):
    """The append-only, hash-chained log of everything that was decided."""

    def append(self, kind: str, *, who: str, why: str, evidence: Mapping[str, Any]) -> Event:
        """Add one event in one transaction, chained to the last; safe between processes."""

    def read(self, after: int = 0, kinds: Sequence[str] = ()) -> Sequence[Event]:
        """Events with seq > after, in order, of these kinds or of all."""

    def head(self) -> int:
        """The seq of the last event, 0 for an empty log; cheap enough to poll."""


class Captures(Protocol):
    """What was asked and answered, and the labels that come later."""

    def record(self, rows: Sequence[Captured]) -> Sequence[int]:
        """Keep answered films in one transaction; the place of each in the total order. A film whose prediction id is
        kept already is left as it is, under the place it has."""

    def since(self, seq: int, limit: int = 10_000, bundle: str | None = None) -> Sequence[Captured]:
        """Rows with a greater seq, in order."""

    def find(self, prediction: str) -> Captured | None: ...

    def by_reference(self, reference: str) -> Sequence[Captured]: ...

    def attach(self, labels: Sequence[tuple[str, Label]]) -> None:
        """Keep labels for known predictions (id, label), in one transaction; the first label of a prediction stays."""

    def labels(self, predictions: Sequence[str] | None = None) -> Mapping[str, Label]:
        """The label of each of these predictions, or of all, by prediction id."""

    def record_shadows(self, rows: Sequence[Shadowed]) -> int:
        """Keep answers of versions that look on, in one transaction, and say how many are new: one for each prediction
        and bundle stays, and one whose film is not kept is left out."""

    def shadows(self, bundle: str | None = None, after: int = 0, limit: int = 10_000) -> Sequence[Shadowed]:
        """Such answers with a greater seq, in order, of one bundle or of all."""

    def erase(self, subject: str) -> Sequence[str]:
        """Drop a subject's rows, labels and shadow answers; digests of images that no other row needs."""

    def images(self) -> Iterator[tuple[str, datetime, int, bool]]:
        """Each image that was not dropped, the one asked for longest ago first: its digest, when it was last asked for,
        its size (0 where nobody said), and whether a film that the audit drew still has no label."""

    def drop_images(self, images: Sequence[str]) -> None:
        """Mark every row of these images: the image is gone."""

    def last(self) -> int:
        """The greatest place that a film was given, 0 for none yet; cheap enough to poll."""

    def count(self) -> int: ...


class Snapshots(Protocol):
    """Small states that must survive a restart, replaced only by whoever saw the last one."""

    def load(self, key: str) -> tuple[int, bytes] | None:
        """The state's number and bytes."""

    def save(self, key: str, seen: int, data: bytes) -> bool:
        """Replace the state numbered `seen` (0 for none yet); False where somebody else was first."""


class Ledger(Protocol):
    """Costs, booked by the caller of the work."""

    def book(self, cost: Cost) -> None: ...

    def read(self) -> Sequence[Cost]: ...


class Runs(Protocol):
    """The experiment tracker, safe to use from a training loop and from several threads."""

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run: str = "") -> str:
        """Open a run, under the id `run` where the tracker leaves that to whoever asks; its id."""

    def reopen(self, run: str) -> None:
        """Let a run that ended go on."""

    def log(self, run: str, metrics: Mapping[str, float], step: int) -> None: ...

    def keep(self, run: str, file: Path, folder: str = "") -> None:
        """Store a file, or a folder whole, among the run's artifacts."""

    def finish(self, run: str, *, ok: bool) -> None: ...

    def unfinished(self) -> Sequence[str]:
        """Runs that were opened and whose process is gone; each is closed as killed by this call."""

    def mirror(self, model: str, versions: Sequence[Mapping[str, str]], champion: str | None) -> None:
        """Make the tracker's registry say the same: a model with these versions, each {"version", "bundle", "run"}, and
        which of them is champion. StoreAway where it cannot be told now."""


@dataclass(frozen=True)
class Ports:
    """Everything that is open, and the workspace folder that holds data sets, bundles and runs."""

    home: Path
    clock: Clock
    blobs: Blobs
    events: EventLog
    captures: Captures
    snapshots: Snapshots
    ledger: Ledger
    secret: str
    runs: Runs | None = None

    @property
    def datasets(self) -> Path:
        return self.home / "data"

    @property
    def bundles(self) -> Path:
        return self.home / "bundles"

    @property
    def checkpoints(self) -> Path:
        return self.home / "runs"


Opener = Callable[[], AbstractContextManager[Ports]]
