"""A life of the whole loop as one self-contained page: the outcome, the figures, a chapter a step, and the log."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from rounds.core.ids import from_rfc3339
from rounds.core.specs import GateSpec, MonitorSpec
from rounds.report import pictures
from rounds.report.pages import MISSING, count, percent, render, seconds
from rounds.report.pictures import Served

JPEG = b"\xff\xd8\xff"
CURES = {
    "recalibrate": "recalibrated",
    "recalibrated": "recalibrated",
    "retrain": "retrained",
    "retrained": "retrained",
}


@dataclass(frozen=True)
class Step:
    """One chapter: what happened, the facts that were measured, SVG figures of ours, and films (caption, PNG or JPEG
    bytes)."""

    number: int
    title: str
    seconds: float
    text: str
    facts: tuple[tuple[str, str], ...]
    ok: bool = True
    figures: tuple[str, ...] = ()
    films: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Tile:
    """One main figure: its name, its value, what it is compared with, and whether it is as it should be (None: a bare
    number); `share` draws a bar below it."""

    name: str
    value: str
    note: str = ""
    ok: bool | None = None
    share: float | None = None


@dataclass(frozen=True)
class Film:
    caption: str
    source: str


@dataclass(frozen=True)
class Chapter:
    """A step as the template wants it."""

    step: Step
    paragraphs: tuple[str, ...]
    figures: tuple[Markup, ...]
    films: tuple[Film, ...]


def story_page(
    figures: Mapping[str, Any],
    steps: Sequence[Step],
    *,
    history: Sequence[Mapping[str, Any]],
    source: str,
    citation: str = "",
) -> str:
    """The page of a demo: `figures` has the keys of the contract (figures.json), None where nothing was measured;
    `history` holds the events of the log, as `plain` writes them.

    Step figures are trusted SVG of ours; every other text is escaped.
    """
    spans = served(history)
    return render(
        "story.html.j2",
        ok=bool(figures.get("ok")),
        outcome=outcome(figures, steps),
        tiles=_tiles(figures),
        proofs=_proofs(figures),
        loop=pictures.loop(),
        timeline=pictures.timeline(spans) if len(spans) > 1 else None,
        chapters=[_chapter(step) for step in steps],
        history=history,
        promises=_promises(history),
        source=source,
        citation=citation,
        seconds=figures.get("seconds"),
        peak_mb=figures.get("peak_mb"),
        measured_on=history[0]["at"] if history else None,
    )


def outcome(figures: Mapping[str, Any], steps: Sequence[Step]) -> str:
    """What happened, in one sentence."""
    failed = [step for step in steps if not step.ok]
    if failed:
        names = "; ".join(f"{step.number}, {step.title[:1].lower()}{step.title[1:]}" for step in failed)
        return f"The loop did not close as it should: step {names}."
    if not figures.get("ok"):
        return "The loop did not close as it should."
    shift, cure, swap = (_part(figures, key) for key in ("shift", "cure", "swap"))
    said = []
    if _all(shift, "accuracy_before", "accuracy_after"):
        before, after = percent(shift["accuracy_before"]), percent(shift["accuracy_after"])
        said.append(f"when the scanner changed, accuracy fell from {before} to {after}")
    if _all(shift, "images_to_alarm"):
        said.append(f"the watch raised the alarm after {count(shift['images_to_alarm'])} images")
    if _all(cure, "kind", "accuracy_after"):
        word = CURES.get(str(cure["kind"]), str(cure["kind"]))
        said.append(f"the model was {word} and accuracy rose to {percent(cure['accuracy_after'])}")
    if swap.get("failed") == 0 and swap.get("requests"):
        said.append("no request failed while models were swapped")
    return f"The loop closed: {_listed(said)}." if said else "The loop closed."


def served(history: Sequence[Mapping[str, Any]]) -> list[Served]:
    """Which version answered when, in seconds since the log began, from the promotions and rollbacks in the log."""
    changes = [event for event in history if event.get("kind") in ("promoted", "rolled_back")]
    if not changes:
        return []
    begun = _when(history[0]["at"])
    starts = [((_when(event["at"]) - begun).total_seconds(), event) for event in changes]
    ends: list[float | None] = [at for at, _ in starts[1:]] + [None]
    return [
        Served(str(_part(event, "evidence").get("version", "?")), at, end, _note(event))
        for (at, event), end in zip(starts, ends, strict=True)
    ]


def _tiles(figures: Mapping[str, Any]) -> list[Tile]:
    """The row of main figures, in the order of the story."""
    shift, cure, swap = (_part(figures, key) for key in ("shift", "cure", "swap"))
    clean, planted, better, rollback = (_part(figures, key) for key in ("clean", "planted", "better", "rollback"))
    alarms, moved = clean.get("false_alarms"), _moved(shift.get("moved"))
    change = str(shift.get("kind") or "the scanner changed")
    labels = f"{count(cure['labels'])} labels" if cure.get("labels") else ""
    kind = CURES.get(str(cure.get("kind")), str(cure.get("kind") or ""))
    return [
        _share("accuracy before", shift.get("accuracy_before"), "on clean films, held out"),
        _share("accuracy after the shift", shift.get("accuracy_after"), change),
        _share("accuracy after the cure", cure.get("accuracy_after"), ", ".join(filter(None, [kind, labels]))),
        Tile("images to the alarm", count(shift.get("images_to_alarm")), moved and f"moved: {moved}"),
        Tile("false alarms before", count(alarms), f"in {count(clean.get('n'))} clean images", _is(alarms, 0)),
        Tile("failed requests", count(swap.get("failed")), _of(swap.get("requests")), _is(swap.get("failed"), 0)),
        Tile("rollback", seconds(rollback.get("seconds")), "until every worker answered with the old version"),
        _verdict("planted worse model", planted.get("refused"), ("refused", "accepted"), planted.get("reason")),
        _verdict("really better model", better.get("accepted"), ("accepted", "refused"), better.get("reason")),
    ]


def _proofs(figures: Mapping[str, Any]) -> list[tuple[str, bool | None]]:
    audit = _part(figures, "audit")
    return [
        ("a prediction was traced to its model, data and code", _part(figures, "trace").get("ok")),
        ("the chain of the event log was verified", audit.get("ok")),
        ("a tampered copy of the log was caught at the right entry", audit.get("tamper_found")),
    ]


def _promises(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The error rates in force: those of the last policy event, else the defaults."""
    rules: Mapping[str, Any] = {}
    for event in history:
        if event.get("kind") == "policy":
            rules = _part(_part(event, "evidence"), "rules")
    monitor, gate = MonitorSpec(), GateSpec()
    watch, door = _part(rules, "monitor"), _part(rules, "gate")
    return {
        "alpha": watch.get("alpha", monitor.alpha),
        "horizon": watch.get("horizon", monitor.horizon),
        "alpha_risk": watch.get("alpha_risk", monitor.alpha_risk),
        "risk_horizon": watch.get("risk_horizon", monitor.risk_horizon),
        "tolerance": watch.get("risk_tolerance", monitor.risk_tolerance),
        "alpha_gate": door.get("alpha", gate.alpha),
        "margin": door.get("margin", gate.margin),
    }


