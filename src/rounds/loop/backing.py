"""A whole workspace in one file, taken while it serves: rows, images, data sets, bundles, runs and keys."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rounds.capture import journal
from rounds.capture.retention import still
from rounds.core.errors import BadOverride, Fault, NotWritable, StoreAway, UnknownId
from rounds.core.ids import canonical, rfc3339
from rounds.core.ports import Ports

FORMAT = 1
ABOUT, ROWS, SUMS, SECRET = "backup.json", "home/rounds.db", "SHA256SUMS", "home/secret"
# Made again where it is needed, or kept apart from the folder's other files.
_APART = {"rounds.db", "blobs", journal.FOLDER, "secret", "cache", "lock"}
_PASSING = ("-wal", "-shm", "-journal", ".part", ".lock", ".probe")
_SQLITE = b"SQLite format 3\0"
_TRIES = 5
PAGE = 10_000
CopyRows = Callable[[Path], None]
CopyFile = Callable[[Path, Path], None]


def backup(ports: Ports, file: Path, *, rows: CopyRows, database: CopyFile) -> dict[str, Any]:
    """Write the workspace to `file`, readable by its owner alone: it holds the workspace's key, and films.

    Every answer that was acknowledged before is in it, and every row has its image. `rows` writes all rows to an SQLite
    file, `database` copies another SQLite file. Where somebody is forgotten meanwhile, it begins anew.
    Raises BadOverride where `file` lies in the workspace; NotWritable where it cannot be written; StoreAway where a
    store is away, or images keep going.
    """
    if file.absolute().is_relative_to(ports.home):
        fault = Fault("inside the workspace", str(file), f"a file outside {ports.home}", next="name another file")
        raise BadOverride("a backup cannot lie in what it holds", [fault])
    begun, part = time.perf_counter(), file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        for _ in range(_TRIES):
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
                told = _once(ports, raw, rows, database, part)
                raw.flush()
                os.fsync(raw.fileno())
            if told is not None:
                size = part.stat().st_size
                part.rename(file)
                return {"file": str(file), "size": size, **told, "seconds": time.perf_counter() - begun}
            time.sleep(0.2)
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(file), "a place with room for the workspace", next="free some")
        raise NotWritable(f"{file} cannot be written", [fault]) from error
    finally:
        part.unlink(missing_ok=True)
    fault = Fault("images went while they were copied", f"{_TRIES} times", next="try again once erasing is done")
    raise StoreAway("the workspace did not hold still", [fault])


def _once(ports: Ports, raw: IO[bytes], rows: CopyRows, database: CopyFile, beside: Path) -> dict[str, Any] | None:
    """One attempt; None where images were dropped or erased meanwhile."""
    gone = _gone(ports)
    journal.settle(ports)
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix=f".{beside.name}.") as folder:
        snapshot, packed = Path(folder) / "rows.db", _Tar(raw)
        with still(ports.home / journal.FOLDER):
            # no image is on its way to a row that the snapshot lacks
            rows(snapshot)
            blobs, last = list(dict.fromkeys(ports.blobs)), ports.captures.last()
        packed.add_file(ROWS, snapshot)
        for digest in blobs:
            try:
                packed.add(f"home/blobs/{digest[:2]}/{digest[2:4]}/{digest}", ports.blobs.get(digest))
            except UnknownId:
                return None
        packed.add(SECRET, ports.secret.encode() + b"\n")
        for path, name in _files(ports.home):
            _add_home(packed, path, f"home/{name}", Path(folder), database)
        if _gone(ports) != gone:
            return None
    about: dict[str, Any] = {"format": FORMAT, "at": rfc3339(ports.clock()), "images": len(blobs)}
    about |= {"files": len(packed.sums), "bytes": packed.total, "missing": _missing(ports, set(blobs), last)}
    packed.add(ABOUT, canonical(about))
    packed.close()
    return about


def _missing(ports: Ports, images: set[str], last: int) -> list[str]:
    """Predictions whose image is lost without a word: a workspace that was damaged can be backed up all the same."""
    found, seq = list[str](), 0
    while seq < last and (rows := ports.captures.since(seq, PAGE)):
        found += [row.prediction for row in rows if row.seq <= last and not row.gone and row.image not in images]
        seq = rows[-1].seq
    return found


def _gone(ports: Ports) -> int:
    """How often somebody was forgotten, or images were dropped."""
    return len(ports.events.read(kinds=("erased", "images_dropped")))


def _files(home: Path) -> Iterator[tuple[Path, str]]:
    """What else the workspace holds, by its path inside it; never through a link."""
    for root, folders, names in os.walk(home):
        inside = Path(root).relative_to(home)
        skipped = {name for name in folders if name == "cache" or (inside == Path() and name in _APART)}
        folders[:] = sorted(set(folders) - skipped)
        for name in sorted(names):
            path = Path(root) / name
            passing = name.endswith(_PASSING) or (inside == Path() and (name in _APART or name.startswith(".")))
            if not passing and name != "lock" and path.is_file() and not path.is_symlink():
                yield path, (inside / name).as_posix()


def _add_home(packed: _Tar, path: Path, name: str, folder: Path, database: CopyFile) -> None:
    try:
        with path.open("rb") as file:
            is_database = file.read(len(_SQLITE)) == _SQLITE
        if not is_database:
            packed.add_file(name, path)
            return
    except FileNotFoundError:
        # removed since it was listed, by whoever made it
        return
    copy = folder / "copy.db"
    database(path, copy)
    packed.add_file(name, copy)
    copy.unlink()


@dataclass
class _Tar:
    """A tar file that ends with the SHA-256 sum of each of its members."""

    raw: IO[bytes]
    sums: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def __post_init__(self) -> None:
        self._tar = tarfile.open(fileobj=self.raw, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Add bytes as a file."""
        self._put(name, len(data), io.BytesIO(data), mode)

    def add_file(self, name: str, path: Path) -> None:
        """Add a file as long as it is now."""
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            self._put(name, found.st_size, file, found.st_mode & 0o700)

    def close(self) -> None:
        """Write the sums and the end."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in self.sums.items())
        self.add(SUMS, lines.encode())
        self._tar.close()

    def _put(self, name: str, size: int, file: IO[bytes], mode: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, mode, int(time.time())
        summed = _Summed(file)
        self._tar.addfile(info, summed)  # type: ignore[arg-type]
        self.sums[name] = summed.sum.hexdigest()
        self.total += size


class _Summed:
    """A file that sums what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sum = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sum.update(data)
        return data
