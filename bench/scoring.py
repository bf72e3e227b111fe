"""How much of what a machine can do the command `rounds predict FOLDER --out F` does.

    python -m bench scoring

The ceiling: one process a core that is given paths, reads the files, decodes them, runs the network in batches of 32,
and makes nothing of it. (Reading is part of it: a folder's films lie on a disk. Without it, all bytes being in memory
beforehand, is told too.) Ours: the command, which finds and reads the files, answers, and writes the answers down. It
runs over a few films and over many; the difference is what films cost, free of what a start costs, which is told apart.
All in turns; the middle of the runs, as films per second of the wall's clock, and of processors' time. Films of 28
pixels have no floor: there a line of the answer's file costs a tenth of the film, and runs spread by more than that.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.films import films, recipe
from bench.serving_films import MIDDLE, SMALL, Kind, kinds
from rounds.core.specs import ExportSpec
from rounds.export.pack import pack
from rounds.train.fit import fit

FLOOR, BATCH = 0.90, 32
# Films in a folder, and how often the folder is named: few, and many.
SIZES = {SMALL: (10_000, 2, 8), MIDDLE: (3_000, 2, 8)}

# One process of the ceiling: it says when it is ready, begins when it is told, and says how long it took.
BARE = """
import json, os, sys, time
from pathlib import Path
import cv2, numpy as np
from rounds.core.specs import Limits
from rounds.imaging.fit import to_pixels
from rounds.runtime.bundle import read
from rounds.runtime.predictor import Predictor
cv2.setNumThreads(1)
bundle, folder, held, share, of, times, batch = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
bundle = read(bundle)
predictor, limits = Predictor(bundle), Limits()
def data(path):
    file = os.open(path, os.O_RDONLY)
    found = os.read(file, os.fstat(file).st_size)
    os.close(file)
    return found
films = [str(path) for path in sorted(folder.iterdir())[share::of]]
if held:
    films = [data(path) for path in films]
def run(films):
    for at in range(0, len(films), batch):
        part = films[at : at + batch] if held else map(data, films[at : at + batch])
        predictor.answer(np.stack([to_pixels(film, bundle.imaging, limits) for film in part]))
run(films[:batch])
print("ready", flush=True)
sys.stdin.readline()
began, cpu = time.perf_counter(), time.process_time()
for _ in range(times):
    run(films)
print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]))
"""


@dataclass(frozen=True)
class Took:
    """Seconds by the wall's clock and of processors."""

    wall: float
    cpu: float

    def __sub__(self, other: Took) -> Took:
        return Took(self.wall - other.wall, self.cpu - other.cpu)


def measure(workers: int = 2, runs: int = 3) -> list[dict[str, Any]]:
    """For each kind of film its share of the ceiling by the clock and by processors' time; and what a start costs."""
    rows, starts = list[dict[str, Any]](), list[float]()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        bundle = _bundle(place)
        for kind in kinds():
            if kind.name in SIZES:
                folder = _folder(place / kind.name.replace(" ", "-"), kind, SIZES[kind.name][0])
                rows += _shares(place, bundle, folder, kind, workers, runs, starts)
    detail = f"what a run takes beyond its films, {workers} processes; from {min(starts):.2f} to {max(starts):.2f}"
    start = {"name": "folder: seconds to start and end", "value": statistics.median(starts), "unit": "s"}
    return [*rows, start | {"floor": None, "higher_is_better": False, "detail": detail}]


def _shares(
    place: Path, bundle: Path, folder: Path, kind: Kind, workers: int, runs: int, starts: list[float]
) -> list[dict[str, Any]]:
    n, few, many = SIZES[kind.name]
    bare, held, ours = list[Took](), list[Took](), list[Took]()
    for _ in range(runs):
        bare.append(_bare(bundle, folder, workers, many - few, held=False))
        short = _command(place, bundle, [folder] * few, workers)
        ours.append(_command(place, bundle, [folder] * many, workers) - short)
        held.append(_bare(bundle, folder, workers, many - few, held=True))
        starts.append(short.wall - ours[-1].wall * few / (many - few))
    row = partial(_row, n * (many - few), ours, f"{workers} processes, {kind.source}")
    name = f"folder of {kind.name}: share of the ceiling"
    return [
        row(bare, f"{name}, films a second", "wall", FLOOR if kind.name == MIDDLE else None),
        row(bare, f"{name}, films a CPU-second", "cpu", None),
        row(held, f"{name} of films in memory, films a CPU-second", "cpu", None),
    ]


def _row(
    count: int, ours: list[Took], said: str, ceiling: list[Took], name: str, clock: str, floor: float | None
) -> dict[str, Any]:
    most, reached = ([count / getattr(took, clock) for took in side] for side in (ceiling, ours))
    shares = [one / other for one, other in zip(reached, most, strict=True)]
    detail = (
        f"{statistics.median(reached):,.0f} of {statistics.median(most):,.0f}; "
        f"runs {', '.join(f'{one:.2f}' for one in shares)}; {said}"
    )
    row = {"name": name, "value": statistics.median(shares), "floor": floor, "higher_is_better": True, "unit": "share"}
    return row | {"detail": detail}


def _bare(bundle: Path, folder: Path, workers: int, times: int, *, held: bool) -> Took:
    words = [sys.executable, "-c", BARE, str(bundle), str(folder)]
    parts = [
        subprocess.Popen(
            [*words, *map(str, (int(held), share, workers, times, BATCH))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        for share in range(workers)
    ]
    for part in parts:
        assert part.stdout is not None
        assert part.stdout.readline() == "ready\n", "the ceiling cannot be measured"
    for part in parts:
        assert part.stdin is not None
        part.stdin.write("go\n")
        part.stdin.flush()
    found = [json.loads(part.communicate()[0]) for part in parts]
    return Took(max(wall for wall, _ in found), sum(cpu for _, cpu in found))


def _command(place: Path, bundle: Path, folders: list[Path], workers: int) -> Took:
    words = ["--home", place / "home", "predict", *folders, "--bundle", bundle, "--out", place / "out.jsonl"]
    began, cpu = time.perf_counter(), _cpu_of_children()
    subprocess.run(
        [sys.executable, "-m", "rounds", *map(str, words), "--workers", str(workers)],
        check=True,
        capture_output=True,
        env=_environment(),
    )
    return Took(time.perf_counter() - began, _cpu_of_children() - cpu)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def _bundle(place: Path) -> Path:
    dataset, _ = films(place / "data")
    run = fit(recipe("train.threads=2", "train.epochs=2"), dataset, runs=None, folder=place / "runs")
    return pack(run, dataset, ExportSpec(), folder=place / "bundles").path


def _folder(folder: Path, kind: Kind, n: int) -> Path:
    folder.mkdir()
    for i, data in zip(range(n), kind.bodies(0), strict=False):
        (folder / f"film-{i:05d}").write_bytes(data)
    return folder
