"""Who may call the API: keys of a workspace, of which only salted hashes are kept, and every change is an event."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rounds.core.errors import BadOverride, Fault, UnknownId, WorldFault
from rounds.core.ids import plain, restore, rfc3339, write_whole
from rounds.core.ports import Ports
from rounds.loop.turns import turn

FILE = "keys.json"
SCOPES = ("predict", "label", "operate", "admin")
ADMIN = "admin"
PREFIX = "rk"
LONGEST_OVERLAP_H = 8760
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(rb"rk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_DENIES_NOBODY = "an empty file would open the API to everybody: restore it from a backup, or add a key anew"


@dataclass(frozen=True)
class Key:
    """One key as it is kept: `hash` is the SHA-256 of `salt` and the key, both in hex; `expires` None is never."""

    id: str
    name: str
    scopes: tuple[str, ...]
    salt: str
    hash: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def fits(self, text: bytes) -> bool:
        """Whether this is that key, compared in constant time."""
        return hmac.compare_digest(self.hash, _hash(self.salt, text))

    def holds(self, now: datetime) -> bool:
        """Whether it is neither over nor revoked."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def may(self, scope: str) -> bool:
        """Whether it has this scope; admin has every one."""
        return scope in self.scopes or ADMIN in self.scopes

    def public(self) -> dict[str, Any]:
        """All that may be shown: neither hash nor salt."""
        told = {"id": self.id, "name": self.name, "scopes": list(self.scopes), "created": self.created}
        shown: dict[str, Any] = plain(told | {"expires": self.expires, "revoked": self.revoked})
        return shown


def read(home: Path) -> tuple[Key, ...]:
    """Every key that was ever added here, also those that are over; none where the file is absent.

    Raises WorldFault where the file cannot be read: nobody is let in then.
    """
    path = home / FILE
    try:
        found = json.loads(path.read_bytes())
        return tuple(restore(Key, row) for row in found["keys"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        fault = Fault("the keys cannot be read", str(path), "what `rounds keys` wrote", repr(error), _DENIES_NOBODY)
        raise WorldFault("the keys cannot be read, so nobody is let in", [fault]) from error


def find(keys: Sequence[Key], text: bytes) -> Key | None:
    """The key that this text is, whether it still holds or not."""
    named = _KEY.fullmatch(text)
    if named is None:
        return None
    wanted = named[1].decode()
    return next((key for key in keys if key.id == wanted and key.fits(text)), None)


def add(ports: Ports, name: str, scopes: Sequence[str], days: float | None = None) -> tuple[str, Key]:
    """A new key, shown this once, and what is kept of it; `days` None holds for ever.

    Raises BadOverride for a name that is taken or cannot be one, and for unknown scopes.
    """
    faults = _faults(name, scopes, days)
    with turn(ports.home, "keys"):
        keys, now = read(ports.home), ports.clock()
        if any(key.name == name and key.holds(now) for key in keys):
            then = f"rounds keys rotate {name}, or choose another name"
            faults.append(Fault("a key of this name holds", "NAME", "a new name", name, then))
        if faults:
            raise BadOverride("the key cannot be added", faults)
        expires = None if days is None else now + timedelta(days=days)
        text, key = _made(name, tuple(scope for scope in SCOPES if scope in scopes), now, expires)
        _write(ports.home, [*keys, key])
        _told(ports, "key_added", key, "a key was added")
    return text, key


def rotate(ports: Ports, name: str, overlap_hours: float = 24.0) -> tuple[str, Key]:
    """A new key of the same name and scopes, shown this once; the old one holds for `overlap_hours` more.

    The new one lasts as long as the old one did. Raises UnknownId where no key of that name holds, BadOverride for an
    overlap beyond a year.
    """
    if not 0 <= overlap_hours <= LONGEST_OVERLAP_H:
        fault = Fault("no such overlap", "--overlap-hours", f"0 to {LONGEST_OVERLAP_H}", str(overlap_hours))
        raise BadOverride("the key cannot be rotated", [fault])
    with turn(ports.home, "keys"):
        keys, now = read(ports.home), ports.clock()
        mine = _holding(keys, name, now)
        last, end = mine[-1], now + timedelta(hours=overlap_hours)
        expires = None if last.expires is None else now + (last.expires - last.created)
        text, key = _made(name, last.scopes, now, expires)
        old = {one.id for one in mine}
        kept = [replace(one, expires=min(one.expires or end, end)) if one.id in old else one for one in keys]
        _write(ports.home, [*kept, key])
        _told(ports, "key_rotated", key, f"a key was replaced; the old one holds until {rfc3339(end)}")
    return text, key


def revoke(ports: Ports, name: str) -> list[Key]:
    """End every key of this name at once, and say which; UnknownId where none holds."""
    with turn(ports.home, "keys"):
        keys, now = read(ports.home), ports.clock()
        ended = {key.id: replace(key, revoked=now) for key in _holding(keys, name, now)}
        _write(ports.home, [ended.get(key.id, key) for key in keys])
        for key in ended.values():
            _told(ports, "key_revoked", key, "a key was revoked")
    return list(ended.values())


def _made(name: str, scopes: tuple[str, ...], now: datetime, expires: datetime | None) -> tuple[str, Key]:
    ident, salt = secrets.token_hex(6), secrets.token_hex(16)
    text = f"{PREFIX}_{ident}_{secrets.token_urlsafe(32)}"
    return text, Key(ident, name, scopes, salt, _hash(salt, text.encode()), now, expires)


def _hash(salt: str, text: bytes) -> str:
    # The key holds 256 random bits: nothing slower than one SHA-256 would make it harder to guess.
    return hashlib.sha256(bytes.fromhex(salt) + text).hexdigest()


def _write(home: Path, keys: Sequence[Key]) -> None:
    path = home / FILE
    before = os.umask(0o077)
    try:
        write_whole(path, json.dumps({"keys": plain(list(keys))}, indent=1).encode())
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(path), "a workspace that can be written", next="free the place")
        raise WorldFault("the keys cannot be kept", [fault]) from error
    finally:
        os.umask(before)


def _told(ports: Ports, kind: str, key: Key, why: str) -> None:
    evidence = {"key": key.id, "name": key.name, "scopes": list(key.scopes), "expires": plain(key.expires)}
    ports.events.append(kind, who="operator", why=why, evidence=evidence)


def _holding(keys: Sequence[Key], name: str, now: datetime) -> list[Key]:
    found = [key for key in keys if key.name == name and key.holds(now)]
    if not found:
        known = ", ".join(sorted({key.name for key in keys if key.holds(now)})) or "none"
        fault = Fault("no key of this name holds", name, "a key that holds", known, "rounds keys list")
        raise UnknownId(f"no key {name!r}", [fault])
    return found


def _faults(name: str, scopes: Sequence[str], days: float | None) -> list[Fault]:
    faults = []
    if not _NAME.fullmatch(name):
        plain_name = "1 to 64 letters, digits, dots, dashes or underscores"
        faults.append(Fault("the name cannot be used", "NAME", plain_name, repr(name)[:80]))
    expected = " or ".join(SCOPES)
    faults += [Fault("no such scope", "--scope", expected, repr(one)) for one in scopes if one not in SCOPES]
    if not scopes:
        faults.append(Fault("no scope", "--scope", expected, "none", "name what the key is for: --scope predict"))
    if days is not None and not 0 < days <= 36_500:
        faults.append(Fault("the key would never hold", "--days", "more than 0, at most 36,500", str(days)))
    return faults
