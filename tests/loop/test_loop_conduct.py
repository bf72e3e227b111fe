"""The watch over a deployment, from the first clean film to promotion and rollback, without HTTP and without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.bundles import tiny_model
from tests.support.captured import RULES, Ward, darker, dataset_in, kinds, packed, same, striped
from tests.support.workspace import opened

from rounds.core.errors import Fault, WorldFault
from rounds.core.ports import Ports
from rounds.core.records import Act
from rounds.core.specs import PolicySpec
from rounds.loop import conduct, gating, intake, measuring, ruling
from rounds.loop.turns import turn
from rounds.registry.catalogue import Catalogue
from rounds.runtime import bundle as bundles

LOOK = """
import sys, json
from tests.support.workspace import opened
from rounds.loop import conduct
from pathlib import Path
with opened(Path(sys.argv[1])) as ports:
    sys.stdin.readline()
    found = conduct.observe(ports)
print(json.dumps([{k: v for k, v in f.public().items() if k != "at"} for f in found.findings]))
"""


def better(ports: Ports) -> Callable[[str, Sequence[str]], str]:
    def retrain(data: str, overrides: Sequence[str]) -> str:
        assert overrides == ()
        return packed(ports, intake.find(ports, data), model=tiny_model(noise=0.0), seed=5).digest

    return retrain


def until(ward: Ward, act: Act, *, films: int, looks: int = 12, retrain: Any = None, scanner: Any = same) -> Any:
    """Send, label and look until the policy does this; its answer and every act on the way."""
    acts = []
    for _ in range(looks):
        ward.send(films, scanner)
        ward.label_audited()
        done = conduct.watch_once(ward.ports, retrain=retrain)
        acts.append(done["decision"])
        if done["decision"] is act:
            return done, acts
    raise AssertionError(acts)


def findings(ports: Ports) -> dict[str, Any]:
    observed = conduct.observe(ports)
    assert observed is not None
    return {finding.kind: finding for finding in observed.findings}


def test_without_a_champion_the_watch_holds(home: Path) -> None:
    with opened(home) as ports:
        assert conduct.observe(ports) is None
        assert conduct.watch_once(ports) == {
            "decision": Act.HOLD,
            "why": "no champion serves yet",
            "findings": [],
            "champion_before": None,
            "champion_after": None,
            "evidence": {},
        }


def test_a_clean_stream_raises_no_alarm_and_the_policy_holds(ward: Ward) -> None:
    for _ in range(4):
        ward.send(150)
        ward.label_audited()
        done = conduct.watch_once(ward.ports)
    assert (done["decision"], done["why"]) == (Act.HOLD, "nothing was found")
    assert (done["champion_before"], done["champion_after"]) == ("v1", "v1")
    assert [(f["kind"], f["alarm"]) for f in done["findings"]] == [
        ("drift", False),
        ("decay", False),
        ("decay_estimated", False),
    ]
    assert kinds(ward.ports, "alarm", "labels_asked") == []
    assert conduct.observe(ward.ports).public()["n"] == 600  # type: ignore[union-attr]


def test_a_shift_alarms_once_and_asks_for_labels_once_however_often_it_is_looked_at(ward: Ward) -> None:
    ward.send(100)
    ward.send(200, darker)
    for _ in range(4):
        done = conduct.watch_once(ward.ports)
        assert done["decision"] is Act.ASK_LABELS
        assert done["why"].endswith("drifted; whether it harms is unknown with 0 audited labels")
    (alarm,) = ward.ports.events.read(kinds=("alarm",))
    assert (alarm.who, alarm.evidence["version"], alarm.evidence["kind"]) == ("watch: drift", "v1", "drift")
    (asked,) = ward.ports.events.read(kinds=("labels_asked",))
    assert asked.evidence["findings"] == [alarm.evidence["finding"]]
    assert asked.evidence["waiting"] == sum(row.audited for row in ward.ports.captures.since(0))


def test_a_look_without_new_films_writes_nothing(ward: Ward) -> None:
    ward.send(50)
    conduct.observe(ward.ports)
    champion = Catalogue.of(ward.ports.events.read()).champion
    assert champion is not None
    key, head = f"watch/{champion.bundle}", ward.ports.events.head()
    number = ward.ports.snapshots.load(key)
    conduct.observe(ward.ports)
    assert (ward.ports.snapshots.load(key), ward.ports.events.head()) == (number, head)


def test_labels_outside_the_audit_change_no_finding_and_no_decision(ward: Ward) -> None:
    rows = ward.send(300)
    before = conduct.watch_once(ward.ports)
    others = [row for row in rows if not row.audited]
    ward.truth.update({row.prediction: "opacity" if row.label == "normal" else "normal" for row in others})
    assert ward.label(others) == len(others) > 80
    after = conduct.watch_once(ward.ports)
    assert after["decision"] is Act.HOLD
    assert [f["log_e"] for f in after["findings"]] == [f["log_e"] for f in before["findings"]]
    assert findings(ward.ports)["decay"].n == 0


def test_audited_harm_leads_to_a_provisional_recalibration_and_a_worse_one_is_rolled_back(ward: Ward) -> None:
    ward.send(100)
    done, acts = until(ward, Act.RECALIBRATE, films=100, scanner=darker)
    assert (done["champion_before"], done["champion_after"]) == ("v1", "v2")
    assert set(acts[:-1]) <= {Act.ASK_LABELS}
    assert {f["kind"]: f["harm"] for f in done["findings"]}["decay"] == "yes"
    champion = Catalogue.of(ward.ports.events.read()).champion
    assert champion is not None
    assert champion.provisional
    cured = measuring.open_bundle(ward.ports, "v2")
    assert (cured.variant, cured.parents.bundle) == ("recalibrated", measuring.open_bundle(ward.ports, "v1").digest)
    reference, audited = bundles.reference(cured), [row for row in ward.ports.captures.since(0) if row.audited]
    assert len(reference) == done["evidence"]["proof"] >= 40
    assert list(reference.images) == [row.image for row in audited][-len(reference) :]
    assert findings(ward.ports)["drift"].n == 0

    done, acts = until(ward, Act.ROLL_BACK, films=100, scanner=same)
    assert "the provisional version does harm: accuracy 0." in done["why"]
    assert (done["champion_before"], done["champion_after"]) == ("v2", "v1")
    assert kinds(ward.ports, "recalibrated", "promoted", "rolled_back") == [
        "promoted",
        "recalibrated",
        "promoted",
        "rolled_back",
    ]


def test_what_no_refit_cures_is_trained_again_and_waits_for_its_fresh_window(fooled: Ward) -> None:
    ports = fooled.ports
    fooled.send(100)
    done, _ = until(fooled, Act.REFUSE, films=80, scanner=striped)
    assert done["why"].startswith("recalibrated, accuracy 0.")
    assert done["champion_after"] == "v1"
    done, acts = until(fooled, Act.RETRAIN, films=80, scanner=striped, retrain=better(ports))
    assert done["why"].startswith("audited labels show harm that recalibration does not cure; ")
    made = done["evidence"]["bundle"]
    assert done["evidence"]["parent"] == measuring.open_bundle(ports, "champion").digest

    waiting = conduct.watch_once(ports, retrain=better(ports))
    assert waiting["decision"] is Act.ASK_LABELS
    assert waiting["why"].startswith("a candidate waits for ")
    done, acts = until(fooled, Act.PROMOTE, films=60, scanner=striped, retrain=better(ports))
    assert Act.RETRAIN not in acts
    assert (done["champion_before"], measuring.open_bundle(ports, done["champion_after"]).digest) == ("v1", made)
    (record,) = [e.evidence for e in ports.events.read(kinds=("gated",)) if e.evidence["bundle"] == made]
    assert {check["name"] for check in record["report"]["checks"]} >= {"non_inferiority", "sealed_ranking"}
    assert Catalogue.of(ports.events.read()).candidates == 2
    assert conduct.watch_once(ports)["decision"] is Act.HOLD


def harmed(fooled: Ward, policy: PolicySpec) -> None:
    """A champion that does harm, whose recalibration was refused."""
    ruling.change(fooled.ports, replace(RULES, policy=policy))
    until(fooled, Act.REFUSE, films=150, scanner=striped)
    fooled.send(100, striped)
    fooled.label_audited()


def test_a_retrain_that_fails_leaves_the_champion_and_costs_its_quiet_time(fooled: Ward) -> None:
    def fails(data: str, overrides: Sequence[str]) -> str:
        raise WorldFault("the model could not be trained again", [Fault("out of memory", data)])

    harmed(fooled, replace(RULES.policy, cooldown_s=3600.0))
    done = conduct.watch_once(fooled.ports, retrain=fails)
    assert done["decision"] is Act.HOLD
    assert done["why"].endswith("recalibration does not cure; the model could not be trained again")
    assert kinds(fooled.ports, "retraining", "retrained", "retrain_failed") == ["retraining", "retrain_failed"]
    done = conduct.watch_once(fooled.ports, retrain=fails)
    assert done["why"] == "harm, but the last retrain is less than 3600 s ago"


def test_where_nothing_can_train_the_policy_says_so(fooled: Ward) -> None:
    harmed(fooled, RULES.policy)
    done = conduct.watch_once(fooled.ports)
    assert (done["decision"], done["why"]) == (
        Act.HOLD,
        "audited labels show harm that recalibration does not cure; nothing here can train",
    )


def test_a_candidate_that_the_gate_may_not_even_judge_is_refused_once(fooled: Ward) -> None:
    ports = fooled.ports
    harmed(fooled, replace(RULES.policy, cooldown_s=3600.0))
    # the last 200 of the same films, which are the frozen test set, as training films
    data = dataset_in(ports, splits={"test": 700, "train": 200})
    done = conduct.watch_once(ports, retrain=lambda _data, _overrides: packed(ports, data, seed=9).digest)
    assert done["decision"] is Act.RETRAIN
    done, _ = until(fooled, Act.REFUSE, films=60, scanner=striped)
    assert "are in the frozen test set, or of its subjects" in done["why"]
    fooled.send(60, striped)
    assert conduct.watch_once(ports)["why"] == "harm, but the last retrain is less than 3600 s ago"


def test_while_one_watch_decides_another_looks_and_holds(ward: Ward) -> None:
    ward.send(100)
    ward.send(200, darker)
    with turn(ward.ports.home, "watch"):
        done = conduct.watch_once(ward.ports)
    assert (done["decision"], done["why"]) == (Act.HOLD, "another watch of this workspace is deciding")
    assert [f["alarm"] for f in done["findings"]] == [True, False, False]
    assert conduct.watch_once(ward.ports)["decision"] is Act.ASK_LABELS


def test_two_processes_that_look_at_once_find_the_same_and_alarm_once(ward: Ward) -> None:
    ward.send(100)
    ward.send(200, darker)
    command = [sys.executable, "-c", LOOK, str(ward.ports.home)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    lookers = [subprocess.Popen(command, **pipes, env=_environment()) for _ in range(2)]
    for looker in lookers:
        looker.stdin.write("go\n")  # type: ignore[union-attr]
        looker.stdin.flush()  # type: ignore[union-attr]
    said = [json.loads(looker.communicate(timeout=60)[0]) for looker in lookers]
    assert said[0] == said[1]
    assert said[0][0]["alarm"]
    here = [{k: v for k, v in f.public().items() if k != "at"} for f in findings(ward.ports).values()]
    assert json.loads(json.dumps(here)) == said[0]
    assert len(kinds(ward.ports, "alarm")) == 1


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}", "OMP_NUM_THREADS": "1"}


def test_a_candidate_waits_for_films_of_subjects_that_its_makers_have_not_seen(ward: Ward) -> None:
    rows = ward.send(60)
    ward.label(rows)
    data = dataset_in(ward.ports, seed=0)
    candidate = packed(ward.ports, data, seed=3)
    entry = Catalogue.of(ward.ports.events.read()).bundle(candidate.digest)
    again = ward.send(40, subjects=[f"train-{i}" for i in range(20)] + [f"new-{i}" for i in range(20)])
    expected = [row.prediction for row in again[20:] if row.audited]
    assert expected
    assert [row.prediction for row in gating.fresh_rows(ward.ports, entry)] == expected
