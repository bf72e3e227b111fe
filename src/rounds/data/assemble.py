"""A data set of films that are already checked and split, as retraining puts them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rounds.core.records import DatasetVersion
from rounds.imaging.packed import Film, write_films


def assemble(
    name: str,
    films: Iterable[Film],
    classes: Sequence[str],
    *,
    folder: Path,
    subjects_known: bool,
    notes: Sequence[str] = (),
) -> DatasetVersion:
    """Writes the films, one at a time, as a data set under `folder`.

    Raises: BadLabel for labels outside `classes`, BadSource for unknown splits or no film, NotWritable.
    """
    return write_films(folder, name, classes, films, subjects_known=subjects_known, notes=notes)