def _chapter(step: Step) -> Chapter:
    paragraphs = tuple(part.strip() for part in step.text.split("\n\n") if part.strip())
    drawings = tuple(Markup(drawing) for drawing in step.figures)  # noqa: S704  drawn by this room, escaped there
    return Chapter(step, paragraphs, drawings, tuple(Film(caption, _inline(data)) for caption, data in step.films))


def _inline(data: bytes) -> str:
    kind = "jpeg" if data.startswith(JPEG) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _share(name: str, value: float | None, note: str) -> Tile:
    return Tile(name, percent(value), note, share=value)


def _verdict(name: str, value: bool | None, words: tuple[str, str], reason: object) -> Tile:
    shown = MISSING if value is None else words[0] if value else words[1]
    return Tile(name, shown, str(reason or ""), value)


def _of(requests: float | None) -> str:
    return f"of {count(requests)} during swaps" if requests else ""


def _is(value: object, wanted: object) -> bool | None:
    return None if value is None else value == wanted


def _moved(moved: object) -> str:
    """What moved, as names, whether it came as names or as {what, size}."""
    if isinstance(moved, str):
        return moved
    items = moved if isinstance(moved, list | tuple) else ()
    return ", ".join(str(item["what"] if isinstance(item, Mapping) else item) for item in items)


def _part(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = mapping.get(key)
    return found if isinstance(found, Mapping) else {}


def _all(mapping: Mapping[str, Any], *keys: str) -> bool:
    return all(mapping.get(key) is not None for key in keys)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def _when(at: object) -> datetime:
    return at if isinstance(at, datetime) else from_rfc3339(str(at))


def _note(event: Mapping[str, Any]) -> str:
    if event["kind"] == "rolled_back":
        return "rolled back"
    return "provisional" if _part(event, "evidence").get("provisional") else ""
