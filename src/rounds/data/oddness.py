"""Films that do not look like the others: blank, inverted, mostly border, of an odd shape or size; odd class sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rounds.data.copies import is_blank
from rounds.data.findings import Finding, film_told, several
from rounds.data.take import Taken
from rounds.imaging.likeness import signatures

Floats = NDArray[np.float64]

# A class looks alike where its films correlate so with their mean in the middle; a film that correlates so negatively
# is its negative. Fewer films than this have no common look.
_ALIKE = 0.5
_FEWEST = 10
# Tukey's outer fence: three times the middle half's width beyond it; and at least so far, so that sets whose films are
# all the same have no outliers by a pixel.
_FENCE = 3.0
_HALF_BORDER = 0.5
_SHAPE = float(np.log2(1.5))
_SIZE = 2.0
IMBALANCE = 10.0
SMALL = 50


def oddness(films: Sequence[Taken]) -> Iterator[Finding]:
    """Findings on how single films look."""
    blank = [film for film in films if is_blank(film.look)]
    yield from _films("fault", "blank", blank, "film shows nothing", "films show nothing")
    negative = [films[i] for i in _inverted(films)]
    yield from _films("note", "inverted", negative, "film looks like a negative", "films look like negatives")
    border = np.array([film.look.border for film in films])
    wide = [i for i in _above(border, _HALF_BORDER) if not is_blank(films[i].look)]
    yield from _listed("mostly_border", "is mostly border", "are mostly border", films, wide, "border", border)
    high, width = (np.array([getattr(film.look, side) for film in films], float) for side in ("height", "width"))
    shape = np.log2(width / high)
    odd = _outside(shape, _SHAPE)
    yield from _listed("odd_shape", "has an odd shape", "have odd shapes", films, odd, "aspect", width / high)
    odd = _outside(np.log2(width * high), _SIZE)
    yield from _listed("odd_size", "has an odd size", "have odd sizes", films, odd, "pixels", width * high)


def class_sizes(films: Sequence[Taken], classes: Sequence[str]) -> Iterator[Finding]:
    """Findings on classes that are rare, too small for a split, or absent from one."""
    counted: dict[str, Counter[str]] = {}
    for film in films:
        counted.setdefault(film.split or "train", Counter())[film.label] += 1
    table = {split: {label: counts[label] for label in classes} for split, counts in counted.items()}
    absent = _lacking(table, 1)
    if absent:
        what = f"classes are absent: {_told(absent)}"
        yield Finding("fault", "class_absent", what, values={"counts": table})
    small = [(split, label, n) for split, label, n in _lacking(table, SMALL) if n > 0]
    if small:
        what = f"classes have under {SMALL} films: {_told(small)}"
        yield Finding("note", "class_small", what, values={"counts": table})
    all_of = Counter(film.label for film in films)
    most, least = max(all_of.values()), min(all_of[label] for label in classes)
    if least and most / least >= IMBALANCE:
        rare = min(classes, key=lambda label: all_of[label])
        what = f"the largest class has {most / least:.0f} times the films of the smallest, {rare}"
        yield Finding("note", "class_imbalance", what, values={"counts": dict(all_of), "ratio": most / least})


def _lacking(table: Mapping[str, Mapping[str, int]], least: int) -> list[tuple[str, str, int]]:
    return [(split, label, n) for split, counts in table.items() for label, n in counts.items() if n < least]


def _told(rows: Sequence[tuple[str, str, int]]) -> str:
    return "; ".join(f"{n} {label} in {split}" for split, label, n in rows)


def _films(severity: str, kind: str, found: Sequence[Taken], one: str, many: str) -> Iterator[Finding]:
    if found:
        yield Finding(severity, kind, several(len(found), one, many), tuple(map(film_told, found)))


def _listed(
    kind: str, one: str, many: str, films: Sequence[Taken], found: Sequence[int], key: str, values: Floats
) -> Iterator[Finding]:
    if found:
        told = tuple(film_told(films[i], **{key: float(values[i])}) for i in found)
        usual: dict[str, Any] = {"usual": float(np.median(values))}
        yield Finding("note", kind, several(len(found), f"film {one}", f"films {many}"), told, values=usual)


def _inverted(films: Sequence[Taken]) -> list[int]:
    """Films that correlate with their class's mean look as its negative would."""
    found: list[int] = []
    for label in sorted({film.label for film in films}):
        index = [i for i, film in enumerate(films) if film.label == label and not is_blank(film.look)]
        if len(index) < _FEWEST:
            continue
        looks = signatures([films[i].look for i in index]).astype(np.float64)
        mean = looks.mean(0)
        norms = np.sqrt((looks**2).sum(1) * float(mean @ mean)) + 1e-9
        alike = looks @ mean / norms
        if np.median(alike) >= _ALIKE:
            found += [index[i] for i in np.flatnonzero(alike <= -_ALIKE)]
    return sorted(found)


def _outside(values: Floats, least: float) -> list[int]:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    reach = _FENCE * (high - low)
    odd = (values < min(low - reach, middle - least)) | (values > max(high + reach, middle + least))
    return [int(i) for i in np.flatnonzero(odd)]


def _above(values: Floats, least: float) -> list[int]:
    low, high = np.quantile(values, (0.25, 0.75))
    return [int(i) for i in np.flatnonzero(values > max(least, high + _FENCE * (high - low)))]
