"""The nine chapters of the story, in the order of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rounds.core.errors import GateRefused
from rounds.core.records import Act, Decision
from rounds.core.specs import DataSpec, GateSpec, MonitorSpec, PolicySpec
from rounds.faces.cli.demo import recipes, tampering, world
from rounds.faces.cli.demo.stage import CHUNK, Stage, accuracy
from rounds.faces.cli.demo.traffic import Answer, wait_until
from rounds.imaging.packed import Film, Films
from rounds.loop import build, conduct, curing, gating, measuring, ruling, tracing
from rounds.loop.ruling import Rules
from rounds.report.figures import evidence_chart

PHANTOMS = 9000
FOLLOW_S = 10.0
PUMPED = 40
T = TypeVar("T")


def prepare(stage: Stage) -> None:
    """Take the source in, hold a stream back, and put the demo's rules in force."""
    spec = DataSpec(stage.source, "pool", recipes.subject_of(stage.source), 0.07, 0.12, 0.18, seed=stage.seed)
    stage.world = made = world.make(stage.ports, spec)
    ruling.change(stage.ports, _rules(), who="demo", why="short horizons and quick labels, for a story of minutes")
    stage.figures["source"], stage.citation = stage.source, recipes.citation(stage.source)
    stage.tell(
        "The source was decoded, checked for copies across splits, and split by subject; a stream was held back.",
        films_taken=made.prepared.taken,
        refused=len(made.prepared.refused),
        classes=", ".join(made.base.classes),
        splits=", ".join(f"{name} {n}" for name, n in made.base.splits.items()),
        held_back_for_the_stream=len(made.stream),
    )
    for note in made.base.notes:
        stage.tell(f"{note}.")


def train(stage: Stage) -> None:
    """Train the first model with the recipe that fits the source, and pack it."""
    assert stage.world is not None
    spec, export_spec = recipes.recipe(stage.world.base, stage.seed)
    made = build.train(stage.ports, spec, export_spec)
    stage.bundle = measuring.open_bundle(stage.ports, made["bundle"])
    stage.tell(
        "Lightning trained the small network; MLflow holds its curves; the bundle was packed and compared with torch.",
        training_seconds=made["seconds"],
        validation_AUC=made["val"]["auc"],
        bundle=made["bundle"][:12],
    )


