"""The tracker follows: its registry the event log, its runs the processes that were cut off."""

from __future__ import annotations

from contextlib import suppress

from rounds.core.errors import StoreAway
from rounds.core.ports import Ports
from rounds.registry.catalogue import Catalogue
from rounds.train.resume import interrupted as cut_off

KINDS = ("registered", "promoted", "rolled_back")
KEY = "mirror"


def interrupted(ports: Ports) -> list[str]:
    """What earlier commands left unfinished, said once: their runs are closed as killed, their whole checkpoints
    stay."""
    if ports.runs is not None:
        ports.runs.unfinished()
    return [str(found) for found in cut_off(ports.checkpoints)]


def waiting(ports: Ports) -> list[str]:
    """Runs of which a tracker was not told everything yet."""
    return sorted({path.parent.name.partition("~")[0] for path in ports.home.glob("spool/*/*/entries.jsonl")})


def behind(ports: Ports) -> bool:
    """Whether the log holds a version or a change of champion that the registry was not told."""
    return bool(ports.events.read(_seen(ports)[1], KINDS))


def mirror(ports: Ports) -> bool:
    """Tell the tracker's registry of every version in the log and of the champion; False where it is away.

    The model is named after the data set of the first version: "rounds-NAME". It is told again only when the log has
    moved on, and it is told everything, so that one that was away, or was changed by somebody else, is right again.
    """
    if ports.runs is None or not behind(ports):
        return True
    (number, _), head = _seen(ports), ports.events.head()
    catalogue = Catalogue.of(ports.events.read())
    runs = {entry.bundle: entry.run for entry in catalogue.bundles}
    versions = [
        {"version": version.version, "bundle": version.bundle, "run": runs.get(version.bundle, "")}
        for version in catalogue.versions
    ]
    first = [entry.data for entry in catalogue.bundles if entry.bundle == versions[0]["bundle"]]
    named = [entry.name for entry in catalogue.datasets if entry.digest in first]
    champion = catalogue.champion
    with suppress(StoreAway):
        ports.runs.mirror("-".join(["rounds", *named[:1]]), versions, champion.version if champion else None)
        # whoever was first has told at least as much
        ports.snapshots.save(KEY, number, str(head).encode())
        return True
    return False


def _seen(ports: Ports) -> tuple[int, int]:
    """The number of the state, and the place in the log up to which the registry was told."""
    number, state = ports.snapshots.load(KEY) or (0, b"0")
    return number, int(state)
