"""Films of an archive, one after the other, bounded before anything is unpacked."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from rounds.core.errors import BadRequest, Fault

MOST_FILMS = 1000
# Films shrink little: what unpacks to more than this many times its size is a bomb.
MOST_RATIO = 20
FREE_BYTES = 64 * 1024 * 1024
LONGEST_NAME = 256
# An entry of a zip's directory, with a name and extra fields of usual length.
DIRECTORY_BYTES = 512
TAKEN = "a zip, tar or tar.gz archive"
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
# What systems put beside files, and nobody means to send.
_LITTER = ("__MACOSX/", ".DS_Store", "Thumbs.db")


@dataclass(frozen=True, slots=True)
class Film:
    """One entry: its name, its bytes, and why it is not taken where it is not."""

    name: str
    data: bytes
    reason: str = ""


def films(body: bytes, max_bytes: int) -> Iterator[Film]:
    """Every film of an archive, each of at most `max_bytes`; only one is unpacked at a time.

    Raises BadRequest: 415 where the body is no archive that is taken, 400 where it is broken, 413 where it holds too
    many entries or unpacks to too much; a film that alone is too large, encrypted or no file is given with its reason.
    """
    try:
        if body[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _zipped(body, max_bytes)
        elif body[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(body)) as unpacked:
                yield from _tarred(unpacked, len(body), max_bytes)
        elif body[257:262] == b"ustar":
            yield from _tarred(io.BytesIO(body), len(body), max_bytes)
        else:
            fault = Fault("not an archive", "body", TAKEN, f"{len(body):,} bytes of something else", "see the API")
            raise BadRequest("the body is not an archive that is taken", [fault], status=415)
    except _BROKEN as error:
        fault = Fault("the archive is broken", "body", TAKEN, str(error)[:200], "pack it again")
        raise BadRequest("the archive cannot be read", [fault]) from error


def _zipped(body: bytes, max_bytes: int) -> Iterator[Film]:
    _small_directory(body)
    left, count = _budget(len(body)), 0
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        for entry in archive.infolist():
            count = _counted(count)
            if entry.is_dir() or _litter(entry.filename):
                continue
            name = _shown(entry.filename)
            # An entry that says that it is small is not believed: at most so much is read of it.
            if entry.flag_bits & 1:
                yield Film(name, b"", "the entry is encrypted")
                continue
            if entry.file_size > max_bytes:
                yield Film(name, b"", _too_large(max_bytes))
                continue
            try:
                with archive.open(entry) as file:
                    data = file.read(min(max_bytes, left) + 1)
            except _BROKEN as error:
                yield Film(name, b"", f"the entry cannot be read: {str(error)[:120]}")
                continue
            left = _spent(left, len(data))
            yield Film(name, data) if len(data) <= max_bytes else Film(name, b"", _too_large(max_bytes))


def _small_directory(body: bytes) -> None:
    """Refuse a directory of too many entries by its size: to read it would make an object of each."""
    at = body.rfind(b"PK\x05\x06", max(0, len(body) - 65_557))
    if at < 0 or at + 22 > len(body):
        raise zipfile.BadZipFile("its directory is missing")
    _, _, _, entries, size = struct.unpack_from("<4HI", body, at + 4)
    larger = body[max(0, at - 20) : at].startswith(b"PK\x06\x07")
    if larger or entries > MOST_FILMS or size > MOST_FILMS * DIRECTORY_BYTES:
        raise _too_many()


class _Bounded(io.RawIOBase):
    """A stream that may be read up to a number of bytes."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream = stream
        self._left = most

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; BadRequest (413) past the bound."""
        wanted = self._left + 1 if size < 0 else min(size, self._left + 1)
        data = self._stream.read(wanted)
        self._left = _spent(self._left, len(data))
        return data


def _tarred(stream: IO[bytes] | gzip.GzipFile, size: int, max_bytes: int) -> Iterator[Film]:
    # A header may claim any length for its names: the bound is on what is read, whatever it is read for.
    bounded = _Bounded(stream, _budget(size))  # type: ignore[arg-type]
    count = 0
    with tarfile.open(fileobj=bounded, mode="r|", bufsize=64 * 1024) as archive:
        for entry in archive:
            # else it remembers every one
            archive.members.clear()  # type: ignore[attr-defined]
            count = _counted(count)
            if entry.isdir() or _litter(entry.name):
                continue
            name = _shown(entry.name)
            file = archive.extractfile(entry) if entry.isreg() else None
            if file is None:
                yield Film(name, b"", "the entry is no regular file")
            elif entry.size > max_bytes:
                yield Film(name, b"", _too_large(max_bytes))
            else:
                yield Film(name, file.read())


def _budget(size: int) -> int:
    return max(FREE_BYTES, MOST_RATIO * size)


def _spent(left: int, size: int) -> int:
    if size > left:
        expected = f"at most {MOST_RATIO} times its size"
        fault = Fault("the archive unpacks to too much", "body", expected, "more", "send fewer films at once")
        raise BadRequest("the archive is too large", [fault], status=413)
    return left - size


def _counted(count: int) -> int:
    if count >= MOST_FILMS:
        raise _too_many()
    return count + 1


def _too_many() -> BadRequest:
    fault = Fault("too many entries", "body", f"at most {MOST_FILMS:,}", "more", "send several archives")
    return BadRequest("the archive holds too many films", [fault], status=413)


def _too_large(max_bytes: int) -> str:
    return f"the film is too large; expected at most {max_bytes:,} bytes"


def _litter(name: str) -> bool:
    return name.startswith(_LITTER[0]) or name.rsplit("/", 1)[-1] in _LITTER


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name[:LONGEST_NAME])
