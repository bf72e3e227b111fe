"""The contract of the command line: a whole life on ten classes of digits, and the keys of every answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits
from tests.support.captured import Ward
from tests.support.commands import Said, rounds
from tests.support.workspace import opened

from rounds.imaging.fit import encode_png

NAMES = [f"digit-{i}" for i in range(10)]
METRICS = {"auc", "accuracy", "balanced_accuracy", "f1", "brier", "ece", "average_precision"}
PREDICTION = {"id", "path", "class", "probabilities", "set", "refer", "reason", "ood", "version", "bundle", "ms"}
GATED = {"version", "from", "to", "passed", "checks", "seconds"}
ERROR = {"kind", "message", "faults"}
FAULT = {"what", "where", "expected", "got", "next"}


def digits(folder: Path, rows: slice) -> Path:
    """scikit-learn's digits, real handwriting of 8 x 8 pixels, as PNG folders by class."""
    found = load_digits()
    for i in range(*rows.indices(len(found.target))):
        place = folder / NAMES[found.target[i]]
        place.mkdir(parents=True, exist_ok=True)
        image = np.clip(found.images[i] * 16, 0, 255).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        (place / f"{i:04d}.png").write_bytes(encode_png(image))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("life")


@pytest.fixture(scope="module")
def life(place: Path) -> dict[str, Said]:
    """Every command once, in the order of a model's life, with what each answered."""
    home, said = place / "home", dict[str, Said]()

    def step(name: str, *arguments: str | Path) -> dict[str, Any]:
        said[name] = rounds(home, *arguments, "--json")
        assert said[name].code in (0, 4), said[name]
        return said[name].json

    step("prepare", "data", "prepare", digits(place / "digits", slice(0, 1500)), "--name", "digits")
    other = digits(place / "others" / "test", slice(1500, 1797)).parent
    step("prepare others", "data", "prepare", other, "--name", "others")
    step("stats", "data", "stats", "digits")
    recipe = ("experiment=quick", "train.epochs=4", "augment=none", "seed=3", "train.progress=false")
    trained = step("train", "train", "--data", "digits", *recipe)
    step("evaluate", "evaluate", "latest", "--data", "digits")
    step("evaluate val", "evaluate", trained["path"], "--data", "digits", "--split", "val")
    step("evaluate others", "evaluate", trained["bundle"][:12], "--data", "others")
    step("register", "register", "latest")
    step("promote", "promote", "latest")
    step("evaluate champion", "evaluate", "champion", "--data", "others")
    step("export", "export", "latest", "export.alpha=0.2")
    # a margin that so few films cannot show: the gate lacks power, and refuses
    step("policy", "policy", "gate.margin=0.001", "monitor.audit_share=0.5", "monitor.horizon=500")
    step("refused", "promote", "latest")
    step("overruled", "promote", "latest", "--overrule", "a test of the way back")
    with opened(home) as ports:
        found = load_digits()
        films = np.clip(found.images[:40] * 16, 0, 255).astype(np.uint8)[:, None]
        ward = Ward(ports)
        rows = ward.answer(films, [NAMES[i] for i in found.target[:40]], [f"writer-{i % 4}" for i in range(40)])
    labels = [json.dumps({"prediction": row.prediction, "label": ward.truth[row.prediction]}) for row in rows]
    (place / "labels.jsonl").write_text("\n".join([*labels, '{"prediction": "p_none", "label": "digit-1"}']))
    step("label", "label", place / "labels.jsonl")
    step("trace", "trace", rows[0].prediction)
    step("watch", "watch", "--once")
    step("rollback", "rollback", "--why", "a test")
    step("erase", "erase", "--subject", "writer-1")
    for name in ("models", "history", "audit", "costs"):
        step(name, name)
    return said


def test_preparing_answers_name_digest_classes_splits_and_what_was_refused(life: dict[str, Said]) -> None:
    answer = life["prepare"].json
    keys = {"name", "digest", "classes", "splits", "taken", "refused", "leaks"}
    assert keys <= set(answer)
    assert (answer["name"], answer["classes"], answer["taken"]) == ("digits", NAMES, 1500)
    assert set(answer["splits"]) == {"train", "val", "calibration", "test"}
    assert sum(answer["splits"].values()) == 1500
    assert (answer["refused"], answer["leaks"]) == ([], [])
    assert life["prepare others"].json["splits"] == {"test": 297}
    assert life["stats"].json["digest"] == answer["digest"]


