"""From a source of labelled images to a data set: checked, split by subject, named by its content."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

from rounds.core.errors import BadOverride, Fault
from rounds.core.records import Prepared
from rounds.core.specs import DataSpec
from rounds.data import looks
from rounds.data.checks import check_films, check_leaks, leave_out_copies, tell_copies
from rounds.data.copies import find_copies
from rounds.data.cutting import settle_splits
from rounds.data.oddness import oddness
from rounds.data.repair import Repaired, repair, repair_notes
from rounds.data.sources import Access, open_sources
from rounds.data.take import Progress, Yield, take
from rounds.imaging.packed import Kept, film_writer

# Subjects in the file names of Kermany, Zhang and Goldbaum's chest films (doi 10.17632/rscbjbr9sj) as Kaggle has them.
CHEST_XRAY_SUBJECT = r"(person\d+|(?:NORMAL2-)?IM-\d+)"

_NEGATIVE = {"normal", "negative", "healthy", "ok", "good", "0"}
_RESERVED = {"latest", "champion"}
_NAME = re.compile(r"[^\W_][\w.+-]{0,127}")


def prepare(
    spec: DataSpec,
    *,
    folder: Path,
    key: str = "",
    cache: Path | None = None,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Makes a data set of one or several sources under `folder`, in constant memory; the same content gives the same
    digest.

    Every file is decoded; those that cannot be are listed as refused. `key` makes the pseudonyms of a DICOM source and
    goes nowhere else; official files are fetched from `mirror` (else from their publisher) and kept in `cache` (else
    beside `folder`). `progress` hears of files done and their total.

    Raises: BadOverride for a spec that cannot be kept to; BadSource for a source that is broken, holds no labelled
    images, gives an image two labels or has too few of a class; LeakFound for films or known subjects that stand in two
    of the splits the source brings; StoreAway and DamagedData for what is fetched; NotWritable.
    """
    subject = _check_spec(spec)
    access = Access(key, cache or folder.parent / "cache", mirror, progress)
    told = " and ".join((spec.source, *spec.more))
    with open_sources(spec, access, subject) as source, film_writer(folder) as writer:
        found = take(source, writer, spec.limits, progress)
        check_films(told, found, repair=spec.repair)
        copies = find_copies(found.taken, lambda film: writer.read(film.digest))
        notes = list(source.notes)
        if source.sealed:
            leave_out_copies(found, copies, notes)
        repaired: list[Repaired] = []
        if spec.repair:
            before = found.taken
            found.taken, repaired = repair(before, copies)
            notes += repair_notes(repaired, before)
        check_leaks(told, found.taken, copies)
        notes += _subject_notes(spec, found, known=source.subjects_known)
        tell_copies(found.taken, copies, notes)
        notes += [f"{finding.what}: rounds data check names them" for finding in oddness(found.taken)]
        splits = settle_splits(spec, found.taken, copies, notes)
        kept = [
            Kept(film.digest, film.label, film.subject, split, film.name, film.attributes)
            for film, split in zip(found.taken, splits, strict=True)
        ]
        classes = class_order({film.label for film in found.taken})
        dataset = writer.finish(spec.name, classes, kept, subjects_known=source.subjects_known, notes=notes)
    looks.keep(dataset.path, found.taken, copies)
    counted = Counter((film.split, film.label) for film in kept)
    by_class = {split: {label: counted[split, label] for label in classes} for split in dataset.splits}
    return Prepared(dataset, len(kept), tuple(found.refused), by_class=by_class, repaired=tuple(repaired))


def class_order(labels: set[str]) -> list[str]:
    """Classes by name, numbers by value; of two classes the one that names the absence of a finding comes first."""
    ordered = sorted(labels, key=lambda label: (0, int(label), "") if label.isdecimal() else (1, 0, label))
    negative = [label for label in ordered if label.lower() in _NEGATIVE]
    if len(ordered) == 2 and len(negative) == 1 and ordered[1] == negative[0]:
        ordered.reverse()
    return ordered


def _check_spec(spec: DataSpec) -> re.Pattern[str] | None:
    faults: list[Fault] = []
    if not _NAME.fullmatch(spec.name) or spec.name in _RESERVED:
        expected = f"letters, digits, '.', '_', '+' and '-', and none of {', '.join(sorted(_RESERVED))}"
        faults.append(Fault("not a name for a data set", "name", expected, repr(spec.name)))
    fractions = {"val": spec.val, "calibration": spec.calibration, "test": spec.test}
    wrong = [f"{key}={value}" for key, value in fractions.items() if not 0 <= value < 1 or math.isnan(value)]
    if wrong or sum(fractions.values()) >= 1:
        got = ", ".join(wrong) or f"a sum of {sum(fractions.values()):g}"
        faults.append(Fault("wrong fractions", "val, calibration, test", "0 or more each, below 1 together", got))
    if spec.min_per_class < 1:
        faults.append(Fault("wrong minimum", "min_per_class", "1 or more", str(spec.min_per_class)))
    subject = None
    try:
        subject = re.compile(spec.subject) if spec.subject else None
    except re.error as error:
        faults.append(
            Fault("not a regular expression", "subject", "one that Python's re takes", f"{spec.subject!r}: {error}")
        )
    if faults:
        raise BadOverride(f"cannot prepare data set {spec.name!r}", faults)
    return subject


def _subject_notes(spec: DataSpec, found: Yield, *, known: bool) -> list[str]:
    alone = sum(film.subject == film.name for film in found.taken)
    if spec.subject is not None:
        told = f"{alone} of {len(found.taken)} names do not match the subject expression"
        return [f"{told}: each of these films is its own subject"] if alone else []
    if known:
        told = f"{alone} of {len(found.taken)} films name no subject"
        return [f"{told}: each of these films is its own subject"] if alone else []
    notes = ["one image = one subject: no subject expression was given"]
    alike = sum(re.search(CHEST_XRAY_SUBJECT, film.name) is not None for film in found.taken)
    if 2 * alike > len(found.taken):
        notes.append(
            f"{alike} of {len(found.taken)} names look like those of the Kaggle chest films: --subject "
            f"'{CHEST_XRAY_SUBJECT}' keeps the films of a child on one side of every split"
        )
    return notes
