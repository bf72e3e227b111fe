"""Small images together in few large blobs: a file each would cost more than their prediction."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rounds.core.errors import DamagedData, Fault
from rounds.core.ids import digest as digest_of
from rounds.core.ports import Blobs
from rounds.stores.rows_engine import Database
from rounds.stores.rows_schema import packed, unsettled
from rounds.stores.rows_shadows import chunked

SMALL_BYTES = 64 * 1024
PACK_BYTES = 4 * 1024 * 1024
RECENT = 16_384
# A pack that its writer has not settled so many seconds after it began was left by a crash.
LEFT_S = 3600.0

_KNOWN = sa.select(packed.c.image, packed.c.pack, packed.c.at, packed.c.size)
# By the driver itself: SQLAlchemy's own way of naming every value costs as much as the rest of keeping an image.
_PLACE = (
    "INSERT INTO packed (image, pack, at, size) VALUES ({0}, {0}, {0}, {0}) ON CONFLICT (image) DO UPDATE SET "
    "pack = excluded.pack, at = excluded.at, size = excluded.size"
)


class PackedBlobs:
    """Blobs, of which the small ones that are kept together share a pack; rows say where each lies.

    A pack is a blob of its own. It is written between two transactions: the first notes it as unsettled, the second
    settles it with its images; what a crash leaves between the two is removed when it is an hour old.
    """

    def __init__(self, blobs: Blobs, database: Database) -> None:
        self._blobs, self._database = blobs, database
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._pack = lru_cache(maxsize=4)(blobs.get)
        self._sweep()

    def put(self, data: bytes) -> str:
        """Keep the bytes once; return their digest."""
        digest = digest_of(data)
        if len(data) > SMALL_BYTES or not self._places([digest]):
            self._blobs.put(data)
        return digest

    def put_many(self, datas: Sequence[bytes]) -> list[str]:
        """Keep each once; their digests, in order."""
        digests, fresh = list[str](), dict[str, bytes]()
        for data in datas:
            if len(data) > SMALL_BYTES:
                digests.append(self._blobs.put(data))
                continue
            digests.append(digest := digest_of(data))
            if digest not in self._recent:
                fresh[digest] = data
        for digest in self._places(list(fresh)) if fresh else ():
            del fresh[digest]
        for part in _parts(fresh):
            self._keep(part, [])
        self._remember(digests)
        return digests

    def get(self, digest: str) -> bytes:
        """The bytes; UnknownId where absent, DamagedData where they no longer match."""
        if (place := self._places([digest]).get(digest)) is None:
            return self._blobs.get(digest)
        pack, at, size = place
        data = self._pack(pack)[at : at + size]
        if digest_of(data) != digest:
            fault = Fault("the bytes have changed", pack, f"sha256 {digest}", next="restore the workspace from a copy")
            raise DamagedData(f"blob {digest[:12]} is damaged", [fault])
        return data

    def has(self, digest: str) -> bool:
        """Whether bytes of this digest are kept; they are not read."""
        return digest in self._places([digest]) or self._blobs.has(digest)

    def size(self, digest: str) -> int | None:
        """How many bytes are kept under this digest; None where there are none."""
        place = self._places([digest]).get(digest)
        return self._blobs.size(digest) if place is None else place[2]

    def delete(self, digest: str) -> bool:
        """Forget the bytes; False where they were not there."""
        return self.delete_many([digest]) == 1

    def delete_many(self, digests: Sequence[str]) -> int:
        """Forget them all, and how many were there: what else their packs hold is kept in new ones."""
        self._recent.clear()
        self._pack.cache_clear()
        places = self._places(digests)
        for pack in {pack for pack, _, _ in places.values()}:
            with self._database.reading() as connection:
                there = connection.execute(_KNOWN.where(packed.c.pack == pack)).all()
            held = self._blobs.get(pack)
            rest = {row.image: held[row.at : row.at + row.size] for row in there if row.image not in places}
            self._keep(rest, [row.image for row in there if row.image in places], pack)
        # Last, for a pack of one image bears its name; one that was first kept alone, then among others, lies in both.
        gone = {digest for digest in dict.fromkeys(digests) if self._blobs.delete(digest)}
        return len(gone | places.keys())

    def __iter__(self) -> Iterator[str]:
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(packed.c.image, packed.c.pack)).all()
        told = {row.pack for row in rows} | {row.image for row in rows}
        yield from (row.image for row in rows)
        yield from (name for name in self._blobs if name not in told)

    def _keep(self, images: dict[str, bytes], dropped: Sequence[str], old: str | None = None) -> None:
        """Keep images in a pack of their own, in place of the pack `old`, whose `dropped` images are forgotten."""
        body = b"".join(images.values())
        pack, rows, at = digest_of(body), [], 0
        for image, data in images.items():
            rows.append((image, pack, at, len(data)))
            at += len(data)
        packs = [*([pack] if rows else []), *([old] if old else [])]
        settled = False
        while not settled:
            with self._database.writing() as connection:
                _note(connection, packs)
            if rows:
                self._blobs.put(body)
            with self._database.writing() as connection:
                # Swept meanwhile, by another process that took it for left: once more.
                settled = _settle(connection, [pack] if rows else [])
                if settled:
                    for start in range(0, len(dropped), 10_000):
                        part = dropped[start : start + 10_000]
                        connection.execute(sa.delete(packed).where(packed.c.image.in_(part)))
                    if rows:
                        connection.exec_driver_sql(_PLACE.format("?" if self._database.sqlite else "%s"), rows)
        if old:
            self._blobs.delete(old)
            with self._database.writing() as connection:
                _settle(connection, [old])

    def _places(self, digests: Sequence[str]) -> dict[str, tuple[str, int, int]]:
        with self._database.reading() as connection:
            found = chunked(connection, _KNOWN, packed.c.image, list(dict.fromkeys(digests)))
            return {image: (pack, at, size) for image, pack, at, size in found}

    def _remember(self, digests: Sequence[str]) -> None:
        """What was kept a moment ago is known without asking: the same film often comes again soon."""
        self._recent.update(dict.fromkeys(digests))
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def _sweep(self) -> None:
        before = int((time.time() - LEFT_S) * 1_000_000)
        with self._database.reading() as connection:
            left = list(connection.execute(sa.select(unsettled.c.pack).where(unsettled.c.at < before)).scalars())
        for pack in left:
            with self._database.writing() as connection:
                if not _settle(connection, [pack]):
                    continue
                used = connection.execute(sa.select(packed.c.image).where(packed.c.pack == pack).limit(1)).first()
                if used is None:
                    self._blobs.delete(pack)


def _parts(images: dict[str, bytes]) -> Iterator[dict[str, bytes]]:
    part, size = dict[str, bytes](), 0
    for image, data in images.items():
        if part and size + len(data) > PACK_BYTES:
            yield part
            part, size = {}, 0
        part[image] = data
        size += len(data)
    if part:
        yield part


def _note(connection: Connection, packs: Sequence[str]) -> None:
    _settle(connection, packs)
    now = time.time_ns() // 1000
    connection.execute(sa.insert(unsettled), [{"pack": pack, "at": now} for pack in packs])


def _settle(connection: Connection, packs: Sequence[str]) -> bool:
    """Whether all of them were unsettled still."""
    return connection.execute(sa.delete(unsettled).where(unsettled.c.pack.in_(packs))).rowcount == len(packs)