def first_champion(stage: Stage) -> None:
    """Measure on the sealed test split and pass the absolute floors."""
    assert stage.bundle is not None
    assert stage.world is not None
    bundle, report, _ = measuring.evaluate(stage.ports, stage.bundle.digest, stage.world.base.digest)
    done = gating.promote(stage.ports, bundle.digest, who="demo")
    for name in ("auc", "accuracy"):
        metric = report.metrics[name]
        stage.tell(**{f"test_{name}": f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"})
    stage.tell(
        f"The first champion must pass absolute floors: {', '.join(check['name'] for check in done['checks'])}.",
        champion=done["to"],
    )


def clean_traffic(stage: Stage) -> None:
    """Send held-out films from the same scanner; the watch looks after every chunk and should stay silent."""
    assert stage.world is not None
    wanted, alarms = stage.world.changes_at, 0
    answers: list[Answer] = []
    while len(answers) < wanted:
        answers += stage.stream(min(CHUNK * 5, wanted - len(answers)))
        alarms = sum(f.alarm for f in stage.look().findings)
    stage.figures["clean"] = {"n": len(answers), "false_alarms": alarms}
    stage.figures["shift"]["accuracy_before"] = accuracy(answers)
    stage.label_audited()
    stage.must(alarms == 0, f"{alarms} alarms on clean traffic")
    stage.tell(
        "Films that nobody has seen came over HTTP; the watch looked again and again.",
        predictions=len(answers),
        false_alarms=alarms,
        accuracy=accuracy(answers),
    )


def shifted_traffic(stage: Stage) -> None:
    """Change the scanner mildly and count the films until the alarm."""
    assert stage.world is not None
    assert stage.bundle is not None
    films = Films(stage.world.base.path)
    val = [films.film(int(i)) for i in films.rows("val").index[:600]]
    stage.shift = world.choose_shift(stage.bundle, val)
    before, alarmed = stage.place, False
    answers: list[Answer] = []
    while not alarmed and stage.place < stage.world.fresh_from:
        answers += stage.stream(min(CHUNK, stage.world.fresh_from - stage.place), stage.shift)
        observed = stage.look()
        alarmed = any(f.kind == "drift" and f.alarm for f in observed.findings)
    drift = next(f for f in observed.findings if f.kind == "drift")
    moved = [item.what for item in drift.moved]
    stage.figures["shift"] |= {
        "images_to_alarm": len(answers) if alarmed else None,
        "moved": moved,
        "kind": str(stage.shift),
    }
    stage.figures["shift"] |= {"evidence": stage.evidence, "limit": drift.limit, "began": stage.changed_at}
    stage.figures["shift"]["accuracy_after"] = accuracy(answers)
    stage.must(alarmed, "no alarm")
    asked = conduct.watch_once(stage.ports)
    stage.now.films += _pair(next(iter(stage.world.films(before, before + 1))), stage.shift)
    stage.now.figures.append(
        evidence_chart(stage.evidence, drift.limit, change_at=stage.changed_at, alarm_at=stage.place)
    )
    stage.tell(
        f"The change: {stage.shift}, which costs {stage.shift.drop:.3f} of accuracy on validation films.",
        images_to_alarm=len(answers) if alarmed else "no alarm",
        what_moved=", ".join(moved),
        the_policy_says=f"{asked['decision'].value}: {asked['why']}",
    )


def cure(stage: Stage) -> None:
    """Label what the audit drew, learn whether the change harms, and let the policy cure it under traffic."""
    assert stage.world is not None
    shifted: list[Answer] = []
    done: dict[str, Any] = {"decision": Act.HOLD, "why": "", "findings": []}
    while done["decision"] not in (Act.RECALIBRATE, Act.REFUSE) and stage.place < stage.world.fresh_from:
        shifted += stage.stream(min(CHUNK * 5, stage.world.fresh_from - stage.place), stage.shift)
        stage.label_audited()
        done = _under_traffic(stage, lambda: conduct.watch_once(stage.ports))
    if done["decision"] in (Act.HOLD, Act.ASK_LABELS):
        done = _under_traffic(stage, lambda: _person_decides(stage))
    kind = "recalibrate" if done["decision"] is Act.RECALIBRATE else None
    stage.figures["shift"]["accuracy_after"] = accuracy(shifted)
    labels = len(stage.shifted & stage.ports.captures.labels().keys())
    stage.figures["cure"] |= {"kind": kind, "labels": labels, "accuracy_before": accuracy(shifted)}
    harm = next((f["harm"] for f in done["findings"] if f["kind"] == "decay"), "unknown")
    stage.tell(
        "The audit had drawn, before outcome and alarm, which films a person labels.",
        accuracy_under_the_shift=accuracy(shifted),
        audited_labels=labels,
        harm=harm,
        the_policy_says=f"{Act(done['decision']).value}: {done['why']}",
    )


def candidates(stage: Stage) -> None:
    """Freeze a worse and a better candidate, let fresh shifted films come, and ask the gate about both."""
    assert stage.world is not None
    assert stage.bundle is not None
    planted_data = world.flipped(stage.ports, stage.world, stage.seed)
    planted = build.train(stage.ports, *recipes.recipe(planted_data, stage.seed))
    better_data = recipes.learned(stage)
    better = build.train(stage.ports, *recipes.recipe(better_data, stage.seed, longer=True))
    stage.place = stage.world.fresh_from
    fresh = stage.stream(stage.left * 6 // 7, stage.shift)
    stage.label_audited()
    stage.figures["cure"]["accuracy_after"] = accuracy(fresh)
    lower = recipes.test_auc(stage, stage.bundle.digest) - recipes.test_auc(stage, planted["bundle"])
    refused, why = _refused(stage, planted["bundle"])
    stage.figures["planted"] = {"refused": refused, "reason": why, "auc_lower_by": lower}
    accepted, reason = _under_traffic(stage, lambda: _accepted(stage, better["bundle"]))
    stage.figures["better"] = {"accepted": accepted, "reason": reason}
    last = stage.stream(stage.left, stage.shift)
    if accepted and stage.figures["cure"]["kind"] is None:
        stage.figures["cure"] |= {"kind": "retrain", "accuracy_after": accuracy(last)}
    stage.must(refused, "the planted worse candidate was accepted")
    stage.must(accepted, f"the better candidate was refused ({reason})")
    stage.must(stage.figures["swap"]["failed"] == 0, "requests failed while models were swapped")
    stage.tell(
        f"Both were frozen before {len(fresh)} fresh films came, and judged on those of them that the audit drew.",
        accuracy_of_the_champion_on_the_fresh_films=accuracy(fresh),
        planted=f"15 % of its training labels were wrong; test AUC lower by {lower:.3f}; refused: {why}",
        better=f"trained on all that was labelled so far; {'accepted' if accepted else 'refused'}: {reason}",
        accuracy_under_the_shift_from_now_on=accuracy(last),
        requests_during_swaps=stage.figures["swap"]["requests"],
        failed=stage.figures["swap"]["failed"],
    )


def roll_back(stage: Stage) -> None:
    """Go back one version, and time it until the server answers with it."""
    assert stage.world is not None
    assert stage.ward is not None
    ward, film = stage.ward, next(iter(stage.world.films(0, 1)))
    with _pumping(stage):
        begun = time.perf_counter()
        done = gating.roll_back(stage.ports, why="the story takes the promotion back", who="demo")
        wait_until(lambda: ward.version(film) == done["to"], FOLLOW_S)
        seconds = time.perf_counter() - begun
    stage.figures["rollback"] = {"seconds": seconds}
    stage.must(seconds <= 1.0, f"the rollback took {seconds:.2f} s")
    stage.tell("", rolled_back=f"{done['from']} to {done['to']}", seconds_until_every_worker_answered_so=seconds)


def trace_and_audit(stage: Stage) -> None:
    """Follow the first answer to its origins, verify the log, and find a tampering in a copy of it."""
    assert stage.first_answer is not None
    traced = tracing.trace(stage.ports, stage.first_answer.id)
    whole = all(traced[key] for key in ("bundle", "run", "data", "code", "image"))
    audit = tracing.audit(stage.ports)
    found = tampering.found(stage.ports)
    stage.figures["trace"], stage.figures["audit"] = {"ok": whole}, {"ok": audit["ok"], "tamper_found": found}
    stage.must(whole and audit["ok"] and found, "the trace or the audit is not whole")
    stage.tell(
        "The first answer of the day leads back to its images and its code.",
        **{key: str(traced[key])[:24] for key in ("prediction", "version", "bundle", "run", "data", "code", "image")},
        log=f"{audit['entries']} entries, chain {'whole' if audit['ok'] else 'broken'}",
        tampered_copy="caught at the right entry" if found else "not caught",
    )


def _rules() -> Rules:
    monitor = MonitorSpec(audit_share=0.8, risk_horizon=2000, risk_tolerance=0.02, maturity_s=86_400.0)
    return Rules(GateSpec(), monitor, PolicySpec(cooldown_s=0.0, labels_to_recalibrate=80, labels_to_prove=80))


def _pair(film: Film, shift: world.Shift) -> list[tuple[str, bytes]]:
    return [("the scanner as it was", film.data), (f"the scanner with {shift}", shift(film).data)]


@contextmanager
def _pumping(stage: Stage) -> Iterator[None]:
    """Requests go on for the length of the block; their count and their failures go into the figures."""
    assert stage.world is not None
    assert stage.ward is not None
    shift = stage.shift
    with stage.ward.pump(list(stage.world.films(max(0, stage.place - PUMPED), stage.place, shift))) as pumped:
        yield
    stage.remember(pumped.answers)
    stage.figures["swap"]["requests"] += pumped.requests
    stage.figures["swap"]["failed"] += pumped.failed


def _under_traffic(stage: Stage, act: Callable[[], T]) -> T:
    """Act while requests go on, and wait until the server answers with the champion."""
    assert stage.ward is not None
    assert stage.world is not None
    ward, film = stage.ward, next(iter(stage.world.films(stage.place - 1, stage.place, stage.shift)))
    with _pumping(stage):
        done = act()
        champion = tracing.models(stage.ports)["champion"]
        wait_until(lambda: ward.version(film) == champion, FOLLOW_S)
    return done


def _person_decides(stage: Stage) -> dict[str, Any]:
    """The stream was too short for a proof of harm: a person asks for the cheapest cure, and the log says that it was
    one."""
    observed = stage.look()
    rows = curing.audited_firsts(observed.changed, observed.labels)
    policy = ruling.in_force(stage.ports).policy
    findings = [finding.public() for finding in observed.findings]
    if len(rows) < policy.labels_to_recalibrate + policy.labels_to_prove:
        return {
            "decision": Act.HOLD,
            "why": f"{len(rows)} audited labels are too few for any cure",
            "findings": findings,
        }
    asked = Decision(Act.RECALIBRATE, "a person asked for it: harm is not proven with the labels at hand")
    done = curing.recalibrate(stage.ports, observed.bundle, observed.reference, rows, observed.labels, asked)
    return {"decision": done.act, "why": done.why, "findings": findings}


def _refused(stage: Stage, bundle: str) -> tuple[bool, str]:
    try:
        gating.promote(stage.ports, bundle, who="demo")
    except GateRefused as error:
        return True, "; ".join(f"{fault.what}: {fault.next}" for fault in error.faults)
    return False, "it passed every check"


def _accepted(stage: Stage, bundle: str) -> tuple[bool, str]:
    refused, why = _refused(stage, bundle)
    return not refused, why
