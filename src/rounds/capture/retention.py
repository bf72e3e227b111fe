"""Captured images that have been kept long enough are dropped, the oldest first; their rows stay and say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from rounds.capture.journal import alone
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.core.specs import CaptureSpec

# Images of one turn: answers that wait to be handed to the stores wait for no more than this.
TOGETHER = 2_000


@dataclass(frozen=True)
class Dropped:
    """Images that were dropped and their bytes, how many were due and stay because the audit still waits for them, and
    what is left."""

    images: int = 0
    bytes: int = 0
    awaited: int = 0
    kept_images: int = 0
    kept_bytes: int = 0

    def public(self) -> dict[str, Any]:
        answer: dict[str, Any] = plain(self)
        return answer


def retain(ports: Ports, spec: CaptureSpec, *, journal: Path, who: str) -> Dropped:
    """Drop images beyond the age and the size that `spec` allows, and append one event where any was dropped.

    An image for which the audit still waits stays until it is twice as old as `days`; where no age is set, for ever.
    `journal` is the folder from which answers are handed to the stores: while an image goes, none is handed over that
    may need it. A run that was killed is finished by the next. Raises WorldFault where a store is away.
    """
    kept, last = _weigh(ports), ports.captures.last()
    if not spec.days and not spec.bytes:
        return Dropped(kept_images=kept[0], kept_bytes=kept[1])
    due = _Due(spec, ports.clock(), kept[1])
    images, size = 0, 0
    found = due.among(_sized(ports))
    while chunk := list(islice(found, TOGETHER)):
        with still(journal):
            # one that was asked for again while we looked is young again
            again = {row.image for row in ports.captures.since(last, limit=10_000_000)}
            going = [(image, n) for image, n in chunk if image not in again]
            ports.blobs.delete_many([image for image, _ in going])
            # after the images: what a kill leaves between the two is found and marked by the next run
            ports.captures.drop_images([image for image, _ in going])
        images, size = images + len(going), size + sum(n for _, n in going)
    done = Dropped(images, size, due.awaited, kept[0] - images, kept[1] - size)
    if images:
        evidence = {**done.public(), "days": spec.days, "limit_bytes": spec.bytes}
        ports.events.append("images_dropped", who=who, why="kept as long as the rules say", evidence=evidence)
    return done


class _Due:
    """Which images may go, asked oldest first."""

    def __init__(self, spec: CaptureSpec, now: datetime, kept_bytes: int) -> None:
        self.awaited = 0
        day = timedelta(days=1)
        oldest = datetime.min.replace(tzinfo=now.tzinfo)
        # an age from before there were years is for ever
        self._young, self._patient = (
            now - day * (spec.days * times) if 0 < spec.days * times < 365_000 else oldest for times in (1, 2)
        )
        self._over = kept_bytes - spec.bytes if spec.bytes else 0

    def among(self, images: Iterator[tuple[str, datetime, int, bool]]) -> Iterator[tuple[str, int]]:
        """The digest and size of each that goes."""
        for image, at, size, awaited in images:
            if at >= self._young and self._over <= 0:
                # the rest is younger still
                return
            if awaited and at >= self._patient:
                self.awaited += 1
                continue
            self._over -= size
            yield image, size


def _sized(ports: Ports) -> Iterator[tuple[str, datetime, int, bool]]:
    for image, at, size, awaited in ports.captures.images():
        # rows of the first version do not say how large their images are
        yield image, at, size or ports.blobs.size(image) or 0, awaited


def _weigh(ports: Ports) -> tuple[int, int]:
    images, size = 0, 0
    for _, _, n, _ in _sized(ports):
        images, size = images + 1, size + n
    return images, size


@contextmanager
def still(journal: Path) -> Iterator[None]:
    """While the block runs, no answer is handed from the journal to the stores."""
    with alone(journal) if journal.is_dir() else nullcontext():
        yield
