"""The chain of the log, recomputed: a changed, missing or smuggled entry is named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rounds.core.errors import DamagedData
from rounds.core.records import GENESIS, Event
from rounds.registry.catalogue import Catalogue


@dataclass(frozen=True)
class Audit:
    """How many entries were looked at, whether all hold, and the id of the first that does not."""

    entries: int
    ok: bool
    first_broken: str | None


def audit(events: Iterable[Event]) -> Audit:
    """Recompute every hash and link, and ask whether a gate stands behind every champion.

    The chain shows what was changed inside it. Entries cut off at its end are shown only by a copy of a later head.
    """
    known = list(events)
    broken = _break(known)
    whole = known if broken is None else known[:broken]
    invalid = _first_invalid(whole)
    named = invalid or (known[_blame(known, broken)].id if broken is not None else None)
    return Audit(len(known), named is None, named)


def _break(known: Sequence[Event]) -> int | None:
    """The place of the first entry whose number, link or hash does not hold."""
    prev = GENESIS
    for place, event in enumerate(known):
        if event.seq != place + 1 or event.prev != prev or not _own(event):
            return place
        prev = event.hash
    return None


def _blame(known: Sequence[Event], place: int) -> int:
    """The place of the entry that was changed, where the chain breaks at `place`."""
    event = known[place]
    if not _own(event):
        return place
    if place == 0 or event.seq != known[place - 1].seq + 1:
        # An entry that was given another number stands elsewhere; what came after it still links to its hash.
        return next((i for i, other in enumerate(known) if other.hash == event.prev and not _own(other)), place)
    # Its own hash holds and its number follows, but its link does not. Where the next entry links to it, it is as it
    # was written, and the one before it was changed and given a new hash.
    confirmed = place + 1 == len(known) or known[place + 1].prev == event.hash
    return place - 1 if confirmed else place


def _own(event: Event) -> bool:
    try:
        return event.hash == event.sealed()
    except (TypeError, ValueError):
        return False


def _first_invalid(whole: Sequence[Event]) -> str | None:
    try:
        invalid = Catalogue.of(whole).invalid
    except DamagedData as error:
        return error.faults[0].where
    return invalid[0].id if invalid else None
