"""Which recipe suits a source, and what the makers of the better candidate learned from."""

from __future__ import annotations

from pathlib import Path

from rounds.conf.resolve import resolve
from rounds.core.records import DatasetVersion
from rounds.core.specs import ExportSpec, TrainSpec
from rounds.data.prepare import CHEST_XRAY_SUBJECT
from rounds.faces.cli.demo.stage import Stage
from rounds.imaging.decode import decode
from rounds.imaging.packed import Films
from rounds.loop import curing, measuring
from rounds.stats.metrics import auc

SIZES = (28, 32, 48, 64)
CHEST = "Chest X-rays: Kermany, Zhang and Goldbaum 2018, doi 10.17632/rscbjbr9sj, CC BY 4.0"


def subject_of(source: str) -> str | None:
    """The regular expression that finds the subject in the names of the known chest X-ray collection; None
    elsewhere."""
    return CHEST_XRAY_SUBJECT if "chest_xray" in Path(source).name else None


def citation(source: str) -> str:
    """Whom to name wherever these films are shown."""
    return CHEST if "chest_xray" in source or "pneumonia" in source else ""


def recipe(dataset: DatasetVersion, seed: int, *, longer: bool = False) -> tuple[TrainSpec, ExportSpec]:
    """The demo's recipe at the size of the films, in their colours; half as many epochs again where there is more to
    learn."""
    films = Films(dataset.path)
    first = decode(films.bytes(0))
    size = max(size for size in SIZES if size <= max(28, *first.shape[:2]))
    spec, _ = resolve(["experiment=phantom", f"data={dataset.digest}", f"seed={seed}"])
    epochs = spec.train.epochs * 3 // 2 if longer else spec.train.epochs
    overrides = [
        f"imaging.size={size}",
        f"imaging.channels={_channels(films)}",
        f"train.epochs={epochs}",
        "train.progress=false",
    ]
    if first.shape[0] == 64:
        overrides = overrides[2:]
    return resolve(["experiment=phantom", f"data={dataset.digest}", f"seed={seed}", *overrides])


def learned(stage: Stage) -> DatasetVersion:
    """The makers' data and every film that was labelled since, whoever drew it: outside the audit labels may train."""
    assert stage.world is not None
    assert stage.ward is not None
    known = stage.ports.captures.labels()
    rest = [name for name in stage.truth if name not in known]
    labels = [{"prediction": name, "label": stage.truth[name], "by": "demo"} for name in rest]
    for start in range(0, len(labels), 500):
        stage.ward.label(labels[start : start + 500])
    rows = [row for row in stage.ports.captures.since(0, 10_000_000) if row.prediction in stage.shifted]
    assert stage.bundle is not None
    return curing.collect(stage.ports, stage.bundle, rows, "learned")


def test_auc(stage: Stage, ref: str) -> float:
    """A bundle's AUC on the frozen test split: for the story alone, no decision sees it."""
    assert stage.world is not None
    evidence, _ = measuring.on_split(measuring.open_bundle(stage.ports, ref), stage.world.base, "test")
    return auc(evidence.y == evidence.probabilities.shape[1] - 1, evidence.probabilities[:, -1])


def _channels(films: Films) -> int:
    """3 where the first films really have colour."""
    some = [decode(films.bytes(i)) for i in range(0, len(films), max(1, len(films) // 20))]
    return 3 if any(film.ndim == 3 and (film.max(2) - film.min(2) > 8).mean() > 0.01 for film in some) else 1
