"""What every kind of source gives: labelled files by name, in the order in which they are read best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from rounds.core.errors import BadSource, Fault


@dataclass(frozen=True)
class Item:
    """One labelled file: its path inside the source, its size in bytes, and how to read it.

    `split` is None where the source brings none, `subject` where it knows none. `read` raises OSError for this one
    file, BadSource or StoreAway where the source as a whole cannot be read on. `attributes` become slices. `origin` is
    what the operator calls it where its name must not say so (DICOM): it is told, and never kept.
    """

    name: str
    label: str
    split: str | None
    size: int
    read: Callable[[], bytes]
    subject: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""


@dataclass(frozen=True)
class Source:
    """An opened source: `total` items, read once and in order; files that are out from the start, with the reason.

    `labels` are all that its items carry. `sealed` says that its owner cannot take a single film out of it, as out of a
    folder. `readers` is how many items may be read at the same time. `nameless` says that its own name, too, may name
    somebody and must not be kept; its subjects are pseudonyms.
    """

    total: int
    items: Iterator[Item]
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    subjects_known: bool = False
    sealed: bool = False
    labels: frozenset[str] = frozenset()
    readers: int = 1
    nameless: bool = False


def bad_source(source: str, *faults: Fault) -> BadSource:
    """The error for a source that cannot become a data set."""
    return BadSource(f"cannot make a data set of {source}", faults)
