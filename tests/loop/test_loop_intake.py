"""Sources become data sets that the log knows by name, digest and newest."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.captured import Ward, dataset_in
from tests.support.datasets import tiny_dataset
from tests.support.workspace import opened

from rounds.core.errors import BadSource, DamagedData, UnknownId
from rounds.core.specs import DataSpec
from rounds.loop import intake, measuring
from rounds.registry.catalogue import Catalogue


def test_a_source_is_prepared_entered_and_booked(home: Path) -> None:
    spec = DataSpec("phantom:n=240,size=32,seed=1", "phantoms", min_per_class=5)
    with opened(home) as ports:
        prepared = intake.prepare(ports, spec)
        (event,) = ports.events.read()
        (cost,) = ports.ledger.read()
        found = intake.statistics(ports, "phantoms")
    assert (event.kind, event.evidence["digest"]) == ("prepared", prepared.dataset.digest)
    assert event.why == f"{prepared.taken} films from {spec.source}"
    assert (cost.kind, cost.subject) == ("prepare", "phantoms")
    assert (found["name"], found["digest"]) == ("phantoms", prepared.dataset.digest)


def test_a_source_that_fails_leaves_no_event(home: Path, tmp_path: Path) -> None:
    with opened(home) as ports:
        with pytest.raises(BadSource):
            intake.prepare(ports, DataSpec(str(tmp_path / "nothing"), "none"))
        assert ports.events.head() == 0
        assert not list(ports.datasets.glob("*"))


def test_a_data_set_that_is_taken_in_again_becomes_the_newest_again(home: Path) -> None:
    with opened(home) as ports:
        old, new = (dataset_in(ports, seed=seed, splits={"test": 20}) for seed in (1, 2))
        assert intake.find(ports, "tiny").digest == new.digest
        intake.enter(ports, new, why="the same again")
        assert ports.events.head() == 2
        intake.enter(ports, old, why="prepared again")
        assert intake.find(ports, "tiny").digest == intake.find(ports, "latest").digest == old.digest
        assert intake.find(ports, f"tiny@{new.digest}").digest == new.digest


def test_an_unknown_or_damaged_data_set_is_named(home: Path) -> None:
    with opened(home) as ports:
        with pytest.raises(UnknownId, match="no data set 'other'"):
            intake.find(ports, "other")
        dataset = dataset_in(ports, splits={"test": 20})
        (dataset.path / "manifest.parquet").write_bytes(b"")
        with pytest.raises(DamagedData):
            intake.find(ports, "tiny")


def test_an_evaluation_is_kept_and_tied_to_its_bundle(ward: Ward) -> None:
    bundle, report, _ = measuring.evaluate(ward.ports, "champion", "tiny")
    (event,) = ward.ports.events.read(kinds=("evaluated",))
    assert (report.split, report.n) == ("test", 200)
    assert (event.evidence["bundle"], event.evidence["split"]) == (bundle.digest, "test")
    assert event.evidence["metrics"]["accuracy"] == report.metrics["accuracy"].value
    assert ward.ports.blobs.get(event.evidence["report"]).startswith(b'{"bundle"')
    assert Catalogue.of(ward.ports.events.read()).bundle("champion").bundle == bundle.digest


def test_a_data_set_outside_the_log_is_not_found_by_its_digest(home: Path) -> None:
    with opened(home) as ports:
        dataset = tiny_dataset(ports.datasets, splits={"test": 20})
        with pytest.raises(UnknownId, match="no data set"):
            intake.find(ports, dataset.digest)
