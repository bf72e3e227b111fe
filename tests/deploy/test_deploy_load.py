"""The load of everyone: a short one in CI, judged by failures and by a ratio, never by an absolute time."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.server import server
from tests.support.typed import ROOT
from tests.support.workspace import promote

RUN = ROOT / "deploy" / "load" / "run.py"
# Not imported, for that would put gevent in the place of this process's threads.
needs_locust = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="no Locust: pip install locust")


def judged(found: dict[str, Any], ratio: float) -> list[str]:
    spec = importlib.util.spec_from_file_location("load_run", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.judged(found, ratio))


def found(**kinds: Any) -> dict[str, Any]:
    return {"total": {"requests": 1000}, "kinds": kinds, "faults": []}


def test_a_failure_and_a_long_tail_are_complaints_and_a_slow_machine_is_none() -> None:
    slow = {"requests": 500, "p50": 4000, "p99": 9000}
    tail = {"requests": 500, "p50": 4, "p99": 900}
    few = {"requests": 20, "p50": 4, "p99": 900}
    assert judged(found(small=slow, full=few), 25) == []
    assert judged(found(small=tail), 25) == ["small: p99 900 ms is over 25 times p50 4 ms"]
    broken = found(small=slow) | {"faults": [{"kind": "small", "what": "503 away", "n": 2}]}
    assert judged(broken, 25) == ["2 x small: 503 away"]
    assert judged({"total": {"requests": 0}, "kinds": {}, "faults": []}, 25) == ["nothing was answered"]


@pytest.mark.slow
@needs_locust
def test_a_short_load_of_mixed_films_fails_no_request_and_is_stored(tmp_path: Path) -> None:
    promote(tmp_path / "home")
    out = tmp_path / "load.json"
    with server(tmp_path / "home") as served:
        words = ["--url", served.url, "--seconds", "15", "--users", "4", "--out", str(out), "--ratio", "60"]
        done = subprocess.run([sys.executable, RUN, *words], capture_output=True, text=True, timeout=300)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["ok"]
    assert report["total"]["failures"] == 0
    assert {"small", "photo", "full", "dicom", "bad"} <= set(report["kinds"])
    assert {"p50", "p95", "p99", "per_second", "requests", "failures"} <= set(report["total"])


@pytest.mark.slow
@needs_locust
def test_a_load_whose_requests_fail_ends_with_4(tmp_path: Path) -> None:
    with server(tmp_path / "empty") as served:  # no champion: 503
        words = ["--url", served.url, "--seconds", "4", "--users", "2", "--out", str(tmp_path / "load.json")]
        done = subprocess.run([sys.executable, RUN, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    assert "503" in done.stdout
