"""The films that the serving benchmark sends: three kinds, each of many films, no two of the same bytes."""

from __future__ import annotations

import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rounds.imaging.phantom import draw

SMALL, MIDDLE, LARGE = "28 px PNG", "224 px JPEG", "full-size JPEG"
# Enough that a run of some seconds seldom sends a film twice: what is kept once would be kept too cheaply.
DISTINCT = {SMALL: 10_000, MIDDLE: 3_000, LARGE: 500}
BOUNDARY = "film-film-film"


@dataclass(frozen=True)
class Kind:
    """Films of one kind, as files hold them."""

    name: str
    films: tuple[bytes, ...]
    source: str

    @property
    def mime(self) -> str:
        return "image/png" if self.films[0].startswith(b"\x89PNG") else "image/jpeg"

    def bodies(self, salt: int) -> Iterator[bytes]:
        """DISTINCT films, of which no two are the same bytes; another salt gives others that look the same."""
        for i in range(DISTINCT[self.name]):
            yield noted(self.films[i % len(self.films)], f"{salt}-{i}")


def kinds() -> list[Kind]:
    """The real films where ROUNDS_DATASETS names a folder that holds them, else phantoms."""
    place = Path(os.environ.get("ROUNDS_DATASETS", "../shared/datasets"))
    return [
        _kind(SMALL, place / "pneumoniamnist_trainval.npz", _arrays, lambda: _phantoms(2000, 28, ".png")),
        _kind(MIDDLE, place / "chest_xray_224.tar", _members, lambda: _phantoms(300, 224, ".jpg")),
        _kind(LARGE, place / "chest_xray_fullres.tar", _members, lambda: _phantoms(12, 1800, ".jpg")),
    ]


def noted(data: bytes, note: str) -> bytes:
    """The film with a remark in its header: other bytes, the same pixels."""
    text = note.encode()
    if data.startswith(b"\x89PNG"):
        chunk = b"tEXtComment\0" + text
        # After the signature and IHDR, which comes first and is 25 bytes long.
        return data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[2:]


def form(field: str, data: bytes, mime: str) -> bytes:
    """The film as a browser would upload it, under BOUNDARY."""
    head = (
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{field}"; filename="film"\r\ncontent-type: {mime}\r\n'
    )
    return b"".join((head.encode(), b"\r\n", data, f"\r\n--{BOUNDARY}--\r\n".encode()))


def write(path: Path, bodies: Iterator[bytes]) -> None:
    """A file for serving.lua."""
    with path.open("wb") as file:
        for body in bodies:
            file.write(struct.pack(">I", len(body)))
            file.write(body)


Read = Callable[[Path], tuple[bytes, ...]]


def _kind(name: str, place: Path, read: Read, made: Callable[[], tuple[bytes, ...]]) -> Kind:
    real = place.is_file()
    return Kind(name, read(place) if real else made(), place.name if real else f"phantoms, for want of {place.name}")


def _arrays(path: Path) -> tuple[bytes, ...]:
    with np.load(path) as held:
        films = np.concatenate([held["train_images"], held["val_images"]])
    return tuple(cv2.imencode(".png", film)[1].tobytes() for film in films)


def _members(path: Path, most: int = 600) -> tuple[bytes, ...]:
    """Films of the archive, spread over all of it."""
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.isfile() and member.name.lower().endswith((".jpg", ".jpeg"))]
        chosen = [members[i] for i in np.linspace(0, len(members) - 1, min(most, len(members))).astype(int)]
        found = [archive.extractfile(member) for member in chosen]
        return tuple(file.read() for file in found if file is not None)


def _phantoms(n: int, size: int, suffix: str) -> tuple[bytes, ...]:
    drawn = draw(n, seed=0, size=min(1024, max(64, size)))
    fitted = (cv2.resize(one.pixels, (size, size), interpolation=cv2.INTER_AREA) for one in drawn)
    return tuple(cv2.imencode(suffix, film)[1].tobytes() for film in fitted)
