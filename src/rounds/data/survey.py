"""All checks of a prepared data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rounds.core.records import DatasetVersion
from rounds.core.specs import SPLITS
from rounds.data import looks
from rounds.data.copies import Copies
from rounds.data.findings import Finding, Survey, by_severity, film_told, several
from rounds.data.mislabelled import doubts
from rounds.data.oddness import class_sizes, oddness
from rounds.data.sameness import sameness
from rounds.data.split import groups_of
from rounds.data.take import Taken
from rounds.imaging.measure import MEASURES, measure
from rounds.imaging.packed import Films
from rounds.imaging.texture import TEXTURED
from rounds.stats.shift import holm, mix_p, shift

_BLOCK = 1024
# A shift between splits is worth a note below this corrected p, and from this distance of the superiority from a half:
# about a quarter of the reference's standard deviation.
ALPHA = 0.01
MOVED = 0.07


def survey(dataset: DatasetVersion) -> Survey:
    """Check a data set: copies, leaks, labels, odd films, class sizes, shift between splits, doubtful labels.

    Memory: some hundred bytes a film beside its row in the manifest, and one block of pixels. Raises: DamagedData.
    """
    opened = Films(dataset.path)
    films, copies = looks.seen(dataset, opened)
    pixels = opened.pixels(TEXTURED)
    findings = [*sameness(films, copies, subjects_known=dataset.subjects_known)]
    findings += [*oddness(films), *class_sizes(films, dataset.classes)]
    shifts = shifts_between(films, measures_of(pixels))
    findings += _shifted(shifts)
    doubted, skipped = _doubted(films, copies, pixels, dataset.classes)
    findings += doubted
    return Survey(dataset.name, dataset.digest, len(films), by_severity(findings), tuple(shifts), skipped)


def measures_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The measures that the watch uses, float32 (n, 5), of films uint8 (n, c, h, w), a block at a time."""
    parts = [measure(np.asarray(pixels[start : start + _BLOCK])) for start in range(0, len(pixels), _BLOCK)]
    return np.concatenate(parts)


def shifts_between(films: Sequence[Taken], measured: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Every split but train against train (or the first there is), by measure within classes, and in its class mix;
    one film a subject, p-values corrected over all these questions."""
    splits = [split for split in SPLITS if any(film.split == split for film in films)]
    rows: list[dict[str, Any]] = []
    if splits:
        first = _samples(films, measured, splits[0])
        for split in splits[1:]:
            rows += compare(first, _samples(films, measured, split), {"split": split, "against": splits[0]})
    return corrected(rows)


Sample = Mapping[str, NDArray[np.float64]]


def sample(films: Sequence[Taken], measured: NDArray[np.float32]) -> Sample:
    """By class, the measures (n, 5) of one film of each subject: the first by its digest."""
    chosen: dict[tuple[str, str], int] = {}
    for index in sorted(range(len(films)), key=lambda index: films[index].digest):
        chosen.setdefault((films[index].label, films[index].subject), index)
    labels = sorted({label for label, _ in chosen})
    index_of = {label: [i for (mine, _), i in chosen.items() if mine == label] for label in labels}
    return {label: measured[index].astype(np.float64) for label, index in index_of.items()}


def compare(reference: Sample, other: Sample, named: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a measure and one for the class mix: size, superiority with its bounds, p; `named` is in every row."""
    rows: list[dict[str, Any]] = []
    labels = sorted(reference.keys() | other.keys())
    for column, name in enumerate(MEASURES):
        a, b = ({labels.index(label): part[:, column] for label, part in side.items()} for side in (reference, other))
        found = shift(a, b)
        if found:
            rows.append({**named, "measure": name, **asdict(found), "n": list(found.n)})
    counts = [[len(side.get(label, ())) for label in labels] for side in (reference, other)]
    shares = [np.array(count) / max(sum(count), 1) for count in counts]
    size = float(np.abs(shares[1] - shares[0]).max(initial=0.0))
    mix = {"measure": "class mix", "size": size, "superiority": None, "low": None, "high": None}
    return [*rows, {**named, **mix, "p": mix_p(*counts), "n": [sum(count) for count in counts]}]


def corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `p_corrected` over all of them, and whether they moved enough to be told."""
    fixed = holm([row["p"] for row in rows])
    return [row | {"p_corrected": p, "moved": p < ALPHA and _far(row)} for row, p in zip(rows, fixed, strict=True)]


def _far(row: Mapping[str, Any]) -> bool:
    if row["superiority"] is None:
        return bool(row["size"] >= MOVED)
    return bool(abs(row["superiority"] - 0.5) >= MOVED)


def _samples(films: Sequence[Taken], measured: NDArray[np.float32], split: str) -> Sample:
    index = [i for i, film in enumerate(films) if film.split == split]
    return sample([films[i] for i in index], measured[index])


def _shifted(rows: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    moved = Counter((row["split"], row["against"]) for row in rows if row["moved"])
    for split, against in moved:
        mine = [row for row in rows if row["moved"] and row["split"] == split]
        told = ", ".join(f"{row['measure']} by {row['size']:+.2f}" for row in mine)
        what = f"{split} differs from {against}: {told}"
        yield Finding("note", "shift", what, values={"rows": [dict(row) for row in mine]})


def _doubted(
    films: Sequence[Taken], copies: Copies, pixels: NDArray[np.uint8], classes: Sequence[str]
) -> tuple[list[Finding], tuple[str, ...]]:
    groups = groups_of(
        [(("subject", film.subject), ("picture", copies.picture(film))) for film in films],
        [film.label for film in films],
        [film.digest for film in films],
    )
    labels = np.array([classes.index(film.label) for film in films])
    found = doubts(pixels, labels, groups, len(classes))
    if found is None:
        return [], ("labels in doubt: a class has too few subjects to learn from",)
    told = tuple(
        film_told(films[one.film], said=classes[one.said], p_label=one.p_label, p_said=one.p_said)
        for one in found.films
    )
    what = f"{several(len(told), 'film looks', 'films look')} more like another class to a small classifier, which "
    what += f"agrees with {found.agreement:.0%} of all labels: worth a look, nothing is changed"
    values = {"agreement": found.agreement}
    return ([Finding("note", "labels_in_doubt", what, told, values=values)] if told else []), ()
