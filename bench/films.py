"""The films that the training benchmarks learn: PneumoniaMNIST's training and validation films where ROUNDS_DATASETS
names a folder that holds them, else phantoms of the same number."""

from __future__ import annotations

import os
from pathlib import Path

from rounds.conf.resolve import resolve
from rounds.core.records import DatasetVersion
from rounds.core.specs import DataSpec, TrainSpec
from rounds.data.prepare import prepare

REAL = "pneumoniamnist_trainval.npz"


def films(folder: Path) -> tuple[DatasetVersion, str]:
    """The data set, prepared below the folder, and what it is called in a row's detail."""
    place = Path(os.environ.get("ROUNDS_DATASETS", "../shared/datasets")) / REAL
    if place.is_file():
        return prepare(DataSpec(str(place), name="pn"), folder=folder).dataset, "PneumoniaMNIST"
    return prepare(DataSpec("phantom:n=5200,seed=0", name="ph"), folder=folder).dataset, f"phantoms, for want of {REAL}"


def recipe(*overrides: str) -> TrainSpec:
    """The recipe pneumonia28, with these overrides."""
    return resolve(["experiment=pneumonia28", "train.progress=false", *overrides])[0]
