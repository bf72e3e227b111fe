"""A data set opened for reading: its films by index, and their pixels as one memory map."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from rounds.core.errors import Fault, NotWritable
from rounds.core.ids import canonical, digest
from rounds.core.records import DatasetVersion
from rounds.core.specs import ImagingSpec, Limits
from rounds.imaging.films import (
    PACK_BYTES,
    Film,
    FilmWriter,
    Kept,
    attributes_of,
    film_writer,
    open_dataset,
    read,
    read_bytes,
    stored_png,
    write_films,
)
from rounds.imaging.fit import to_pixels

__all__ = [
    "ADMITTED",
    "PACK_BYTES",
    "Film",
    "FilmWriter",
    "Films",
    "Kept",
    "Rows",
    "film_writer",
    "open_dataset",
    "stored_png",
    "write_films",
]

# Films were held to the source's limits when they were taken; those of other callers do not concern them any more.
ADMITTED = Limits(max_bytes=sys.maxsize, max_pixels=sys.maxsize)
_CHUNK = 512
_THREADS = 4


@dataclass(frozen=True)
class Rows:
    """Films of a split, aligned: `index` int64 (n,) into the data set and `Films.pixels`, `labels` int64 (n,) into the
    classes, and what the source said of each beside its class."""

    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    subjects: list[str]
    digests: list[str]
    names: list[str]
    attributes: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, places: Sequence[int]) -> Rows:
        """The rows at these places."""
        columns = (self.subjects, self.digests, self.names, self.attributes)
        return Rows(self.index[places], self.labels[places], *([column[i] for i in places] for column in columns))  # type: ignore[arg-type]


class Films:
    """The films of one data set, in manifest order: by split, class, image digest and name.

    Raises: UnknownId where no data set is, DamagedData where the manifest is not what the digest says.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dataset, self._rows = read(path)

    @property
    def dataset(self) -> DatasetVersion:
        return self._dataset

    @property
    def classes(self) -> tuple[str, ...]:
        return self._dataset.classes

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Film]:
        return (self.film(index) for index in range(len(self)))

    def film(self, index: int) -> Film:
        """The film with its bytes. Raises: DamagedData."""
        row = self._rows[index]
        return Film(self.bytes(index), row.label, row.subject, row.split, row.name, attributes_of(row))

    def bytes(self, index: int) -> bytes:
        """The original bytes of one film, checked against its digest. Raises: DamagedData."""
        return read_bytes(self._path, self._rows[index])

    def split(self, index: int) -> str:
        """The split of one film."""
        return self._rows[index].split

    def rows(self, split: str | None = None) -> Rows:
        """What the manifest says of one split's films, or of all; empty for a split that is not there."""
        picked = [index for index, row in enumerate(self._rows) if split in (None, row.split)]
        rank = {label: index for index, label in enumerate(self.classes)}
        return Rows(
            index=np.array(picked, np.int64),
            labels=np.array([rank[self._rows[index].label] for index in picked], np.int64),
            subjects=[self._rows[index].subject for index in picked],
            digests=[self._rows[index].digest for index in picked],
            names=[self._rows[index].name for index in picked],
            attributes=[attributes_of(self._rows[index]) for index in picked],
        )

    def splits(self) -> list[str]:
        """The split of each film, by index."""
        return [row.split for row in self._rows]

    def pixels(self, spec: ImagingSpec) -> NDArray[np.uint8]:
        """All films as the network sees them: read-only uint8 (n, channels, size, size), memory-mapped.

        Built once per spec into `cache/`, in bounded memory; processes that build at once do not disturb each other.
        Raises: DamagedData for bytes that are not those of the manifest, NotWritable.
        """
        shape = (len(self), spec.channels, spec.size, spec.size)
        path = self._path / "cache" / f"{_cache_key(spec)}.npy"
        cached = _open_cache(path, shape)
        if cached is not None:
            return cached
        try:
            self._build_cache(path, shape, spec)
        except OSError as error:
            fault = Fault(error.strerror or str(error), str(path.parent), "a folder with room to write")
            raise NotWritable("cannot write the pixel cache", [fault]) from error
        cached = _open_cache(path, shape)
        assert cached is not None, "the cache was written a moment ago"
        return cached

    def _build_cache(self, path: Path, shape: tuple[int, ...], spec: ImagingSpec) -> None:
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
        try:
            pixels = open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)

            def draw(index: int) -> None:
                pixels[index] = to_pixels(self.bytes(index), spec, ADMITTED)

            with ThreadPoolExecutor(_THREADS) as pool:
                for start in range(0, len(self), _CHUNK):
                    for _ in pool.map(draw, range(start, min(start + _CHUNK, len(self)))):
                        pass
            pixels.flush()
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _cache_key(spec: ImagingSpec) -> str:
    """A name for the spec and the decoders, since another release may round pixels differently."""
    decoders = {"opencv": cv2.__version__, "pillow": PIL.__version__}
    return digest(canonical({"spec": spec, "decoders": decoders}))[:24]


def _open_cache(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The cached pixels, or None where they are absent or cut short."""
    try:
        cached: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return cached if cached.shape == shape and cached.dtype == np.uint8 else None
