"""What a run keeps: on disk, and in the tracker."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from PIL import Image

import rounds.train.record as module
from rounds.core.errors import StoreAway, UnknownId
from rounds.core.ids import plain
from rounds.core.specs import ImagingSpec, LoopSpec, TrainSpec
from rounds.nets.names import build
from rounds.stores.memory import MemoryRuns
from rounds.train.figures import curve_png, validation_png
from rounds.train.gauges import gauged
from rounds.train.record import Record, read_curve, recorded
from rounds.train.surroundings import code_changes, code_revision, environment

SPEC = TrainSpec(imaging=ImagingSpec(size=28), train=LoopSpec(epochs=3, batch=32, threads=1, progress=False))
GAUGES = ("cpu_percent", "machine_cpu_percent", "rss_mb", "memory_free_mb", "disk_free_mb")


def figures(number: int) -> dict[str, float]:
    return {"loss": 1 / number, "auc": 0.5 + number / 10, "accuracy": 0.5}


@pytest.fixture
def net():
    return build(SPEC.model, channels=1, classes=2, size=28)


def test_a_run_keeps_config_surroundings_curve_figure_weights_and_gauges(make, tmp_path, net, monkeypatch):
    monkeypatch.setattr(module, "code_changes", lambda: b"--- a patch\n")
    dataset, runs = make(), MemoryRuns()
    with recorded(SPEC, dataset, runs, tmp_path / "runs", "abc+") as record:
        for number in (1, 2, 3):
            record.epoch(number, figures(number), net)
    run = runs.kept[record.run]
    assert (run["name"], run["state"]) == ("squares", "FINISHED")
    assert run["params"]["train.epochs"] == "3"
    assert run["tags"].items() >= {"data": dataset.digest, "data_name": "squares", "code": "abc+"}.items()
    assert run["points"]["auc"] == [(1, 0.6), (2, 0.7), (3, 0.8)]
    assert {name for name in run["points"] if name.startswith("system/")} == {f"system/{name}" for name in GAUGES}
    files = run["files"]
    names = ("code.diff", "config.json", "curve.csv", "curve.png", "environment.json", "weights.pt")
    assert sorted(files) == sorted(names)
    assert json.loads(files["config.json"]) == plain(SPEC)
    assert files["code.diff"] == b"--- a patch\n"
    surroundings = json.loads(files["environment.json"])
    assert surroundings["code"] == "abc+"
    assert surroundings["python"] == sys.version.split()[0]
    assert surroundings["packages"]["torch"].startswith("2.")
    assert Image.open(io.BytesIO(files["curve.png"])).size == (968, 396)
    assert read_curve(record.place) == [{"epoch": number, **figures(number)} for number in (1, 2, 3)]


def test_code_that_was_not_changed_and_a_patch_that_is_too_large_leave_no_patch(make, tmp_path, net, monkeypatch):
    monkeypatch.setattr(module, "code_changes", lambda: b"x" * (module.MAX_PATCH + 1))
    for code in ("abc", "abc+", "rounds 0.1.0"):
        with recorded(SPEC, make(), None, tmp_path / "runs", code) as record:
            pass
        assert not (record.place / "code.diff").exists()


def test_a_run_that_was_cut_off_goes_on_under_its_id_behind_its_last_whole_epoch(make, tmp_path, net):
    dataset, runs = make(), MemoryRuns()
    begun: list[Record] = []

    def cut_off() -> None:
        with recorded(SPEC, dataset, runs, tmp_path, "abc") as made:
            begun.append(made)
            made.epoch(1, figures(1), net)
            made.epoch(2, figures(2), net)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    (record,) = begun
    assert runs.kept[record.run]["state"] == "FAILED"
    # killed between the curve and the state that counts it
    with (record.place / "curve.csv").open("a") as file:
        file.write("3,0.0,0.0,0.0\n")
    longer = replace(SPEC, train=replace(SPEC.train, epochs=4))
    with recorded(longer, dataset, runs, tmp_path, "abc", resume=record.run) as again:
        assert (again.run, again.place, again.state.epoch) == (record.run, record.place, 2)
        assert runs.kept[record.run]["state"] == "RUNNING"
        for number in (3, 4):
            again.epoch(number, figures(number), net)
    assert [row["epoch"] for row in read_curve(again.place)] == [1, 2, 3, 4]
    assert runs.kept[record.run]["state"] == "FINISHED"
    assert runs.kept[record.run]["points"]["loss"] == [(number, 1 / number) for number in (1, 2, 3, 4)]
    state = {"run": record.run, "epoch": 4, "epochs": 4, "phase": "done", "data": dataset.digest}
    assert json.loads((again.place / "state.json").read_text()) == state


def test_what_was_never_begun_cannot_go_on(make, tmp_path):
    dataset = make()
    with pytest.raises(UnknownId, match="no run 'run-x'"), recorded(SPEC, dataset, None, tmp_path, "", resume="run-x"):
        pass


def test_the_gauges_are_read_while_it_trains_and_once_at_the_end(tmp_path):
    read: list[tuple[dict[str, float], int]] = []
    with gauged(lambda found, at: read.append((dict(found), at)), tmp_path, every=0.1):
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
    assert len(read) >= 3
    assert all(set(found) == {f"system/{name}" for name in GAUGES} for found, _ in read)
    assert max(found["system/cpu_percent"] for found, _ in read) > 20
    assert max(found["system/machine_cpu_percent"] for found, _ in read) > 5
    mine = psutil.Process().memory_info().rss / 2**20
    assert read[-1][0]["system/rss_mb"] == pytest.approx(mine, rel=0.2)


def test_a_reading_of_the_gauges_costs_less_than_a_percent_of_its_interval(tmp_path):
    from rounds.train import gauges

    process = psutil.Process()
    began = time.process_time()
    for _ in range(100):
        gauges._gauges(process, tmp_path)
    assert (time.process_time() - began) / 100 < 0.01 * gauges.EVERY_S


def test_a_tracker_that_fails_the_gauges_stops_nothing(tmp_path):
    def away(_found, _at):
        raise StoreAway("the tracker is away")

    with gauged(away, tmp_path, every=0.01):
        time.sleep(0.05)


def test_the_patch_is_what_was_changed_since_the_revision_and_names_no_remote(tmp_path, monkeypatch):
    from rounds.train import surroundings

    def git(*words: str) -> None:
        names = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, env={**os.environ, **names})

    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("one = 1\n")
    monkeypatch.setattr(surroundings, "_PLACE", tmp_path / "src")
    assert code_revision().startswith("rounds "), "no repository"
    assert code_changes() == b""
    git("init")
    git("remote", "add", "origin", "https://user:token@example.org/secret.git")
    git("add", ".")
    git("commit", "-m", "first")
    clean = code_revision()
    assert len(clean) == 40
    (tmp_path / "src" / "a.py").write_text("one = 2\n")
    assert code_revision() == clean + "+"
    patch = code_changes().decode()
    assert "-one = 1\n+one = 2\n" in patch
    assert "secret" not in patch + json.dumps(environment())


def test_the_pictures_are_drawn_for_two_classes_and_for_more():
    roc = {"class": "a", "auc": 0.9, "fpr": [0.0, 0.1, 1.0], "tpr": [0.0, 0.9, 1.0]}
    bins = [{"mean": 0.2, "share": 0.1, "share_low": 0.0, "share_high": 0.3}]
    two = {"roc": [roc], "operating": {"fpr": 0.1, "tpr": 0.9}, "reliability": bins}
    more = {"roc": [roc, {**roc, "class": "b", "auc": None}], "operating": None, "reliability": bins}
    drawn = [validation_png(two), validation_png(more), curve_png([{"epoch": 1, **figures(1)}])]
    assert [Image.open(io.BytesIO(png)).format for png in drawn] == ["PNG"] * 3
    assert len(set(drawn)) == 3


def test_without_a_tracker_a_run_has_a_name_of_its_own_and_no_picture(make, tmp_path, net):
    with recorded(SPEC, make(), None, tmp_path / "runs", "abc") as record:
        record.epoch(1, figures(1), net)
    assert record.run.startswith("run-")
    assert sorted(path.name for path in record.place.iterdir()) == [
        "config.json",
        "curve.csv",
        "environment.json",
        "lock",
        "state.json",
        "weights.pt",
    ]
