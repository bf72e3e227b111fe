"""Studies and cross-validation leave a public answer, an event, a cost, and nothing that is not needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support.datasets import tiny_dataset
from tests.support.workspace import opened

from rounds.conf.space import spec_of
from rounds.core.errors import BadSource
from rounds.core.ports import Ports
from rounds.core.specs import Axis
from rounds.loop import intake, studying
from rounds.train.tune import StudySpec

SMALL = ("imaging.size=28", "train.epochs=1", "train.progress=false", "model.width=0.25", "train.threads=1")
SPLITS = {"train": 120, "val": 60, "calibration": 40, "test": 40}


def films(ports: Ports, **given: object) -> str:
    dataset = tiny_dataset(ports.datasets, size=28, **({"splits": SPLITS} | given))  # type: ignore[arg-type]
    intake.enter(ports, dataset, why="a test")
    return dataset.digest


def test_cross_validation_answers_every_film_once_by_a_network_that_never_saw_its_subject(home: Path) -> None:
    with opened(home) as ports:
        data = films(ports)
        found = studying.cross_validate(ports, spec_of([*SMALL, f"data={data}"]), 3)
        kept = pq.read_table(found["predictions"]).to_pandas()
        kinds = [event.kind for event in ports.events.read()]
        costs = [cost.kind for cost in ports.ledger.read()]
    assert found["n"] == len(kept) == 220
    assert kept["name"].is_unique
    assert (kept.groupby("subject")["fold"].nunique() == 1).all()
    assert np.allclose(kept["p_normal"] + kept["p_opacity"], 1)
    assert [fold["train"] + fold["held"] for fold in found["folds"]] == [220] * 3
    assert sum(fold["held"] for fold in found["folds"]) == 220
    assert set(found["metrics"]["auc"]) == {"value", "low", "high"}
    assert found["metrics"]["auc"]["low"] <= found["metrics"]["auc"]["value"] <= found["metrics"]["auc"]["high"]
    mean = np.mean([fold["metrics"]["accuracy"] for fold in found["folds"]])
    assert found["spread"]["accuracy"]["mean"] == pytest.approx(mean)
    assert (kinds[-1], costs) == ("cross_validated", ["check", "cross-validate"])


def test_a_class_with_fewer_subjects_than_folds_is_named(home: Path) -> None:
    with opened(home) as ports:
        data = films(ports, splits={"train": 12, "val": 4})
        with pytest.raises(BadSource, match=r"normal.*at least 50"):
            studying.cross_validate(ports, spec_of([*SMALL, f"data={data}"]), 50)


def test_a_study_tells_what_the_best_gains_and_keeps_two_runs(home: Path) -> None:
    with opened(home) as ports:
        data = films(ports)
        spec = StudySpec("first", f"sqlite:///{home / 'studies.db'}", trials=3, prune=False)
        axes = (Axis("train.lr", 1e-4, 0.05, log=True),)
        found = studying.study(ports, spec, axes, [*SMALL, f"data={data}"], spec_of, data)
        event = ports.events.read()[-1]
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 3
    assert found["best"]["value"] == max(trial["value"] for trial in found["trials"])
    assert found["default"]["overrides"] == []
    assert found["difference"]["low"] <= found["difference"]["value"] <= found["difference"]["high"]
    assert (event.kind, event.evidence["best"]) == ("tuned", found["best"])
    kept = [run for run in (home / "studies" / "first").iterdir() if run.is_dir()]
    assert len(kept) == len({found["best"]["number"], 0})
