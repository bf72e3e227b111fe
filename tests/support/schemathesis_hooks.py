"""What schemathesis sends where the description says that a body is an image or an archive: real ones."""

from __future__ import annotations

import io
import re
import struct
import uuid
import zipfile
import zlib
from typing import Any

import schemathesis
from hypothesis import strategies as st


def film(level: int) -> bytes:
    """A gray PNG of 16 x 16 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes((level + i) % 256 for i in range(16)) for _ in range(16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def archive(levels: list[int]) -> bytes:
    """A zip of films."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for i, level in enumerate(levels):
            packed.writestr(f"{i}.png", film(level))
    return out.getvalue()


ONE_FILE = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}},
    "required": ["file"],
    "additionalProperties": False,
}
LEVELS = st.integers(0, 255)
FILMS = LEVELS.map(film)
ARCHIVES = st.lists(LEVELS, min_size=1, max_size=4).map(archive)
for media in ("image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream"):
    schemathesis.openapi.media_type(media, FILMS)
for media in ("application/zip", "application/x-tar", "application/gzip"):
    schemathesis.openapi.media_type(media, ARCHIVES)
TABLES = ["reference,label\nr-1,normal\n", "prediction,label\np_1,normal\n"]
schemathesis.openapi.format("csv", st.sampled_from(TABLES))


@schemathesis.serializer("text/csv")
def csv(_context: object, value: object) -> bytes:
    """Text as it is."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def before_load_schema(_context: object, raw_schema: dict[str, Any]) -> None:
    """Leave lists of files out of forms: they would be sent as text. (Other tests send them.)"""
    for path in raw_schema["paths"].values():
        for operation in path.values():
            form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
            if form is not None:
                form["schema"] = ONE_FILE


@schemathesis.hook
def before_call(_context: object, case: schemathesis.Case, _kwargs: object) -> None:
    """Give every request a good idempotency key of its own, as one key with other bodies is refused."""
    given = (case.headers or {}).get("idempotency-key")
    if given is not None and re.fullmatch("[!-~]{1,255}", str(given)):
        case.headers["idempotency-key"] = str(uuid.uuid4())
