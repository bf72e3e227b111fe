"""Archives of images, read as a stream: nothing is ever extracted to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from rounds.core.errors import Fault
from rounds.data.items import Item, Source, bad_source
from rounds.data.layout import place
from rounds.data.remote import RemoteFile

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")

_BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)
_HEADER_BYTES = 64 * 1024 * 1024
_CHUNK = 1024 * 1024
_AGAIN = "copy or download it again"
_PACK_AGAIN = "pack the images again, as plain files"


class Bounds(NamedTuple):
    """How much an archive may claim to hold before it is refused."""

    members: int = 5_000_000
    total: int = 1 << 40


class _Member(NamedTuple):
    name: str
    size: int
    read: Callable[[], bytes]


@contextmanager
def open_archive(path: Path | RemoteFile, bounds: Bounds = Bounds()) -> Iterator[Source]:  # noqa: B008 (immutable)
    """Opens a .tar (also .gz, .bz2, .xz) or .zip of class folders, with or without split folders.

    Raises: BadSource for an archive that is broken, that is over the bounds, or that has members which climb out of
    their folder, links, devices or encrypted members, each of them named.
    """
    with path.open("rb") as raw:
        if path.suffix.lower() == ".zip":
            with _whole(path):
                members = _zip_members(path, zipfile.ZipFile(raw), bounds)
            yield _source(members)
        else:
            with _whole(path):
                members = _tar_members(path, _uncompressed(raw), bounds)
            yield _source(members)


def _source(members: list[_Member]) -> Source:
    layout = place(member.name for member in members)
    items = (
        Item(member.name, layout.places[member.name][1], layout.places[member.name][0], member.size, member.read)
        for member in members
        if member.name in layout.places
    )
    return Source(len(layout.places), items, layout.refused, layout.notes, labels=layout.labels)


@contextmanager
def _whole(path: Path | RemoteFile) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        got = str(error) or type(error).__name__
        fault = Fault("the archive is broken", str(path), f"a whole {' or '.join(SUFFIXES)}", got, _AGAIN)
        raise bad_source(str(path), fault) from error


class _Census:
    """Counts members against the bounds and collects all that may not be read, to be told at once."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._members = 0
        self._bytes = 0
        self._faults: list[Fault] = []

    def admits(self, name: str, size: int, wrong: str | None) -> bool:
        """Takes note of a member; False once a bound is passed and reading on is of no use."""
        self._members += 1
        self._bytes += size
        wrong = _wrong_name(name) or wrong
        if wrong:
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            self._faults.append(Fault(wrong, shown, "a plain file inside the archive's own folder", next=_PACK_AGAIN))
        return self._members <= self._bounds.members and self._bytes <= self._bounds.total

    def close(self, path: Path | RemoteFile, members: list[_Member]) -> None:
        """Raises BadSource with everything that was found."""
        limit = self._bounds
        if self._members > limit.members:
            self._faults.append(Fault("too many members", str(path), f"at most {limit.members:,}"))
        if self._bytes > limit.total:
            self._faults.append(Fault("too large when unpacked", str(path), f"at most {limit.total:,} bytes"))
        for name, count in Counter(member.name for member in members).items():
            if count > 1:
                self._faults.append(Fault("the name occurs twice", name, "each name once", f"{count}", _PACK_AGAIN))
        if self._faults:
            raise bad_source(str(path), *self._faults)


def _wrong_name(name: str) -> str | None:
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "an absolute path"
    return "a path that climbs out" if ".." in parts else None


def _clean(name: str) -> str:
    """The member's name as a path inside the source, in text that can be written."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    return "/".join(parts).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Bounded(io.RawIOBase):
    """A file of which no single read may be huge, since tar headers can claim to be."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._raw.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()


def _uncompressed(raw: IO[bytes]) -> IO[bytes]:
    """The archive's own bytes, whatever it is called: compression shows in the first bytes."""
    head = raw.read(6)
    raw.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw)
    return raw


def _tar_members(path: Path | RemoteFile, raw: IO[bytes], bounds: Bounds) -> list[_Member]:
    bounded = _Bounded(raw)
    tar = tarfile.open(fileobj=bounded, mode="r:")  # noqa: SIM115 (read for as long as the caller keeps the file open)
    census = _Census(bounds)
    members: list[_Member] = []
    for info in tar:
        if not census.admits(info.name, info.size, _wrong_kind(info)):
            break
        if info.isreg():
            members.append(_Member(_clean(info.name), info.size, _tar_reader(path, tar, info)))
    else:
        _check_end(bounded, tar.offset)
    census.close(path, members)
    return members


def _check_end(file: _Bounded, offset: int) -> None:
    """tarfile takes a garbled header for the end of the archive; the real end is a block of zeros.

    Reading what is behind it makes gzip and its kin check their sums.
    """
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no member and no end of the archive at byte {offset:,}")
    for _ in range(_HEADER_BYTES // _CHUNK):
        if not file.read(_CHUNK):
            return
    raise tarfile.ReadError(f"more than {_HEADER_BYTES:,} bytes behind the end of the archive")


def _wrong_kind(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return f"a link to {info.linkname!r}"
    if info.issparse():
        return "a sparse file"
    return None if info.isreg() or info.isdir() else "a device or other special file"


def _tar_reader(path: Path | RemoteFile, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with _whole(path):
            file = tar.extractfile(info)
            assert file is not None, "regular members have content"
            return file.read()

    return read


def _zip_members(path: Path | RemoteFile, unzipped: zipfile.ZipFile, bounds: Bounds) -> list[_Member]:
    census = _Census(bounds)
    members: list[_Member] = []
    for info in unzipped.infolist():
        if not census.admits(info.filename, info.file_size, _wrong_entry(info)):
            break
        if not info.is_dir():
            members.append(_Member(_clean(info.filename), info.file_size, _zip_reader(path, unzipped, info)))
    census.close(path, members)
    return members


def _wrong_entry(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device or other special file"
    return "an encrypted file" if info.flag_bits & 1 else None


def _zip_reader(path: Path | RemoteFile, unzipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with _whole(path):
            return unzipped.read(info)

    return read
