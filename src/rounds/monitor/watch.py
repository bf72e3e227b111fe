"""The watch over inputs: fold captured films into the drift and class-mix tests and say what was found. Pure.

Promise: P(a drift alarm within the first `horizon` films) <= `alpha`, however often it is looked at, while first films
of subjects are exchangeable with the bundle's reference within the predicted class and, where a band is declared, the
share predicted as the last class lies in it at every film. The state is a function of the captured rows in their total
order: whoever looks, and however often, finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from rounds.core.ids import digest, from_rfc3339, rfc3339
from rounds.core.records import Bundle, Captured, Finding, Moved
from rounds.core.specs import MonitorSpec
from rounds.monitor.memory import RECENT, Memory
from rounds.runtime.bundle import Reference
from rounds.runtime.verdict import decide

NAMED = 5


@dataclass(frozen=True)
class Watched:
    """The watch's memory after a look, and what it says."""

    state: bytes
    findings: tuple[Finding, ...]


def watch(
    rows: Sequence[Captured],
    state: bytes | None,
    *,
    bundle: Bundle,
    reference: Reference,
    spec: MonitorSpec,
    now: datetime,
) -> Watched:
    """Fold in the rows that this bundle answered and that no look has seen, in order of seq, and report.

    `state` is what the last look returned; None, or that of another bundle, begins anew: a new bundle has its own
    reference, counters and budget. One film of each subject is taken (subject and image unseen; the rest is counted);
    of films without a subject one in `keep_one_in`. The drift finding's `since` counts the bundle's films before the
    change. Rows whose scores are not finite numbers, or whose label is no class, are left out and make an `integrity`
    finding. Raises OurFault where the state cannot be read.
    """
    memory = Memory.load(state) if state else Memory.begin(bundle, reference, spec)
    if memory.bundle != bundle.digest:
        memory = Memory.begin(bundle, reference, spec)
    places = {name: i for i, name in enumerate(bundle.classes)}
    for row in sorted(rows, key=lambda row: row.seq):
        if row.bundle == bundle.digest and row.seq > memory.seq:
            _fold(memory, row, places, spec)
    return Watched(memory.dump(), tuple(_findings(memory, bundle, reference, spec, now)))


def _fold(memory: Memory, row: Captured, places: dict[str, int], spec: MonitorSpec) -> None:
    memory.seq = row.seq
    memory.place += 1
    if (
        len(row.scores) != len(memory.detector.names)
        or not all(map(math.isfinite, row.scores))
        or row.label not in places
    ):
        memory.broken_count += 1
        memory.broken = [*memory.broken, row.prediction][:NAMED]
        return
    if not memory.is_new(row):
        memory.skipped += 1
        return
    if row.subject is None:
        memory.unnamed += 1
        if memory.unnamed % spec.keep_one_in:
            memory.thinned += 1
            return
    c = places[row.label]
    memory.detector.update(row.prediction, row.scores, c, memory.place - 1)
    if memory.mix is not None:
        memory.mix.update(c == len(places) - 1, memory.place - 1)
    memory.recent = [*memory.recent[1 - RECENT :], (memory.place - 1, c, list(row.scores))]
    if memory.alarm_at is None and (memory.detector.alarm or (memory.mix is not None and memory.mix.alarm)):
        memory.alarm_at = rfc3339(row.at)


def _findings(
    memory: Memory, bundle: Bundle, reference: Reference, spec: MonitorSpec, now: datetime
) -> Iterator[Finding]:
    detector, mix = memory.detector, memory.mix
    alarm = memory.alarm_at is not None
    marks = [test.alarm_at for test in (detector, mix) if test is not None and test.alarm_at is not None]
    # The test that is nearer to its limit speaks for both.
    tests = [(float(detector.peak.max()), detector.limit), *([(mix.peak, mix.limit)] if mix else [])]
    log_e, limit = max(tests, key=lambda test: test[0] - test[1])
    since = detector.alarm_since if detector.alarm else min(marks, default=None)
    yield Finding(
        id=_name(bundle, "drift", min(marks, default=None)),
        kind="drift",
        alarm=alarm,
        n=memory.place,
        at=from_rfc3339(memory.alarm_at) if memory.alarm_at else now,
        alpha=spec.alpha,
        log_e=log_e,
        limit=limit,
        moved=_moved(memory, bundle, reference, spec, since or 0) if alarm else (),
        since=since,
        controlled=detector.n <= spec.horizon,
        why=_why(memory, spec),
    )
    if memory.broken_count:
        yield Finding(
            id=_name(bundle, "integrity", None),
            kind="integrity",
            alarm=True,
            n=memory.place,
            at=now,
            alpha=0.0,
            log_e=0.0,
            limit=0.0,
            why=f"{memory.broken_count} answers have no whole scores or no known class: {', '.join(memory.broken)}",
        )


def _moved(memory: Memory, bundle: Bundle, reference: Reference, spec: MonitorSpec, since: int) -> tuple[Moved, ...]:
    """What moved, the most telling first: scores that reached the limit, then those with any evidence.

    Sizes are the median, over the last films since the change, of the distance from the reference's median for the
    predicted class, in its robust spreads (1.4826 MAD); for the class mix the distance from the band, as a share.
    """
    detector = memory.detector
    films = [film for film in memory.recent if film[0] >= since] or memory.recent
    predicted, _ = decide(bundle.calibration, reference.logits)
    distances = []
    for _, c, scores in films:
        old = reference.scores[predicted == c] if (predicted == c).any() else reference.scores
        middle = np.median(old, 0)
        spread = 1.4826 * np.median(np.abs(old - middle), 0)
        distances.append((np.asarray(scores) - middle) / np.where(spread > 0, spread, 1.0))
    size = np.median(distances, 0) if distances else np.zeros(len(detector.names))
    order = np.argsort(-detector.peak, kind="stable")
    found = [Moved(detector.names[k], float(size[k])) for k in order if detector.peak[k] >= detector.limit]
    if memory.mix is not None and memory.mix.alarm:
        share = float(np.mean([c == len(bundle.classes) - 1 for _, c, _ in films]))
        found.append(Moved("class_mix", max(share - spec.mix_high, 0.0) + min(share - spec.mix_low, 0.0)))
    likely = [k for k in order if 0.0 < detector.peak[k] < detector.limit]
    return (*found, *(Moved(detector.names[k], float(size[k])) for k in likely))


def _why(memory: Memory, spec: MonitorSpec) -> str:
    parts = [f"{memory.detector.n} first films of subjects, {memory.skipped} repeated ones left out"]
    if memory.unnamed:
        parts.append(f"{memory.unnamed} films came without a subject: the rate assumes that each is of another one")
    if memory.thinned:
        parts.append(f"one in {spec.keep_one_in} of these was kept")
    if memory.detector.n > spec.horizon:
        parts.append(f"the horizon of {spec.horizon} films is used up: the stated rate no longer holds")
    return "; ".join(parts)


def _name(bundle: Bundle, kind: str, first: int | None) -> str:
    """The same name for the same finding, whoever looks."""
    return "f" + digest(f"{bundle.digest}|{kind}|{first}".encode())[:20]
