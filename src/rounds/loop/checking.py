"""Data sets checked: all that is found in one, the leaks that stop training, and what changed between two."""

from __future__ import annotations

from collections.abc import Callable

from rounds.core.ports import Ports
from rounds.core.records import DatasetVersion
from rounds.costs.meter import metered
from rounds.data import looks
from rounds.data.checks import check_leaks
from rounds.data.difference import Difference, difference
from rounds.data.findings import Survey
from rounds.data.survey import survey
from rounds.imaging.decode import decode
from rounds.imaging.fit import encode_png
from rounds.imaging.packed import ADMITTED, Films
from rounds.imaging.texture import thumbnail
from rounds.loop import intake

# Pixels of the longer side of a film on a page: what a screen shows of it there.
_SHOWN = 160


def check(ports: Ports, ref: str) -> tuple[DatasetVersion, Survey]:
    """Check a data set by name or id. Raises: UnknownId, DamagedData."""
    dataset = intake.find(ports, ref)
    with metered(ports.ledger, ports.clock, "check", dataset.digest):
        return dataset, survey(dataset)


def diff(ports: Ports, before: str, after: str) -> Difference:
    """What changed between two data sets, by name or id. Raises: UnknownId, DamagedData."""
    return difference(intake.find(ports, before), intake.find(ports, after))


def pictures(dataset: DatasetVersion) -> Callable[[str], bytes]:
    """A function from the name of a film to a small PNG of it. Raises: DamagedData."""
    films = Films(dataset.path)
    rows = films.rows()
    places = dict(zip(rows.names, rows.index.tolist(), strict=True))
    return lambda name: encode_png(thumbnail(decode(films.bytes(places[name]), ADMITTED), _SHOWN))


def refuse_leaks(ports: Ports, dataset: DatasetVersion) -> None:
    """Raise LeakFound, with the pairs, where films of one picture or subject stand in two splits.

    What films look like is kept beside the data set by whoever looked first (`prepare` does), so this costs no
    decoding: see `data.looks`. Raises: DamagedData.
    """
    with metered(ports.ledger, ports.clock, "check", dataset.digest):
        films, copies = looks.seen(dataset)
    check_leaks(f"{dataset.name}@{dataset.digest[:12]}", films, copies)
