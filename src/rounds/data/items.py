"""What every kind of source gives: labelled files by name, in the order in which they are read best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rounds.core.errors import BadSource, Fault


@dataclass(frozen=True)
class Item:
    """One labelled file: its path inside the source, its size in bytes, and how to read it.

    `split` is None where the source brings none, `subject` where it knows none. `read` raises OSError for this one
    file, BadSource where the source as a whole cannot be read on.
    """

    name: str
    label: str
    split: str | None
    size: int
    read: Callable[[], bytes]
    subject: str | None = None


@dataclass(frozen=True)
class Source:
    """An opened source: `total` items, read once and in order; files that are out from the start, with the reason.

    `sealed` says that its owner cannot take a single film out of it, as out of a folder.
    """

    total: int
    items: Iterator[Item]
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    subjects_known: bool = False
    sealed: bool = False


def bad_source(source: str, *faults: Fault) -> BadSource:
    """The error for a source that cannot become a data set."""
    return BadSource(f"cannot make a data set of {source}", faults)