def test_training_packs_by_itself_and_answers_run_bundle_and_validation(life: dict[str, Said], place: Path) -> None:
    answer = life["train"].json
    assert set(answer) == {"run", "bundle", "path", "seed", "seconds", "cpu_seconds", "val"}
    assert set(answer["val"]) == {"auc", "accuracy"}
    assert answer["seed"] == 3
    assert answer["val"]["auc"] > 0.9
    assert Path(answer["path"]) == place / "home" / "bundles" / answer["bundle"]
    assert (Path(answer["path"]) / "SHA256SUMS").is_file()


def test_exporting_the_latest_run_again_answers_another_bundle(life: dict[str, Said]) -> None:
    answer = life["export"].json
    assert set(answer) == {"run", "bundle", "path"}
    assert answer["run"] == life["train"].json["run"]
    assert answer["bundle"] != life["train"].json["bundle"]


@pytest.mark.parametrize(
    ("name", "split", "data"),
    [
        ("evaluate", "test", "prepare"),
        ("evaluate val", "val", "prepare"),
        ("evaluate others", "test", "prepare others"),
        ("evaluate champion", "test", "prepare others"),
    ],
)
def test_measuring_answers_the_same_keys_for_a_bundle_named_in_any_way(
    life: dict[str, Said], name: str, split: str, data: str
) -> None:
    answer = life[name].json
    keys = {"bundle", "data", "split", "n", "classes", "threshold", "metrics", "confusion", "slices"}
    assert set(answer) == keys
    assert set(answer["metrics"]) == METRICS
    assert all(set(metric) == {"value", "low", "high"} for metric in answer["metrics"].values())
    assert (answer["bundle"], answer["data"]) == (life["train"].json["bundle"], life[data].json["digest"])
    assert (answer["split"], answer["threshold"], answer["classes"]) == (split, None, NAMES)
    assert np.sum(answer["confusion"]) == answer["n"] == life[data].json["splits"][split]
    assert "rounds: page at" in life[name].err


def test_a_version_is_registered_and_promoted_through_the_gate(life: dict[str, Said]) -> None:
    assert life["register"].json == {"version": "v1", "bundle": life["train"].json["bundle"]}
    answer = life["promote"].json
    assert set(answer) >= GATED
    assert (answer["version"], answer["from"], answer["to"], answer["passed"]) == ("v1", None, "v1", True)
    assert all({"name", "value", "limit", "passed"} <= set(check) for check in answer["checks"])


def test_a_refusal_ends_with_4_and_bears_the_gates_answer_beside_the_error(life: dict[str, Said]) -> None:
    said = life["refused"]
    assert said.code == 4
    assert set(said.json) >= GATED | {"error"}
    assert said.json["passed"] is False
    assert set(said.json["error"]) == ERROR
    assert said.json["error"]["kind"] == "GateRefused"
    assert all(set(fault) == FAULT for fault in said.json["error"]["faults"])
    failed = [check["name"] for check in said.json["checks"] if not check["passed"]]
    assert [fault["what"] for fault in said.json["error"]["faults"]] == failed
    assert said.err.startswith("rounds: v2 may not serve: ")
    assert (life["overruled"].code, life["overruled"].json["to"]) == (0, "v2")


def test_the_way_back_answers_what_promotion_answers(life: dict[str, Said]) -> None:
    answer = life["rollback"].json
    assert set(answer) == GATED
    assert (answer["version"], answer["from"], answer["to"], answer["passed"]) == ("v1", "v2", "v1", True)


def test_the_rules_in_force_are_answered_group_by_group(life: dict[str, Said]) -> None:
    answer = life["policy"].json
    assert set(answer) == {"gate", "monitor", "policy", "serve", "capture"}
    assert (answer["monitor"]["audit_share"], answer["monitor"]["horizon"]) == (0.5, 500)


def test_labels_are_taken_or_refused_by_row(life: dict[str, Said]) -> None:
    answer = life["label"].json
    assert answer["accepted"] == 40
    assert answer["refused"] == [{"row": 40, "reason": "unknown prediction 'p_none'"}]


def test_an_answer_is_traced_to_its_bundle_run_data_code_and_image(life: dict[str, Said]) -> None:
    answer = life["trace"].json
    assert {"prediction", "bundle", "run", "data", "code", "image"} <= set(answer)
    assert answer["bundle"] == life["export"].json["bundle"]
    assert answer["run"] == life["train"].json["run"]
    assert answer["data"] == life["prepare"].json["digest"]


