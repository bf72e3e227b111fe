"""A version beside the champion: first it looks on, then it answers a share of the films, up to a cap."""

from __future__ import annotations

import time
from typing import Any

from rounds.core.errors import Fault, UnknownId
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.core.records import Captured, Shadowed
from rounds.loop import exchange, gating, measuring
from rounds.loop.turns import turn
from rounds.registry import versions
from rounds.registry.catalogue import CANARY, OFF, SHADOW, Catalogue, Staged


def shadow(ports: Ports, ref: str, *, why: str = "to look on", who: str = "operator") -> dict[str, Any]:
    """Let a bundle see every film that is answered from now on; what it would have said is kept and shown to nobody.

    Raises Refused where there is no champion to stand beside.
    """
    bundle = exchange.take_bundle(ports, measuring.open_bundle(ports, ref), who)
    with turn(ports.home, "gate"):
        version = versions.register(ports.events, bundle, why=f"{bundle.variant} bundle", who=who)
        versions.stage(ports.events, version, SHADOW, why=why, who=who)
    return staged(ports)


def canary(
    ports: Ports,
    ref: str,
    *,
    share: float,
    cap: int,
    data: str | None = None,
    overrule: str | None = None,
    who: str = "operator",
) -> dict[str, Any]:
    """Ask the gate, and where the bundle passes let it answer a `share` of the films, `cap` at most.

    The champion looks on where it answers, and it looks on where the champion does. Raises GateRefused where it does
    not pass and nobody overruled that.
    """
    begun, bundle = time.perf_counter(), measuring.open_bundle(ports, ref)
    judged = gating.judge(ports, bundle, data=data, who=who)
    if not judged.report.passed and not overrule:
        raise gating.refusal(judged, time.perf_counter() - begun)
    with turn(ports.home, "gate"):
        versions.stage(
            ports.events,
            judged.version,
            CANARY,
            share=share,
            cap=cap,
            gate=judged.event,
            overruled=overrule,
            why=overrule or f"passed the gate; {share:.0%} of the films, {cap} at most",
            who=who,
        )
    return staged(ports)


def end(ports: Ports, *, why: str, who: str = "operator") -> dict[str, Any]:
    """Take the staged version away. Raises UnknownId where none is staged."""
    with turn(ports.home, "gate"):
        versions.stage(ports.events, _staged(ports).version, OFF, why=why, who=who)
    return staged(ports)


def staged(ports: Ports) -> dict[str, Any]:
    """Which version stands beside the champion, and how the two compare on the films that both have seen."""
    found = Catalogue.of(ports.events.read())
    if found.staged is None:
        return {"champion": found.champion.version if found.champion else None, "staged": None}
    about = {
        "stage": found.staged.stage,
        "share": found.staged.share,
        "cap": found.staged.cap,
        "since": plain(found.staged.version.at),
    }
    return {
        "champion": found.champion.version if found.champion else None,
        "staged": {"version": found.staged.version.version, "bundle": found.staged.version.bundle, **about},
        **compare(ports, found, found.staged),
    }


def compare(ports: Ports, catalogue: Catalogue, beside: Staged) -> dict[str, Any]:
    """On films that both versions have seen since: how many, how many the staged one answered, the share of equal
    classes, the mean difference of the last class's probability (staged less champion), and mean milliseconds."""
    assert catalogue.champion is not None
    pairs = [
        *_pairs(ports, answered=catalogue.champion.bundle, looked=beside.version.bundle, since=beside),
        *(
            (b, a)
            for a, b in _pairs(ports, answered=beside.version.bundle, looked=catalogue.champion.bundle, since=beside)
        ),
    ]
    n = len(pairs)
    exposed = sum(isinstance(second, Captured) for _, second in pairs)
    if not n:
        return {"n": 0, "answered": 0, "agreement": None, "difference": None}
    agreement = sum(first.label == second.label for first, second in pairs) / n
    difference = sum(second.probabilities[-1] - first.probabilities[-1] for first, second in pairs) / n
    return {"n": n, "answered": exposed, "agreement": agreement, "difference": difference}


Seen = Captured | Shadowed


def _pairs(ports: Ports, *, answered: str, looked: str, since: Staged) -> list[tuple[Seen, Seen]]:
    """Films that one bundle answered and the other looked at, since the stage began."""
    rows, seq = dict[str, Captured](), 0
    while page := ports.captures.since(seq, bundle=answered):
        rows |= {row.prediction: row for row in page if row.at >= since.version.at}
        seq = page[-1].seq
    pairs, seq = list[tuple[Seen, Seen]](), 0
    while shadows := ports.captures.shadows(bundle=looked, after=seq):
        pairs += [(rows[one.prediction], one) for one in shadows if one.prediction in rows]
        seq = shadows[-1].seq
    return pairs


def _staged(ports: Ports) -> Staged:
    found = Catalogue.of(ports.events.read()).staged
    if found is None:
        fault = Fault("no version stands beside the champion", next="rounds shadow BUNDLE")
        raise UnknownId("nothing is staged", [fault])
    return found
