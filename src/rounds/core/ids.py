"""Names made from content, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from rounds.core.errors import Fault, UnknownId


def digest(data: bytes) -> str:
    """SHA-256 of the bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def plain(value: Any) -> Any:
    """A record as JSON types: dataclasses to dicts, enums to values, times to RFC 3339 UTC, tuples to lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: keys sorted, no spaces, UTF-8; NaN raises ValueError."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def restore(kind: Any, value: Any) -> Any:
    """The inverse of `plain` for records and specs: JSON types to the dataclass (or tuple, dict, enum, path, time)
    that `kind` names.

    Unknown keys raise TypeError, so that nothing that was written is dropped quietly; missing ones take their defaults.
    """
    if get_origin(kind) in (Union, UnionType):
        inner = [option for option in get_args(kind) if option is not NoneType]
        return None if value is None else restore(inner[0], value)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{key: restore(hints.get(key, Any), item) for key, item in value.items()})
    if get_origin(kind) is tuple:
        return tuple(restore(get_args(kind)[0], item) for item in value)
    if get_origin(kind) in (dict, Mapping):
        return {key: restore(get_args(kind)[1], item) for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Enum | Path):
        return kind(value)
    return from_rfc3339(value) if kind is datetime else value


def rfc3339(at: datetime) -> str:
    """A UTC time to the microsecond, with a Z."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> datetime:
    """The time that RFC 3339 text names; ValueError where it has no zone."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return at.astimezone(UTC)


def new_id(prefix: str) -> str:
    """A fresh name that sorts by time: prefix, 11 hex digits of milliseconds, 10 random ones."""
    return f"{prefix}{time.time_ns() // 1_000_000:011x}{secrets.token_hex(5)}"


def hash01(*parts: object) -> float:
    """A number in [0, 1), uniform over keys and the same for ever for the same parts."""
    data = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "big") / 2.0**56


def pick(kind: str, wanted: str, known: Iterable[str], hint: str) -> str:
    """The one known id that equals or begins with what was wanted; UnknownId where none or several do."""
    names = list(dict.fromkeys(known))
    if wanted in names:
        return wanted
    found = [name for name in names if wanted and name.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    got = f"{len(found)} that begin so: {', '.join(found[:4])}" if found else "none"
    raise UnknownId(
        f"no {kind} {wanted!r}" if not found else f"{kind} {wanted!r} is not unique",
        [Fault(f"no single {kind} has this id", wanted, "a full id or a unique prefix", got, hint)],
    )


def write_whole(path: Path, data: bytes) -> None:
    """Write, fsync, rename: after a crash the file holds the old bytes or all the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
