"""The tracker's registry follows the event log, sooner or later."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.bundles import tiny_bundle
from tests.support.tracking import empty_mlflow as empty_mlflow
from tests.support.workspace import opened, promote_bundle

from rounds.core.errors import StoreAway
from rounds.core.ports import Ports
from rounds.core.records import Bundle
from rounds.loop.mirror import behind, mirror, waiting
from rounds.registry import versions
from rounds.stores.memory import MemoryRuns
from rounds.stores.runs import MlflowRuns


class Counting(MemoryRuns):
    """A tracker that counts how often it is told, and may be away."""

    told, away = 0, False

    def mirror(self, model, given, champion):
        self.told += 1
        if self.away:
            raise StoreAway("the experiment tracker is away")
        super().mirror(model, given, champion)


@pytest.fixture
def ports(home: Path) -> Iterator[Ports]:
    with opened(home) as found:
        yield replace(found, runs=Counting())


def made(ports: Ports, seed: int) -> Bundle:
    """A bundle that is in the log, as its data set is, under the name `films`."""
    bundle = tiny_bundle(ports.home / "bundles", bias=seed / 100)
    facts = {"name": "films", "digest": bundle.parents.data, "path": "data/x"}
    ports.events.append("prepared", who="test", why="", evidence=facts)
    facts = {"bundle": bundle.digest, "path": str(bundle.path), "run": f"run-{seed}", "data": bundle.parents.data}
    ports.events.append("packed", who="test", why="", evidence=facts)
    return bundle


def test_versions_and_the_champion_follow_the_log_step_by_step(ports):
    runs = ports.runs
    assert not behind(ports)
    assert mirror(ports)
    first, second = made(ports, 0), made(ports, 1)
    assert first.digest != second.digest
    assert (behind(ports), runs.told, runs.models) == (False, 0, {}), "films alone are nothing for the registry"
    versions.register(ports.events, first, why="a test", who="test")
    v1 = {"version": "v1", "bundle": first.digest, "run": "run-0"}
    v2 = {"version": "v2", "bundle": second.digest, "run": "run-1"}
    for step, (act, known, champion) in enumerate(
        (
            (lambda: None, (v1,), None),
            (lambda: promote_bundle(ports.home, first), (v1,), "v1"),
            (lambda: promote_bundle(ports.home, second), (v1, v2), "v2"),
            (lambda: versions.roll_back(ports.events, why="a test", who="test"), (v1, v2), "v1"),
        ),
        1,
    ):
        act()
        assert behind(ports)
        assert mirror(ports)
        assert mirror(ports), "what it knows it is not told again"
        assert runs.told == step
        assert runs.models == {"rounds-films": (known, champion)}


def test_a_tracker_that_was_away_catches_up_with_everything_at_once(ports):
    runs = ports.runs
    runs.away = True
    first, second = made(ports, 0), made(ports, 1)
    for bundle in (first, second):
        promote_bundle(ports.home, bundle)
        assert not mirror(ports)
    assert (behind(ports), runs.models) == (True, {})
    runs.away = False
    assert mirror(ports)
    ((known, champion),) = runs.models.values()
    assert ([version["version"] for version in known], champion) == (["v1", "v2"], "v2")
    assert not behind(ports)


def test_without_a_tracker_nothing_is_told_and_nothing_is_forgotten(ports):
    promote_bundle(ports.home, made(ports, 0))
    assert mirror(replace(ports, runs=None))
    assert behind(ports)


def test_runs_that_wait_in_the_spool_are_named_once(ports):
    assert waiting(ports) == []
    for name in ("one/run-2", "one/run-1", "two/run-1~beside"):
        (ports.home / "spool" / name).mkdir(parents=True)
        (ports.home / "spool" / name / "entries.jsonl").touch()
    assert waiting(ports) == ["run-1", "run-2"]


WATCH = """
import sys
from rounds.faces.cli.app import run
try:
    run(["watch", "--once", "--json"])
finally:
    print([name for name in ("mlflow", "torch", "pandas") if name in sys.modules], file=sys.stderr)
"""


def test_a_watch_has_the_registry_told_in_a_process_of_its_own(home, empty_mlflow):
    with opened(home) as ports:
        promote_bundle(home, made(ports, 0))
    done = watched(home)
    assert (done.returncode, done.stderr) == (0, "[]\n"), "where nothing is tracked, nothing is told"
    shutil.copy(empty_mlflow, home / "mlflow.db")
    done = watched(home)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert json.loads(done.stdout)["champion_after"] == "v1"
    client = MlflowRuns(f"sqlite:///{home}/mlflow.db", home)._client
    assert client.get_registered_model("rounds-films").aliases == {"champion": 1}
    with opened(home) as ports:
        assert not behind(ports)


def watched(home: Path) -> subprocess.CompletedProcess[str]:
    mine = {**os.environ, "ROUNDS_HOME": str(home)}
    return subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=False, env=mine)