def test_one_look_answers_decision_findings_and_champions(life: dict[str, Said]) -> None:
    answer = life["watch"].json
    assert {"decision", "why", "findings", "champion_before", "champion_after"} <= set(answer)
    assert (answer["decision"], answer["champion_before"], answer["champion_after"]) == ("hold", "v2", "v2")
    finding = {"id", "kind", "alarm", "n", "at", "alpha", "log_e", "moved", "harm"}
    assert answer["findings"]
    assert all(finding <= set(found) for found in answer["findings"])
    assert {found["n"] for found in answer["findings"] if found["kind"] == "drift"} == {40}


def test_a_subject_is_forgotten(life: dict[str, Said]) -> None:
    answer = life["erase"].json
    assert set(answer) == {"subject", "predictions", "images"}
    assert (answer["predictions"], answer["images"]) == (10, 10)
    assert "writer-1" not in life["history"].out


def test_models_history_audit_and_costs_tell_what_was_done(life: dict[str, Said]) -> None:
    models = life["models"].json
    assert set(models) == {"champion", "versions", "staged"}
    assert models["champion"] == "v1"
    assert all({"version", "bundle", "since", "until"} <= set(version) for version in models["versions"])
    events = life["history"].json["events"]
    assert all(set(event) == {"seq", "id", "at", "kind", "who", "why", "evidence", "prev", "hash"} for event in events)
    assert all(event["at"].endswith("Z") for event in events)
    assert life["audit"].json == {"entries": len(events), "ok": True, "first_broken": None}
    costs = life["costs"].json
    assert {"prepare", "train", "export", "evaluate"} <= set(costs["kinds"])
    assert set(costs["total"]) == {"seconds", "cpu_seconds"}


def test_predictions_go_to_the_screen_or_to_a_file_of_each_kind(life: dict[str, Said], place: Path) -> None:
    films, home = place / "others" / "test" / "digit-7", place / "home"
    broken = place / "broken.png"
    broken.write_bytes(b"no image")
    said = rounds(home, "predict", films, broken, "--out", place / "out.jsonl", "--json")
    answer = said.json
    assert said.code == 0
    assert set(answer) == {"bundle", "predictions", "refused"}
    assert [row["path"] for row in answer["refused"]] == [str(broken)]
    assert all(set(prediction) == PREDICTION for prediction in answer["predictions"])
    assert [p["path"] for p in answer["predictions"]] == [str(path) for path in sorted(films.iterdir())]
    assert {p["bundle"] for p in answer["predictions"]} == {answer["bundle"]} == {life["train"].json["bundle"]}
    lines = (place / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == answer["predictions"]
    for ending in ("csv", "parquet"):
        said = rounds(home, "predict", films, "--bundle", "v1", "--out", place / f"out.{ending}")
        assert said.code == 0
        assert f"predictions in {place / f'out.{ending}'}" in said.err
    with (place / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(place / "out.parquet").to_pylist()
    assert len(rows) == len(table) == len(answer["predictions"])
    assert {row["class"] for row in rows} == {row["class"] for row in table}
    assert {f"p_{name}" for name in NAMES} <= set(rows[0])


@pytest.mark.parametrize(
    "command", ["models", "history", "audit", "costs", "policy", "watch --once", "data stats digits"]
)
def test_without_json_people_read_lines(life: dict[str, Said], place: Path, command: str) -> None:
    said = rounds(place / "home", *command.split())
    assert (said.code, said.err) == (0, "")
    assert said.out.strip()
    assert not said.out.startswith("{")


def test_without_json_a_measurement_and_predictions_are_tables(life: dict[str, Said], place: Path) -> None:
    measured = rounds(place / "home", "evaluate", "champion", "--data", "others", "--out", place / "page.html")
    assert measured.code == 0
    assert "95 % interval" in measured.out
    assert measured.err == f"rounds: page at {place / 'page.html'}\n"
    assert (place / "page.html").read_text().startswith("<!doctype html>")
    predicted = rounds(place / "home", "predict", place / "others" / "test" / "digit-3", place / "page.html")
    assert predicted.code == 0
    assert "refer to a person" in predicted.out.splitlines()[0]
    assert predicted.out.splitlines()[-1].startswith(f"refused: {place / 'page.html'}: ")
