"""Ten times the films take the same memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.bundles import tiny_films
from tests.support.captured import Ward

from rounds.imaging.fit import encode_png

FEW, MANY = 2_000, 20_000
# The answers that a result lists are few here, so that both runs have more; the processes begin at once.
PROGRAM = """
import json, resource, sys
from pathlib import Path
from rounds.loop import batch
from rounds.wiring.serving import open_ports
from rounds.wiring.settings import Settings
batch.WORTH_S, batch.LISTED = 0.0, 100
with open_ports(Settings(home=Path(sys.argv[1]))) as ports:
    films, out = [Path(sys.argv[2])] * int(sys.argv[4]), Path(sys.argv[3])
    said = batch.predict(ports, "champion", films, out=out, workers=2)
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([said["written"], *peaks]))
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    data = [encode_png(film) for film in tiny_films(100, seed=3)]
    for i in range(FEW):
        (folder / f"film-{i:05d}.png").write_bytes(data[i % len(data)])
    return folder


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_ten_times_the_films_take_the_same_memory(ward: Ward, films: Path, tmp_path: Path, ending: str) -> None:
    peaks = []
    for times in (1, MANY // FEW):
        words = [ward.ports.home, films, tmp_path / f"{times}.{ending}", times]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        written, *kib = json.loads(done.stdout)
        assert written == FEW * times
        peaks.append(kib)
    (here, there), (here_many, there_many) = peaks
    print(f"peak of the command {here / 1024:.1f} and {here_many / 1024:.1f} MiB, of a process", end=" ")
    print(f"{there / 1024:.1f} and {there_many / 1024:.1f} MiB")
    assert here_many < here * 1.05
    assert there_many < there * 1.05
