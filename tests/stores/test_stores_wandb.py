"""Weights & Biases for real and offline: what it wrote is read back from its own files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.tracking import free_port

from rounds.core.errors import BadOverride, WorldFault
from rounds.core.specs import TrackingSpec
from rounds.stores.wandb import WandbRuns
from rounds.wiring.settings import Settings
from rounds.wiring.training import open_ports

pytestmark = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="pip install 'rounds[wandb]'")

# In a process of its own, as a training has one: what W&B leaves behind in it ends with it.
PROGRAM = """
import sys
from pathlib import Path
from rounds.core.specs import TrackingSpec
from rounds.stores.wandb import WandbRuns
folder = Path(sys.argv[1])
runs = WandbRuns(TrackingSpec("wandb", project="lungs", mode=sys.argv[2]), folder, lambda text: print("told:", text))
run = runs.start("films", {"train.lr": 0.1, "augment.flip": True}, {"data": "abc"}, "run-1")
for step in (1, 2):
    runs.log(run, {"auc": 0.5 + step / 10, "loss": 1 / step}, step)
runs.log(run, {"system/rss_mb": 3.0}, 5)
(folder / "plots").mkdir()
(folder / "plots" / "a.txt").write_text("a")
runs.finish(run, ok=True)
runs.keep(run, folder / "plots", "deep/er")
runs.log(run, {"val/auc": 0.9}, 2)
runs.start("another", {}, {}, "run-2")
runs.log("run-2", {"auc": 0.1}, 1)
runs.finish("run-2", ok=False)
runs.close()
"""


def entered(place: Path) -> dict[str, Any]:
    """One run as W&B's own file of it says: config, rows of the history, summary, exit code, and its files."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(next(place.glob("*.wandb"))))
    found: dict[str, Any] = {"history": [], "summary": {}, "exit": None}
    while (data := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            found["id"], found["name"], found["project"] = (
                record.run.run_id,
                record.run.display_name,
                record.run.project,
            )
            found["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            found["remote"] = record.run.git.remote_url
        elif record.WhichOneof("record_type") == "history":
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found["history"].append({key: value for key, value in row.items() if not key.startswith("_")})
        elif record.WhichOneof("record_type") == "summary":
            items = record.summary.update
            found["summary"] |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
        elif record.WhichOneof("record_type") == "exit":
            found["exit"] = record.exit.exit_code
    files = place / "files"
    found["files"] = {str(f.relative_to(files)): f.read_bytes() for f in files.rglob("*") if f.is_file()}
    return found


def written(folder: Path, mode: str = "offline", **environment: str) -> tuple[str, str]:
    """What the program above printed."""
    import os

    mine = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    mine |= {"HOME": str(folder / "user"), **environment}
    command = [sys.executable, "-c", PROGRAM, str(folder), mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=mine, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_an_offline_run_holds_its_config_history_summary_and_files(tmp_path):
    assert written(tmp_path) == ("", ""), "nothing on the console"
    first, second = sorted(tmp_path.glob("wandb/offline-run-*"), key=lambda place: place.name[-1])
    run = entered(first)
    assert (run["id"], run["name"], run["project"], run["exit"]) == ("run-1", "films", "lungs", 0)
    assert {"train.lr": 0.1, "augment.flip": True, "data": "abc"}.items() <= run["config"].items()
    assert run["history"] == [
        {"auc": 0.6, "loss": 1, "epoch": 1},
        {"auc": 0.7, "loss": 0.5, "epoch": 2},
        {"system/rss_mb": 3, "system/seconds": 5},
        {"val/auc": 0.9, "epoch": 2},
    ]
    assert {"auc": 0.7, "val/auc": 0.9, "system/rss_mb": 3}.items() <= run["summary"].items()
    assert run["files"]["deep/er/plots/a.txt"] == b"a"
    assert run["remote"] == ""
    assert (entered(second)["id"], entered(second)["exit"]) == ("run-2", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plots", "wandb"], "nothing elsewhere"


def test_without_a_key_the_run_goes_offline_and_says_how_to_hand_it_over(tmp_path):
    out, err = written(tmp_path, "online", WANDB_BASE_URL=f"http://127.0.0.1:{free_port()}")
    assert err == ""
    assert out.count("told:") == 1
    assert "told: W&B is away: No API key configured" in out
    assert f"wandb sync {tmp_path}/wandb/offline-run-" in out
    assert len(list(tmp_path.glob("wandb/offline-run-*-run-[12]/*.wandb"))) == 2


def test_without_its_package_it_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(WorldFault, match=r"tracking by W&B needs its package\n .*pip install 'rounds\[wandb\]'"):
        WandbRuns(TrackingSpec("wandb"), tmp_path, print)


def test_an_unknown_tracker_and_mode_are_named_both(home):
    with (
        pytest.raises(BadOverride, match="2 of the settings cannot be used") as found,
        open_ports(Settings(), TrackingSpec("mlfow", mode="loud")),
    ):
        pass
    assert [fault.where for fault in found.value.faults] == ["tracking.name", "tracking.mode"]
    assert "mlflow or wandb or both or none" in str(found.value)
