"""What the log knows: who serves and served, what was decided, and where an answer comes from."""

from __future__ import annotations

from typing import Any

from rounds.capture import journal
from rounds.core.errors import Fault, UnknownId
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.registry import log
from rounds.registry.catalogue import Catalogue
from rounds.runtime.bundle import read


def models(ports: Ports) -> dict[str, Any]:
    """The champion, and every version with the time it served."""
    catalogue = Catalogue.of(ports.events.read())
    champion = catalogue.champion
    staged = catalogue.staged
    beside = (
        {"version": staged.version.version, "bundle": staged.version.bundle, "stage": staged.stage} if staged else None
    )
    shares = {"share": staged.share, "cap": staged.cap, "since": plain(staged.version.at)} if staged else {}
    return {
        "champion": champion.version if champion else None,
        "versions": plain(catalogue.intervals()),
        "staged": beside and beside | shares,
    }


def history(ports: Ports) -> dict[str, Any]:
    """Every event of the log, in order."""
    return {"events": [plain(event) for event in ports.events.read()]}


def audit(ports: Ports) -> dict[str, Any]:
    """The chain recomputed from its first entry."""
    found = log.audit(ports.events.read())
    return {"entries": found.entries, "ok": found.ok, "first_broken": found.first_broken}


def trace(ports: Ports, prediction: str) -> dict[str, Any]:
    """From an answer to its bundle, run, data set, code and image; UnknownId where nothing of that id was captured."""
    journal.settle(ports)
    row = ports.captures.find(prediction)
    if row is None:
        fault = Fault(
            "no such prediction", prediction, "the id of an answer", "none", "ids are in the answers and in the log"
        )
        raise UnknownId(f"no prediction {prediction!r}", [fault])
    catalogue = Catalogue.of(ports.events.read())
    bundle = read(ports.home / catalogue.bundle(row.bundle).path)
    # a bundle that was brought along in a folder may come from data that this workspace never had
    manifest = next((d.path + "/manifest.parquet" for d in catalogue.datasets if d.digest == bundle.parents.data), None)
    stints = [s for s in catalogue.services if s.version.bundle == row.bundle and s.since <= row.at]
    return {
        "prediction": prediction,
        "at": plain(row.at),
        "class": row.label,
        "version": row.version,
        "overruled": stints[-1].overruled if stints else None,
        "bundle": bundle.digest,
        "variant": bundle.variant,
        "parent": bundle.parents.bundle,
        "run": bundle.parents.run,
        "config": bundle.parents.config,
        "data": bundle.parents.data,
        "manifest": str(ports.home / manifest) if manifest else None,
        "code": bundle.parents.code,
        "image": row.image,
        "image_gone": row.gone,
        "label": plain(ports.captures.labels([prediction]).get(prediction)),
    }
