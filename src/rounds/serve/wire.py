"""Frames between the server and its workers: a JSON head and raw bytes, over a stream socket; nothing is unpickled."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

_LENGTHS = struct.Struct("!II")

Frame = tuple[dict[str, Any], memoryview]


def frame(head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> bytes:
    """One frame: the head as JSON, and the parts one after the other."""
    said = orjson.dumps(head)
    return b"".join((_LENGTHS.pack(len(said), sum(map(len, parts))), said, *parts))


class Frames:
    """The frames of a stream, from whatever pieces it arrives in."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that these bytes complete, in order."""
        self._held += data
        at = 0
        while (found := whole(self._held, at)) is not None:
            head, body, at = found
            yield orjson.loads(head), memoryview(body)
        del self._held[:at]


def whole(held: bytearray, at: int) -> tuple[bytes, bytes, int] | None:
    """Head, body and end of the frame that begins there, None where it is not whole yet."""
    if len(held) < at + _LENGTHS.size:
        return None
    head, body = _LENGTHS.unpack_from(held, at)
    start = at + _LENGTHS.size
    end = start + head + body
    return (bytes(held[start : start + head]), bytes(held[start + head : end]), end) if len(held) >= end else None


def read(stream: socket.socket) -> Frame | None:
    """Wait for one frame; None where the other side has gone."""
    lengths = _exactly(stream, _LENGTHS.size)
    if lengths is None:
        return None
    head, body = _LENGTHS.unpack(lengths)
    said, rest = _exactly(stream, head), _exactly(stream, body)
    return None if said is None or rest is None else (orjson.loads(said), rest)


def cut(body: memoryview, lengths: Sequence[int]) -> list[bytes]:
    """The parts of a frame's body, of these lengths."""
    parts, at = [], 0
    for length in lengths:
        parts.append(bytes(body[at : at + length]))
        at += length
    return parts


def _exactly(stream: socket.socket, count: int) -> memoryview | None:
    held = memoryview(bytearray(count))
    at = 0
    while at < count:
        try:
            found = stream.recv_into(held[at:])
        except ConnectionError:
            return None
        if not found:
            return None
        at += found
    return held
