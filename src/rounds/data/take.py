"""Every file of a source decoded once, in threads: what is an image is kept, what is not is refused with its reason."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from rounds.core.errors import BadImage, Fault
from rounds.core.specs import Limits
from rounds.data.items import Item, Source
from rounds.imaging.decode import decode
from rounds.imaging.dicom import is_dicom
from rounds.imaging.likeness import Look, look
from rounds.imaging.packed import FilmWriter

Progress = Callable[[int, int], None]

_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Taken:
    """A film whose bytes the writer holds under `digest`, and what they look like."""

    name: str
    label: str
    split: str | None
    subject: str
    digest: str
    look: Look
    attributes: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    @property
    def shown(self) -> str:
        """What the operator calls it."""
        return self.origin or self.name

    @property
    def pixels(self) -> str:
        """A digest of what the bytes decode to."""
        return self.look.pixels


@dataclass
class Yield:
    """What came of a source: films, refused files, and the classes that occur."""

    taken: list[Taken] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    offered: set[str] = field(default_factory=set)


def take(source: Source, writer: FilmWriter, limits: Limits, progress: Progress | None = None) -> Yield:
    """Reads, decodes and keeps the items of a source in their order, a few at a time."""
    found = Yield(refused=list(source.refused))
    waiting: deque[tuple[Item, Future[tuple[bytes, Look]]]] = deque()

    def settle() -> None:
        item, looked = waiting.popleft()
        try:
            data, seen = looked.result()
        except (OSError, BadImage) as error:
            found.refused.append((item.origin or item.name, _reason(error)))
        else:
            whose = item.subject or item.name
            film = Taken(
                item.name, item.label, item.split, whose, writer.keep(data), seen, item.attributes, item.origin
            )
            found.taken.append(film)

    with ThreadPoolExecutor(max(_THREADS, source.readers)) as pool:
        for number, item in enumerate(source.items, 1):
            found.offered.add(item.label)
            if source.readers > 1:
                waiting.append((item, pool.submit(_read_and_look, item, limits)))
            else:
                try:
                    waiting.append((item, pool.submit(_look, _read(item, limits), limits)))
                except (OSError, BadImage) as error:
                    found.refused.append((item.origin or item.name, _reason(error)))
            if len(waiting) >= 4 * _THREADS + source.readers:
                settle()
            if progress:
                progress(number, source.total)
        while waiting:
            settle()
    found.refused.sort()
    return found


def _read(item: Item, limits: Limits) -> bytes:
    """The item's bytes. Raises: BadImage for too many, and for a DICOM file, which says whose film it is."""
    if item.size > limits.max_bytes:
        fault = Fault("the file is too large", "", f"at most {limits.max_bytes:,} bytes", f"{item.size:,} bytes")
        raise BadImage("the image is over a limit", [fault], status=413)
    data = item.read()
    if is_dicom(data):
        then = "give the folder that holds it as dicom:FOLDER, with --labels TABLE or --label-tag KEYWORD"
        raise BadImage("the image is not taken", [Fault("a DICOM file, which says whose film it is", next=then)])
    return data


def _read_and_look(item: Item, limits: Limits) -> tuple[bytes, Look]:
    return _look(_read(item, limits), limits)


def _look(data: bytes, limits: Limits) -> tuple[bytes, Look]:
    # Bytes were counted as they lie in the source: pixels that a DICOM film is unpacked to may be more.
    return data, look_at(data, replace(limits, max_bytes=max(limits.max_bytes, len(data))))


def look_at(data: bytes, limits: Limits) -> Look:
    """Decode once and look. Raises: BadImage."""
    return look(decode(data, limits))


def _reason(error: OSError | BadImage) -> str:
    if isinstance(error, BadImage):
        return "; ".join(map(str, error.faults)) or error.message
    return error.strerror or str(error)
