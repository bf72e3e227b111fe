"""The same film answered on a Ray cluster: of this machine, and of two hosts with a cable between them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.bundles import tiny_films
from tests.support.captured import Ward
from tests.support.hosts import Host, two_hosts

from rounds.core.errors import DamagedBundle, WorldFault
from rounds.imaging.fit import encode_png
from rounds.loop import batch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PORT = 6399
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "180",  # a busy machine takes longer than the usual minute
}


@pytest.fixture
def films(tmp_path: Path) -> Path:
    pytest.importorskip("ray", reason="no Ray here: pip install 'rounds[ray]'")
    folder = tmp_path / "films"
    folder.mkdir()
    for i, film in enumerate(tiny_films(1000, seed=3)):
        (folder / f"film-{i:04d}.png").write_bytes(encode_png(film))
    (folder / "film-0700.png").write_text("no image")
    return folder


def test_a_cluster_of_this_machine_writes_the_file_of_one_process(
    ward: Ward, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    told = list[str]()
    alone = batch.predict(ward.ports, "champion", [Path("films")], out=tmp_path / "alone.csv", workers=1)
    spread = batch.predict(
        ward.ports, "champion", [Path("films")], out=tmp_path / "ray.csv", workers=2, launcher="ray", tell=told.append
    )
    assert spread == alone
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert re.fullmatch(r"answered by [0-9.]+ \(32 chunks\)", *told)
    (ward.ports.bundles / alone["bundle"] / "reference.parquet").write_bytes(b"spoilt")
    with pytest.raises(DamagedBundle):
        batch.predict(ward.ports, "champion", [Path("films")], launcher="ray")


def test_a_cluster_that_does_not_answer_is_told(ward: Ward, films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(WorldFault, match=r"the Ray cluster cannot be joined\n  127.0.0.1:1: no cluster answers"):
        batch.predict(ward.ports, "champion", [films], launcher="ray")


@pytest.fixture
def cluster() -> Iterator[tuple[Host, Host]]:
    """A Ray cluster of two hosts, one CPU each."""
    program = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    size = ["--object-store-memory=100000000", "--disable-usage-stats"]
    with two_hosts() as (first, second):
        # sockets lie below, and their names may not be long
        places = [tempfile.mkdtemp(prefix="r", dir="/tmp") for _ in range(2)]
        roles = [["--head", f"--port={PORT}", "--include-dashboard=false"], [f"--address={first.address}:{PORT}"]]
        nodes, logs = [], [Path(place) / "log" for place in places]
        try:
            for host, place, role, log in zip((first, second), places, roles, logs, strict=True):
                words = [*program, *role, *size, f"--node-ip-address={host.address}", f"--temp-dir={place}"]
                with log.open("wb") as out:
                    node = subprocess.Popen(host.words(*words), stdout=out, stderr=out, env={**os.environ, **QUIET})
                nodes.append(node)
                _wait(node, log, "Ray runtime started")
            yield first, second
        finally:
            for host in (first, second):
                host.end()
            for node in nodes:
                node.wait(20)
            for place in places:
                shutil.rmtree(place, ignore_errors=True)


def _wait(node: subprocess.Popen[bytes], log: Path, word: str, limit_s: float = 180) -> None:
    until = time.monotonic() + limit_s
    while word not in log.read_text():
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


def test_a_cluster_of_two_hosts_writes_the_file_of_one_process(
    ward: Ward, films: Path, tmp_path: Path, cluster: tuple[Host, Host]
) -> None:
    first, second = cluster
    batch.predict(ward.ports, "champion", [films], out=tmp_path / "alone.jsonl", workers=1)
    words = [sys.executable, "-m", "rounds", "--home", ward.ports.home, "predict", films, "--launcher", "ray"]
    parts = set[str]()
    for number in range(3):
        out = tmp_path / f"ray-{number}.jsonl"
        done = subprocess.run(
            first.words(*words, "--out", out, "--json"),
            env={**os.environ, **QUIET, "RAY_ADDRESS": f"{first.address}:{PORT}"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert out.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
        told = next(line for line in done.stderr.splitlines() if line.startswith("rounds: answered by "))
        parts |= {host.address for host in cluster if f"{host.address} (" in told}
        # on a busy machine one host may have done everything before the other's first process has come up
        if len(parts) == 2:
            break
    assert parts == {first.address, second.address}
