"""Every file of a source decoded once, in threads: what is an image is kept, what is not is refused with its reason."""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from rounds.core.errors import BadImage, Fault
from rounds.core.specs import Limits
from rounds.data.items import Item, Source
from rounds.imaging.decode import decode
from rounds.imaging.packed import FilmWriter

Progress = Callable[[int, int], None]

_THREADS = min(8, os.cpu_count() or 1)
_AHEAD = 4 * _THREADS


@dataclass(frozen=True)
class Taken:
    """A film whose bytes the writer holds under `digest`; `pixels` is a digest of what they decode to."""

    name: str
    label: str
    split: str | None
    subject: str
    digest: str
    pixels: str


@dataclass
class Yield:
    """What came of a source: films, refused files, the classes that occur, and names that gave no subject."""

    taken: list[Taken] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    offered: set[str] = field(default_factory=set)
    without_subject: int = 0


def take(
    source: Source, writer: FilmWriter, limits: Limits, subject: re.Pattern[str] | None, progress: Progress | None
) -> Yield:
    """Reads, decodes and keeps the items of a source in their order, a few at a time."""
    found = Yield(refused=list(source.refused))
    waiting: deque[tuple[Item, bytes, Future[str]]] = deque()

    def settle() -> None:
        item, data, pixels = waiting.popleft()
        try:
            film = _taken(item, subject, writer, data, pixels.result())
        except BadImage as error:
            found.refused.append((item.name, _reason(error)))
        else:
            found.taken.append(film)
            found.without_subject += subject is not None and film.subject == film.name

    with ThreadPoolExecutor(_THREADS) as pool:
        for number, item in enumerate(source.items, 1):
            found.offered.add(item.label)
            try:
                data = _read(item, limits)
                waiting.append((item, data, pool.submit(_pixels_digest, data, limits)))
            except (OSError, BadImage) as error:
                found.refused.append((item.name, _reason(error)))
            if len(waiting) >= _AHEAD:
                settle()
            if progress:
                progress(number, source.total)
        while waiting:
            settle()
    found.refused.sort()
    return found


def _read(item: Item, limits: Limits) -> bytes:
    if item.size > limits.max_bytes:
        fault = Fault("the file is too large", "", f"at most {limits.max_bytes:,} bytes", f"{item.size:,} bytes")
        raise BadImage("the image is over a limit", [fault], status=413)
    return item.read()


def _pixels_digest(data: bytes, limits: Limits) -> str:
    pixels = decode(data, limits)
    total = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    total.update(pixels.data)
    return total.hexdigest()


def _taken(item: Item, subject: re.Pattern[str] | None, writer: FilmWriter, data: bytes, pixels: str) -> Taken:
    found = subject.search(item.name) if subject else None
    whose = (found.group(1) if found.re.groups else found.group()) if found else None
    own = item.subject if subject is None else None
    return Taken(item.name, item.label, item.split, whose or own or item.name, writer.keep(data), pixels)


def _reason(error: OSError | BadImage) -> str:
    if isinstance(error, BadImage):
        return "; ".join(map(str, error.faults)) or error.message
    return error.strerror or str(error)
