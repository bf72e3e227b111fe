"""Bytes in files, named by their digest; object stores are in `blobs_remote`."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rounds.core.errors import DamagedData, Fault, NotWritable, StoreAway, UnknownId
from rounds.core.ids import digest as digest_of

_DIGEST = re.compile(r"[0-9a-f]{64}")
# A part this old, in seconds, belongs to a process that is gone.
_STALE_S = 3600.0


class FileBlobs:
    """Files below `root`, two folders deep: ab/cd/abcd....

    A file is written aside and renamed: after `kill -9` it is whole or absent. `durable` also waits for the disk, so
    that the same holds after a loss of power; without it a request is not held up for milliseconds, and bytes that a
    loss of power spoilt are refused by their digest.
    Raises, from every method: NotWritable or StoreAway where the disk does not do what it is asked.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self._root = root
        self._parts = root / "parts"
        self._durable = durable
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            for part in self._parts.iterdir():
                if time.time() - part.stat().st_mtime > _STALE_S:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error

    def put(self, data: bytes) -> str:
        """Keep the bytes once; return their digest."""
        digest = digest_of(data)
        path = self._path(digest)
        if self._whole(path, len(data)):
            return digest
        part = self._parts / secrets.token_hex(12)
        try:
            try:
                self._write(part, data)
                self._place(part, path)
            except OSError:
                part.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._not_writable(error) from error
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes; UnknownId where absent, DamagedData where they no longer match."""
        data = self._read(digest) if _DIGEST.fullmatch(digest) else None
        if data is None:
            fault = Fault("no such blob", digest, "the digest of kept bytes", "none", "it may have been erased")
            raise UnknownId(f"no blob {digest[:12]!r}", [fault])
        found = digest_of(data)
        if found != digest:
            where = str(self._path(digest))
            fault = Fault("the bytes have changed", where, f"sha256 {digest}", found, "restore the file from a copy")
            raise DamagedData(f"blob {digest[:12]} is damaged", [fault])
        return data

    def has(self, digest: str) -> bool:
        """Whether bytes of this digest are kept; they are not read."""
        return bool(_DIGEST.fullmatch(digest)) and self._path(digest).is_file()

    def size(self, digest: str) -> int | None:
        """How many bytes are kept under this digest; None where there are none."""
        if not _DIGEST.fullmatch(digest):
            return None
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._not_writable(error) from error

    def delete(self, digest: str) -> bool:
        """Forget the bytes; False where they were not there."""
        if not _DIGEST.fullmatch(digest):
            return False
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._not_writable(error) from error
        return True

    def put_many(self, datas: Sequence[bytes]) -> list[str]:
        """Keep each once; their digests, in order."""
        return [self.put(data) for data in datas]

    def delete_many(self, digests: Sequence[str]) -> int:
        """Forget them all; how many were there."""
        return sum(self.delete(digest) for digest in digests)

    def __iter__(self) -> Iterator[str]:
        return (path.name for path in sorted(self._root.glob("??/??/*")) if _DIGEST.fullmatch(path.name))

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest[2:4] / digest

    def _whole(self, path: Path, size: int) -> bool:
        # A file that a loss of power cut short is written again.
        try:
            return path.stat().st_size == size
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._not_writable(error) from error

    def _read(self, digest: str) -> bytes | None:
        path = self._path(digest)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            fault = Fault("the file cannot be read", str(path), got=error.strerror or str(error), next="check the disk")
            raise StoreAway(f"blob {digest[:12]} cannot be read", [fault]) from error

    def _write(self, part: Path, data: bytes) -> None:
        with part.open("xb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            if self._durable:
                os.fsync(file.fileno())

    def _place(self, part: Path, path: Path) -> None:
        try:
            part.replace(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
        if self._durable:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _not_writable(self, error: OSError) -> NotWritable:
        then = "make the folder writable and free some space, or choose another workspace with --home"
        fault = Fault("bytes cannot be kept", str(self._root), got=error.strerror or str(error), next=then)
        return NotWritable(f"{self._root} cannot be written", [fault])
