"""A workspace from the file that `backup` wrote: verified whole, and only then put in its place."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rounds.core.errors import BadOverride, DamagedData, Fault, NotWritable, RoundsError
from rounds.core.ports import Blobs, Ports
from rounds.loop.backing import ABOUT, FORMAT, ROWS, SUMS
from rounds.registry import log
from rounds.registry.catalogue import Catalogue
from rounds.runtime import bundle as bundles

_BLOCK = 1024 * 1024
PAGE = 10_000
Open = Callable[[Path], AbstractContextManager[Ports]]
HandOn = Callable[[Path, Blobs], Sequence[str]]


def restore(file: Path, home: Path, *, opened: Open, hand_on: HandOn) -> dict[str, Any]:
    """Make the folder `home`, which must be absent or empty, a workspace as it was when `file` was written.

    Every sum, the chain of the log, every bundle, and the image of every row are verified beside `home` first;
    `opened` opens a workspace by its folder; `hand_on` gives rows and images to the stores that are set, where these
    are no files of the workspace, and names what need not stay for it. Nothing stays where anything fails.
    Raises BadOverride where `home` is in use, DamagedData with every fault that was found, NotWritable.
    """
    _free(home)
    with _beside(home) as staging:
        about = _unpack(file, staging)
        inside = staging / "home"
        with opened(inside) as ports:
            told = _verify(ports, set(about["missing"]))
            moved = hand_on(inside, ports.blobs)
        for name in moved:
            shutil.rmtree(inside / name) if (inside / name).is_dir() else (inside / name).unlink()
        # all of it is on the disk before it bears its name
        os.sync()
        if home.exists():
            home.rmdir()
        inside.rename(home)
    return {"home": str(home), **about, **told}


def _free(home: Path) -> None:
    if home.is_symlink() or (home.exists() and (not home.is_dir() or any(home.iterdir()))):
        fault = Fault("something is there", str(home), "a folder that is absent or empty", next="name another: --home")
        raise BadOverride("a backup is restored beside what is there, never over it", [fault])


@contextmanager
def _beside(home: Path) -> Iterator[Path]:
    """A folder on the same disk, gone at the end."""
    staging = home.parent / f".{home.name}.{secrets.token_hex(4)}.part"
    try:
        staging.mkdir(parents=True, mode=0o700)
        yield staging
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(home), "a place with room for the workspace", next="free some")
        raise NotWritable(f"{home} cannot be made", [fault]) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack(file: Path, staging: Path) -> dict[str, Any]:
    """Write every member below the folder and compare all with the sums; what the backup says of itself."""
    found: dict[str, str] = {}
    try:
        with file.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as packed:
            for member in packed:
                _refuse_strange(file, member)
                found[member.name] = _write(packed, member, staging / member.name)
    except (FileNotFoundError, IsADirectoryError) as error:
        fault = Fault("no such file", str(file), "what rounds backup wrote", next="check the path")
        raise BadOverride(f"cannot read {file}", [fault]) from error
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(file, [Fault("it ends early, or is no backup", str(file), "a tar file", str(error))]) from error
    if not {ABOUT, SUMS, ROWS} <= found.keys():
        missing = ", ".join(sorted({ABOUT, SUMS, ROWS} - found.keys()))
        raise _damaged(file, [Fault("it ends early, or is no backup", str(file), missing, "none")])
    about: dict[str, Any] = json.loads((staging / ABOUT).read_bytes())
    if about["format"] != FORMAT:
        fault = Fault("another version wrote it", str(file), f"format {FORMAT}", str(about["format"]), "upgrade Rounds")
        raise BadOverride(f"cannot read {file}", [fault])
    if faults := _unlike(staging, found):
        raise _damaged(file, faults)
    return about


def _refuse_strange(file: Path, member: tarfile.TarInfo) -> None:
    parts = Path(member.name).parts
    known = member.name in (ABOUT, SUMS) or (parts[:1] == ("home",) and len(parts) > 1)
    if not member.isreg() or not known or ".." in parts or "\0" in member.name:
        raise _damaged(file, [Fault("a member that no backup has", repr(member.name), "files below home/")])


def _write(packed: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    """Write a member and return the SHA-256 sum of it; a name that comes twice is refused by the system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    total, left = hashlib.sha256(), member.size
    source = packed.extractfile(member)
    assert source is not None, "a regular file has bytes"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while data := source.read(_BLOCK):
            total.update(data)
            file.write(data)
            left -= len(data)
    if left:
        raise EOFError(f"{member.name} lacks {left} bytes")
    path.chmod(0o600 | member.mode & 0o700)
    return total.hexdigest()


def _unlike(staging: Path, found: dict[str, str]) -> list[Fault]:
    lines = (staging / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    given = {name: digest for name, digest in found.items() if name != SUMS}
    wrong = [
        Fault("the bytes have changed", name, digest, given.get(name, "none"), "restore from another copy")
        for name, digest in sums.items()
        if given.get(name) != digest
    ]
    wrong += [Fault("a file without a sum", name, next="restore from another copy") for name in given.keys() - sums]
    named = ((Path(name), digest) for name, digest in given.items() if name.startswith("home/blobs/"))
    return wrong + [
        Fault("bytes under another name", str(p), p.name, digest) for p, digest in named if p.name != digest
    ]


def _verify(ports: Ports, missing: set[str]) -> dict[str, Any]:
    """The chain, the bundles, and the image of every row but of those that lacked it already; DamagedData with all that
    is wrong."""
    events, faults = ports.events.read(), list[Fault]()
    if not (audit := log.audit(events)).ok:
        faults.append(Fault("the chain of the log is broken", str(audit.first_broken), "entries as they were written"))
    catalogue = Catalogue.of(events) if audit.ok else Catalogue()
    for entry in catalogue.bundles:
        try:
            if (ports.home / entry.path).exists():
                bundles.read(ports.home / entry.path)
            elif not Path(entry.path).is_absolute():
                faults.append(Fault("a bundle is missing", entry.path, entry.bundle, "none"))
        except RoundsError as error:
            faults += error.faults or [Fault(error.message, entry.path)]
    films, seq = 0, 0
    while rows := ports.captures.since(seq, PAGE):
        kept = [row for row in rows if not row.gone and row.prediction not in missing]
        lost = [row for row in kept if not ports.blobs.has(row.image)]
        faults += [Fault("the image of a film is missing", row.prediction, row.image, "none") for row in lost]
        films, seq = films + len(rows), rows[-1].seq
    if faults:
        raise DamagedData("the backup does not hold a whole workspace", faults)
    labels = len(ports.captures.labels())
    return {"events": len(events), "predictions": films, "labels": labels, "images": sum(1 for _ in ports.blobs)}


def _damaged(file: Path, faults: list[Fault]) -> DamagedData:
    return DamagedData(f"{file} is damaged", faults)
