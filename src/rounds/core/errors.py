"""The tree of everything that can go wrong, by whose fault it is.

RoundsError                 any failure that Rounds explains; a face turns it into an exit code or an HTTP status
├── CallerFault             exit 2: what was asked cannot be done as asked
│   ├── BadImage            bytes that are not an image we take          (HTTP 400, 413 or 415)
│   ├── BadSource           a folder, archive, table or array that cannot become a data set
│   ├── BadOverride         an unknown option or a value of the wrong kind
│   ├── BadLabel            labels that contradict, point nowhere or name no class
│   ├── BadRequest          a request that misses or garbles a part      (HTTP 400, 413, 415 or 422)
│   └── UnknownId           no such run, bundle, data set, version or prediction   (HTTP 404)
├── WorldFault              exit 3: disk, port, network, database, a damaged file
│   ├── DamagedBundle       a bundle whose bytes are not what its digest says
│   ├── DamagedData         the same for a data set
│   ├── PortInUse           somebody else listens there
│   ├── NotWritable         a workspace that cannot be written
│   └── StoreAway           a store that does not answer                 (HTTP 503)
├── Refused                 exit 4: a rule said no
│   ├── LeakFound           one film or subject on both sides of a split
│   └── GateRefused         a candidate that may not serve               (HTTP 409)
└── OurFault                exit 1: a bug of ours; please report it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, where, what was expected, what was found and what to do next."""

    what: str
    where: str = ""
    expected: str = ""
    got: str = ""
    next: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            text += f"; expected {self.expected}"
        if self.got:
            text += f"; got {self.got}"
        if self.next:
            text += f". {self.next[:1].upper()}{self.next[1:]}"
        return text


class RoundsError(Exception):
    """Any failure that Rounds explains, with every fault that was found at once."""

    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500

    def __init__(self, message: str, faults: Sequence[Fault] = (), *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)
        self.http_status = self.status if status is None else status

    @property
    def kind(self) -> str:
        """The name of the class, as outsiders see it."""
        return type(self).__name__

    def __str__(self) -> str:
        return "\n  ".join([self.message, *map(str, self.faults)])

    def public(self) -> dict[str, Any]:
        """The error as the contract for outsiders writes it."""
        return {"error": {"kind": self.kind, "message": self.message, "faults": [asdict(f) for f in self.faults]}}


class CallerFault(RoundsError):
    """What was asked cannot be done as asked."""

    exit_code = 2
    status = 400


class BadImage(CallerFault):
    """Bytes that are not an image we take."""

    status = 415


class BadSource(CallerFault):
    """A folder, archive, table or array that cannot become a data set."""


class BadOverride(CallerFault):
    """An unknown option or a value of the wrong kind."""


class BadLabel(CallerFault):
    """Labels that contradict each other, point nowhere or name no class."""


class BadRequest(CallerFault):
    """A request that misses or garbles a part."""


class UnknownId(CallerFault):
    """No such run, bundle, data set, version or prediction."""

    status = 404


class WorldFault(RoundsError):
    """Disk, port, network, database or a damaged file."""

    exit_code = 3
    status = 503


class DamagedBundle(WorldFault):
    """A bundle whose bytes are not what its digest says."""


class DamagedData(WorldFault):
    """A data set whose bytes are not what its digest says."""


class PortInUse(WorldFault):
    """Somebody else listens on that port."""


class NotWritable(WorldFault):
    """A workspace that cannot be written."""


class StoreAway(WorldFault):
    """A store that does not answer."""


class Refused(RoundsError):
    """A rule said no."""

    exit_code = 4
    status = 409


class LeakFound(Refused):
    """One film or subject stands on both sides of a split; `leaks` names each pair by path inside the source."""

    def __init__(self, message: str, faults: Sequence[Fault] = (), *, leaks: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, faults)
        self.leaks = tuple(leaks)

    def public(self) -> dict[str, Any]:
        return {**super().public(), "leaks": [list(pair) for pair in self.leaks]}


class GateRefused(Refused):
    """A candidate that may not serve; `report` is the gate's public answer."""

    def __init__(self, message: str, faults: Sequence[Fault] = (), *, report: dict[str, Any] | None = None) -> None:
        super().__init__(message, faults)
        self.report = report or {}

    def public(self) -> dict[str, Any]:
        return {**super().public(), **self.report}


class OurFault(RoundsError):
    """A bug of ours."""
