"""From data to bundle: the recipe pneumonia28 on two cores.

python -m bench.training
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.films import films, recipe
from rounds.core.specs import ExportSpec
from rounds.export.pack import pack
from rounds.train.fit import fit

LIMIT_S, SEEDS = 10.0, (0, 1, 2)


def measure() -> list[dict[str, Any]]:
    """One row: seconds of the training loop on two threads, the least of three seeds (whatever else runs here only
    adds)."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        dataset, name = films(place / "data")
        runs, whole = [], []
        for seed in SEEDS:
            started = time.perf_counter()
            run = fit(recipe("train.threads=2", f"seed={seed}"), dataset, runs=None, folder=place / "runs")
            pack(run, dataset, ExportSpec(), folder=place / "bundles")
            runs.append(run)
            whole.append(time.perf_counter() - started)
        n = dataset.splits["train"]
    value = min(run.seconds for run in runs)
    detail = (
        f"{name}, {n} films; seeds {', '.join(f'{run.seconds:.1f}' for run in runs)} s wall, "
        f"{', '.join(f'{run.cpu_seconds:.1f}' for run in runs)} CPU s; with decoding and packing {min(whole):.1f} s; "
        "val AUC " + ", ".join(f"{run.val['auc']:.4f}" for run in runs)
    )
    row = {"name": "pneumonia28, seconds of training", "value": value, "floor": LIMIT_S, "higher_is_better": False}
    return [row | {"unit": "s", "detail": detail}]


if __name__ == "__main__":
    for found in measure():
        print(json.dumps(found))
