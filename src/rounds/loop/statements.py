"""What people say of a data set or a model, which no measurement can know: kept as events, for the cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rounds.core.errors import BadRequest, Fault
from rounds.core.ids import rfc3339
from rounds.core.ports import Ports
from rounds.core.records import Event
from rounds.loop import exchange, intake, measuring
from rounds.registry.catalogue import Catalogue

Said = dict[str, dict[str, str] | None]

DATA: Mapping[str, str] = MappingProxyType(
    {
        "source": "Where the films come from, and whom to cite",
        "licence": "The terms under which they may be used",
        "purpose": "What the data set was made for",
        "collected": "When, where and of whom the films were taken, and who consented",
        "labelled": "Who gave the labels, and how",
        "limits": "What it is not fit for",
        "contact": "Whom to ask",
    }
)
MODEL: Mapping[str, str] = MappingProxyType(
    {
        "purpose": "What the model is meant for",
        "users": "Who is meant to use it",
        "out_of_scope": "What it must not be used for",
        "ethics": "Whom it may harm, and what is done about it",
        "limits": "What its makers know it does badly",
        "licence": "The terms under which it may be used",
        "contact": "Whom to ask",
    }
)


def say_of_data(ports: Ports, ref: str, said: Mapping[str, str], who: str = "operator") -> dict[str, Any]:
    """Keep what is said of a data set, and answer with all that stands; without words only answer.

    A later statement takes the place of an earlier one and an empty one takes it back; the log keeps both. Raises
    UnknownId, DamagedData, BadRequest for a question that no card asks.
    """
    dataset = intake.find(ports, ref)
    _append(ports, {"data": dataset.digest}, dict(said), DATA, f"data set {dataset.name}", who)
    return {"data": dataset.digest, "name": dataset.name, "said": of_data(ports.events.read(), dataset.digest)}


def say_of_model(ports: Ports, ref: str, said: Mapping[str, str], who: str = "operator") -> dict[str, Any]:
    """The same of a bundle, which enters the workspace if it lies outside. Raises UnknownId, DamagedBundle,
    BadRequest."""
    bundle = exchange.take_bundle(ports, measuring.open_bundle(ports, ref), who)
    _append(ports, {"bundle": bundle.digest}, dict(said), MODEL, f"bundle {bundle.digest[:12]}", who)
    return {"bundle": bundle.digest, "said": of_model(ports.events.read(), bundle.digest, bundle.parents.bundle)}


def of_data(events: Sequence[Event], digest: str) -> Said:
    """What stands of a data set: said of it, or else of an earlier version of the same name."""
    entries = Catalogue.of(events).datasets
    places = [place for place, entry in enumerate(entries) if entry.digest == digest]
    before = entries[: places[-1]] if places else []
    earlier = [entry.digest for entry in before if entry.name == entries[places[-1]].name]
    return _standing(events, "data", DATA, [*earlier, digest])


def of_model(events: Sequence[Event], digest: str, parent: str | None) -> Said:
    """What stands of a bundle: said of it, else of the bundle that it varies, else of a version before it."""
    versions = [version.bundle for version in Catalogue.of(events).versions]
    earlier = versions[: versions.index(digest)] if digest in versions else versions
    return _standing(events, "bundle", MODEL, [*earlier, *([parent] if parent else []), digest])


def _append(
    ports: Ports, about: dict[str, str], said: dict[str, str], known: Mapping[str, str], what: str, who: str
) -> None:
    unknown = [key for key in said if key not in known]
    if unknown:
        faults = [Fault("no card has this heading", key, ", ".join(known)) for key in unknown]
        raise BadRequest(f"this cannot be said of {what}", faults)
    if said:
        why = f"{', '.join(said)} of {what}"
        ports.events.append("described", who=who, why=why, evidence={**about, "said": said})


def _standing(events: Iterable[Event], key: str, known: Mapping[str, str], nearest_last: Sequence[str]) -> Said:
    found: Said = dict.fromkeys(known)
    told = [event for event in events if event.kind == "described"]
    for digest in dict.fromkeys(nearest_last):
        for event in (event for event in told if event.evidence.get(key) == digest):
            for name, text in event.evidence["said"].items():
                if name in known:
                    stands = {"text": text, "by": event.who, "at": rfc3339(event.at), "of": digest}
                    found[name] = stands if text.strip() else None
    return found
