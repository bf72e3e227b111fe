"""Films that show one picture though their pixels differ: encoded again, resized, shifted in gray, or mirrored.

Candidates come from a table of 64-bit hashes in four bands of 16 bits (multi-index hashing: Norouzi, Punjani and Fleet,
CVPR 2012), so that no film is compared with every other. A bit says on which side of the data set's median a cosine
coefficient lies: bits are then even and nearly independent also where all films look alike, as X-rays do. Each film is
also looked for in the buckets beside its own that differ in its least certain bits (multi-probe: Lv et al., VLDB 2007).
What the signatures leave possible is decided on pixels (`imaging.likeness.same_picture`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rounds.imaging import likeness
from rounds.imaging.likeness import Likeness, Pixels, Signatures

Ints = NDArray[np.int64]

_BANDS = 4
_BITS = likeness.WIDTH // _BANDS
# Of 64 bits, copies of 1,500 chest films of 224 pixels lost at most 3 (JPEG of quality 30), at 28 pixels 9, and those
# of Fashion-MNIST 13; in each band they may lose any of the least certain four.
_RADIUS = 16
_UNCERTAIN = 4
# A coefficient whose middle half is narrower than this, in its own units, differs by noise alone: its bit stays 0.
_QUIET = 32
# A bucket of more films than this is searched in the neighbourhood of the film's whole hash only.
_BUCKET = 1024
_CHUNK = 1 << 16
# So many candidates a film are kept on average, and pixels compared for so many, the likeliest first.
_PIXELS_A_FILM = 8
_PAIRS_A_FILM = 16
_ROUNDING = 0.5


@dataclass(frozen=True)
class Pair:
    """Two films, by their places in what was searched, that show one picture."""

    one: int
    other: int
    likeness: Likeness


@dataclass(frozen=True)
class Found:
    """Pairs of films that show one picture, enough to join all that do; `unsearched` comparisons were left out because
    too many films look alike."""

    pairs: list[Pair] = field(default_factory=list)
    unsearched: int = 0


def find(signatures: Signatures, blank: NDArray[np.bool_], pixels: Callable[[int], Pixels]) -> Found:
    """Search films by their signatures int16 (n, 64), pixels read only where needed; blank films are left out, since
    they are no picture.

    Memory: some 200 bytes a film. A pair whose films are joined already through others is not compared again.
    """
    use = np.flatnonzero(~blank)
    candidates, unsearched = _candidates(signatures[use])
    budget = _PIXELS_A_FILM * len(use) + 1_000
    joined = Joined(len(signatures))
    read = lru_cache(maxsize=64)(pixels)
    found: list[Pair] = []
    for i, j, mirror in candidates:
        one, other = int(use[i]), int(use[j])
        if joined.root(one) == joined.root(other):
            continue
        if not budget:
            unsearched += 1
            continue
        budget -= 1
        alike = likeness.same_picture(read(one), read(other), mirror=bool(mirror))
        if alike:
            joined.join(one, other)
            found.append(Pair(one, other, alike))
    return Found(found, unsearched)


class Joined:
    """Sets of numbers that grow together (union by the smallest)."""

    def __init__(self, n: int) -> None:
        self._leader = list(range(n))

    def root(self, index: int) -> int:
        """The smallest number of the set."""
        while self._leader[index] != index:
            self._leader[index] = self._leader[self._leader[index]]
            index = self._leader[index]
        return index

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        low, high = sorted((self.root(one), self.root(other)))
        self._leader[high] = low


def _candidates(signatures: Signatures) -> tuple[Iterator[tuple[int, int, int]], int]:
    """Pairs i < j, and whether mirrored, that may be one picture, the likeliest first; how many comparisons were left
    out."""
    n = len(signatures)
    if n < 2:
        return iter(()), 0
    low, threshold, high = np.sort(signatures, axis=0)[[n // 4, n // 2, 3 * n // 4]].astype(np.int32)
    threshold[likeness.ODD] = 0
    threshold[high - low < _QUIET] = np.iinfo(np.int16).max
    allowed = likeness.limit(1.2 * likeness.contrast(signatures) + _ROUNDING) + _ROUNDING
    hashes = _hashes(signatures > threshold)
    table, closest = _Table(hashes), _Closest(_PAIRS_A_FILM * n + 100_000)
    for mirror, queries in ((0, signatures), (1, likeness.mirrored(signatures))):
        wanted = _hashes(queries > threshold)
        for i, j in table.near(wanted, np.abs(queries - threshold)):
            within = np.bitwise_count(wanted[i] ^ hashes[j]) <= _RADIUS
            i, j = i[within], j[within]
            least = likeness.least_difference(queries[i], signatures[j])
            close = least <= np.minimum(allowed[i], allowed[j])
            keys = (np.minimum(i, j)[close] * n + np.maximum(i, j)[close]) * 2 + mirror
            closest.add(keys, least[close])
    pairs = closest.keys()
    return ((key // 2 // n, key // 2 % n, key % 2) for key in pairs.tolist()), table.unsearched + closest.left_out


class _Closest:
    """The keys of least distance among all that were added, at most `limit` of them, each once."""

    def __init__(self, limit: int) -> None:
        self.left_out = 0
        self._limit = limit
        self._keys: list[Ints] = []
        self._apart: list[NDArray[np.float64]] = []
        self._held = 0

    def add(self, keys: Ints, apart: NDArray[np.float64]) -> None:
        """Take more keys with their distances, some of them again."""
        self._keys.append(keys)
        self._apart.append(apart)
        self._held += len(keys)
        if self._held > 2 * self._limit:
            self.keys()

    def keys(self) -> Ints:
        """The keys, the closest first; equal distances by key."""
        keys, first = np.unique(np.concatenate(self._keys), return_index=True)
        apart = np.concatenate(self._apart)[first]
        order = np.argsort(apart, kind="stable")
        self.left_out += max(0, len(order) - self._limit)
        order = order[: self._limit]
        self._keys, self._apart, self._held = [keys[order]], [apart[order]], len(order)
        return self._keys[0]


def _hashes(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """64 bits a film, (n,); neighbouring frequencies go to different bands, so that each band knows coarse and fine."""
    spread = bits.reshape(-1, _BITS, _BANDS).transpose(0, 2, 1)
    return np.packbits(spread.reshape(len(bits), -1), axis=1, bitorder="little").view("<u8").ravel().astype(np.uint64)


class _Table:
    """The hashes of all films, sorted once for each band."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self.unsearched = 0
        turned = [_turned(hashes, band) for band in range(_BANDS)]
        self._orders = [np.argsort(values, kind="stable") for values in turned]
        self._sorted = [values[order] for values, order in zip(turned, self._orders, strict=True)]

    def near(self, hashes: NDArray[np.uint64], certainty: NDArray[np.int32]) -> Iterator[tuple[Ints, Ints]]:
        """Pairs of a query and a film, each (m,), that share a band but for the query's least certain bits; in parts of
        bounded size, some pairs in several."""
        by_band = certainty.reshape(-1, _BITS, _BANDS)
        for band in range(_BANDS):
            weakest = np.argsort(by_band[:, :, band], axis=1, kind="stable")[:, :_UNCERTAIN].astype(np.uint64)
            whole = _turned(hashes, band)
            for subset in range(1 << _UNCERTAIN):
                flips = np.zeros(len(hashes), np.uint64)
                for bit in range(_UNCERTAIN):
                    if subset >> bit & 1:
                        flips |= np.uint64(1) << (weakest[:, bit] + np.uint64(64 - _BITS))
                yield from self._bucket(band, whole ^ flips)

    def _bucket(self, band: int, wanted: NDArray[np.uint64]) -> Iterator[tuple[Ints, Ints]]:
        """Films whose turned hashes begin as the wanted ones do."""
        low_bits = np.uint64((1 << (64 - _BITS)) - 1)
        table = self._sorted[band]
        first = np.searchsorted(table, wanted & ~low_bits)
        last = np.searchsorted(table, wanted | low_bits, "right")
        large = np.flatnonzero(last - first > _BUCKET)
        if len(large):
            middle = np.searchsorted(table, wanted[large])
            near = np.clip(middle - _BUCKET // 2, first[large], last[large] - _BUCKET)
            self.unsearched += int((last[large] - first[large] - _BUCKET).sum()) // 2
            first[large], last[large] = near, near + _BUCKET
        yield from _pairs(self._orders[band], first, last)


def _turned(hashes: NDArray[np.uint64], band: int) -> NDArray[np.uint64]:
    """The hashes with the band's bits on top and the others behind them."""
    by = np.uint64((64 - _BITS * (band + 1)) % 64)
    return (hashes << by) | (hashes >> (np.uint64(64) - by)) if by else hashes


def _pairs(order: Ints, first: Ints, last: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Every query with every film of its range, but itself, in parts of about a million."""
    counts = last - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        part = counts[start:stop]
        queries = np.repeat(np.arange(start, stop), part)
        offsets = np.arange(len(queries)) - np.repeat(ends[start:stop] - part - done, part)
        films = order[np.repeat(first[start:stop], part) + offsets]
        other = queries != films
        yield queries[other], films[other]
        start = stop


def groups(n: int, same: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The sets of two and more among n films that the pairs join."""
    joined = Joined(n)
    for one, other in same:
        joined.join(one, other)
    members: dict[int, list[int]] = {}
    for index in sorted({index for pair in same for index in pair}):
        members.setdefault(joined.root(index), []).append(index)
    return list(members.values())
