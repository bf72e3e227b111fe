"""Settings to open ports: all that serving, watching and deciding need."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rounds.core.errors import Fault, NotWritable, WorldFault
from rounds.core.ports import Blobs, Ports
from rounds.stores.blobs import FileBlobs
from rounds.stores.packs import PackedBlobs
from rounds.stores.rows import open_rows
from rounds.wiring.settings import Settings

SECRET_CHARS = 16


@contextmanager
def open_ports(settings: Settings) -> Iterator[Ports]:
    """Rows and blobs of a workspace, which is made where it is absent; NotWritable, StoreAway."""
    home = settings.home.absolute()
    _make(home)
    rows = open_rows(settings.rows_url, forward=settings.migrate)
    try:
        yield Ports(
            home=home,
            clock=lambda: datetime.now(UTC),
            blobs=PackedBlobs(open_blobs(settings), rows.database),
            events=rows.events,
            captures=rows.captures,
            snapshots=rows.snapshots,
            ledger=rows.ledger,
            secret=settings.secret or _secret(home / "secret"),
        )
    finally:
        rows.close()


@contextmanager
def open_folder(home: Path) -> Iterator[Ports]:
    """The same of a folder that holds everything itself, whatever is set."""
    with open_ports(Settings(home=home, rows=None, blobs=None, secret=None, migrate=True)) as ports:
        yield ports


def open_blobs(settings: Settings) -> Blobs:
    """Files, or an object store; BadOverride where the address cannot be used, NotWritable."""
    where = settings.blobs_at
    if "://" not in where:
        return FileBlobs(Path(where).absolute())
    from rounds.stores.blobs_remote import RemoteBlobs

    return RemoteBlobs(where)


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".{secrets.token_hex(4)}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        fault = Fault(
            "not writable", str(home), "a folder to write to", str(error), "free it, or name another: --home DIR"
        )
        raise NotWritable(f"the workspace {home} cannot be written", [fault]) from error


def _secret(path: Path) -> str:
    """The workspace's key, made once: of two processes that come first together, both keep the one that was linked.

    Raises WorldFault where the file holds no key.
    """
    if not path.exists():
        part = path.with_name(f".secret.{secrets.token_hex(4)}")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(part, path)
        part.unlink()
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if len(text) < SECRET_CHARS:
        then = "restore it from a copy: another key gives every subject another pseudonym"
        fault = Fault("not a key", str(path), f"{SECRET_CHARS} characters or more", f"{len(text)}", then)
        raise WorldFault("the workspace's key is damaged", [fault])
    return text
