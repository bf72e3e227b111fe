"""What changed between two data sets: films that came, went, were replaced, and changed label, split or subject."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rounds.core.records import DatasetVersion
from rounds.core.specs import SPLITS
from rounds.data import looks
from rounds.data.findings import film_told
from rounds.data.survey import compare, corrected, measures_of, sample
from rounds.data.take import Taken
from rounds.imaging.decode import decode
from rounds.imaging.likeness import same_picture
from rounds.imaging.packed import ADMITTED, Films
from rounds.imaging.texture import TEXTURED

CHANGES = ("came", "went", "relabelled", "moved", "resubjected", "reattributed", "renamed", "replaced")


@dataclass(frozen=True)
class Difference:
    """From `before` to `after`: every change with the film and what it was and is; counts by split and class on both
    sides; `drift`, the films that came against those of before."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    changes: Mapping[str, tuple[Mapping[str, Any], ...]]
    counts: tuple[Mapping[str, Any], ...]
    drift: tuple[Mapping[str, Any], ...] = field(default=())

    def public(self) -> dict[str, Any]:
        return {
            "before": dict(self.before),
            "after": dict(self.after),
            "same": self.before["digest"] == self.after["digest"],
            "stayed": self.after["images"] - len(self.changes["came"]),
            **{kind: [dict(row) for row in self.changes[kind]] for kind in CHANGES},
            "counts": [dict(row) for row in self.counts],
            "drift": [dict(row) for row in self.drift],
        }


def difference(before: DatasetVersion, after: DatasetVersion) -> Difference:
    """Compare two data sets film by film: by pixels and name, then by pixels, then by name. Raises: DamagedData.

    Drift is asked of the films that came, one a subject, against those of before: both sets whole share films, and no
    test would hold. Each measure is compared within classes; p-values are corrected over all of them.
    """
    old, new = looks.seen(before)[0], looks.seen(after)[0]
    pairs, came, went = _matched(old, new)
    opened = Films(before.path), Films(after.path)
    changes: dict[str, list[dict[str, Any]]] = {kind: [] for kind in CHANGES}
    changes["came"] = [film_told(new[j]) for j in came]
    changes["went"] = [film_told(old[i]) for i in went]
    for i, j in pairs:
        for kind, was, now in _changed(old[i], new[j]):
            changes[kind].append(film_told(new[j], was=was, now=now))
        if old[i].pixels != new[j].pixels:
            alike = same_picture(decode(opened[0].bytes(i), ADMITTED), decode(opened[1].bytes(j), ADMITTED))
            changes["replaced"].append(film_told(new[j], how=str(alike) if alike else "another picture"))
    drift = _drift(before, old, after, new, came) if came else []
    kept = {kind: tuple(rows) for kind, rows in changes.items()}
    return Difference(_named(before, old), _named(after, new), kept, tuple(_counted(old, new)), tuple(drift))


def _changed(old: Taken, new: Taken) -> Iterable[tuple[str, Any, Any]]:
    for kind, key in (("relabelled", "label"), ("moved", "split"), ("resubjected", "subject"), ("renamed", "name")):
        was, now = getattr(old, key), getattr(new, key)
        # where subjects are not known, a film's subject is its name
        if was != now and not (kind == "resubjected" and (old.name, new.name) == (was, now)):
            yield kind, was, now
    if dict(old.attributes) != dict(new.attributes):
        yield "reattributed", dict(old.attributes), dict(new.attributes)


def _matched(old: Sequence[Taken], new: Sequence[Taken]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Places (old, new) of films that are one, and of those of new and of old that have no other."""
    pairs: list[tuple[int, int]] = []
    left_old, left_new = list(range(len(old))), list(range(len(new)))
    keys = (lambda film: (film.pixels, film.name), lambda film: film.pixels, lambda film: film.name)
    for key in keys:
        waiting: defaultdict[object, list[int]] = defaultdict(list)
        for i in reversed(left_old):
            waiting[key(old[i])].append(i)
        found = [(waiting[key(new[j])].pop(), j) for j in left_new if waiting[key(new[j])]]
        gone_old, gone_new = {i for i, _ in found}, {j for _, j in found}
        left_old = [i for i in left_old if i not in gone_old]
        left_new = [j for j in left_new if j not in gone_new]
        pairs += found
    return sorted(pairs, key=lambda pair: pair[1]), left_new, left_old


def _drift(
    before: DatasetVersion, old: Sequence[Taken], after: DatasetVersion, new: Sequence[Taken], came: Sequence[int]
) -> list[dict[str, Any]]:
    reference = sample(old, measures_of(Films(before.path).pixels(TEXTURED)))
    measured = measures_of(Films(after.path).pixels(TEXTURED))
    arrived = sample([new[j] for j in came], measured[np.array(came)])
    return corrected(compare(reference, arrived, {}))


def _named(dataset: DatasetVersion, films: Sequence[Taken]) -> dict[str, Any]:
    told = {"name": dataset.name, "digest": dataset.digest, "images": len(films), "classes": list(dataset.classes)}
    return told | {"subjects": len({film.subject for film in films})}


def _counted(old: Sequence[Taken], new: Sequence[Taken]) -> list[dict[str, Any]]:
    """Films by split and class, before and after."""
    sides = [Counter((film.split or "train", film.label) for film in films) for films in (old, new)]
    keys = sorted(sides[0].keys() | sides[1].keys(), key=lambda key: (SPLITS.index(key[0]), key[1]))
    return [
        {"split": split, "class": label, "before": sides[0][split, label], "after": sides[1][split, label]}
        for split, label in keys
    ]
