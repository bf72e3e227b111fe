"""A ResNet-18 in eight bits against itself in float32: latency, labels and AUC, on one thread.

    python -m bench.int8

The network is trained for two epochs on 1,500 films at 64 pixels, so that labels are those of real logits, and served
as its bundle is: each film averaged with its mirror image. Batches of 32 and not of 128: as many seconds of training
then make a validation AUC of .989 instead of .937, and a film that lies at the threshold says little of quantisation.
Times are CPU time of the one thread, in turns, the median of the pairs' ratios (export/variants.py); labels and AUC are
those of the validation films, at the bundle's operating point. Films: chest X-rays where ROUNDS_DATASETS names a folder
that holds them, else phantoms.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rounds.core.records import DatasetVersion
from rounds.core.specs import DataSpec, ExportSpec, ImagingSpec, LoopSpec, ModelSpec, TrainSpec
from rounds.data.prepare import prepare
from rounds.export.calibrated import Seen, evenly
from rounds.export.pack import pack
from rounds.export.variants import AGREEMENT, AUC_MARGIN, compare
from rounds.imaging.packed import Films, Rows
from rounds.loop.packing import int8
from rounds.train.fit import fit

REAL, SUBJECT = "chest_xray_224.tar", r"(person\d+|IM-\d+|NORMAL2-IM-\d+)"
FLOOR, FILMS, SIZE = 3.0, 1500, 64


def measure() -> list[dict[str, Any]]:
    """Rows: how many times as fast at both batch sizes, labels that agree, AUC lost at most, bytes."""
    spec = TrainSpec(
        imaging=ImagingSpec(size=SIZE),
        model=ModelSpec("resnet18"),
        train=LoopSpec(epochs=2, batch=32, lr=0.003, progress=False),
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dataset, named = films(folder / "data")
        rows = Films(dataset.path)
        run = fit(spec, dataset, runs=None, folder=folder / "runs", rows=(some(rows.rows("train")), rows.rows("val")))
        bundle = pack(run, dataset, ExportSpec(), folder=folder)
        seen = Seen(dataset, bundle.imaging, bundle.classes)
        found = compare(bundle, int8(bundle, seen, folder), seen)
    on = f"ResNet-18, {SIZE} px, {named}, {found.n} validation films, val AUC {run.val['auc']:.3f}"
    made = [
        row(f"int8 against float32, batch {batch}", t.speedup.value, FLOOR, "times", detail=f"{t.before:.2f} to "
            f"{t.after:.2f} ms, pairs {t.speedup.low:.2f} to {t.speedup.high:.2f}; {on}")
        for batch, t in found.times.items()
    ]  # fmt: skip
    lost = found.auc_difference
    made += [
        row("int8 labels that agree", found.agreement, AGREEMENT, "share", detail=on),
        row("int8 AUC lost at most", -lost.low, AUC_MARGIN, "AUC", higher=False, detail=f"{lost.value:+.5f}; {on}"),
        row(
            "int8 graph's share of the bytes", found.bytes / found.bytes_before, None, "share", higher=False, detail=on
        ),
    ]
    return made


def films(folder: Path) -> tuple[DatasetVersion, str]:
    """The data set, prepared below the folder, and what it is called."""
    place = Path(os.environ.get("ROUNDS_DATASETS", "../shared/datasets")) / REAL
    if place.is_file():
        return prepare(DataSpec(str(place), name="films", subject=SUBJECT), folder=folder).dataset, "chest X-rays"
    source = DataSpec(f"phantom:n=4000,seed=0,size={SIZE}", name="phantoms")
    return prepare(source, folder=folder).dataset, f"phantoms, for want of {REAL}"


def some(rows: Rows) -> Rows:
    """FILMS of the rows, evenly spread over the classes."""
    at = evenly(len(rows), FILMS)
    chosen = {name: [getattr(rows, name)[i] for i in at] for name in ("subjects", "digests", "names", "attributes")}
    return replace(rows, index=rows.index[at], labels=rows.labels[at], **chosen)


def row(name: str, value: float, floor: float | None, unit: str, *, detail: str, higher: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "value": float(np.round(value, 5)),
        "floor": floor,
        "higher_is_better": higher,
        "unit": unit,
        "detail": detail,
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
