"""Folders that a pipeline carries from one workspace to another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.bundles import tiny_bundle
from tests.support.datasets import tiny_dataset
from tests.support.workspace import opened

from rounds.core.errors import DamagedData, UnknownId
from rounds.loop import exchange, gating, intake, measuring
from rounds.registry.catalogue import Catalogue


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_data_set_goes_out_without_its_cache_and_comes_in_whole(tmp_path: Path) -> None:
    made = tiny_dataset(tmp_path / "elsewhere")
    (made.path / "cache").mkdir()
    (made.path / "cache" / "pixels.npy").write_bytes(b"x")
    exchange.give_dataset(made, tmp_path / "out" / "films")
    assert set(files(tmp_path / "out" / "films")) == {"dataset.json", "manifest.parquet", "pack-0000.bin"}
    with opened(tmp_path / "home") as ports:
        found = intake.find(ports, str(tmp_path / "out" / "films"))
        assert found.digest == made.digest
        assert found.path == ports.datasets / made.digest
        assert intake.find(ports, "tiny").digest == made.digest
        intake.find(ports, str(tmp_path / "out" / "films"))
        assert [event.kind for event in ports.events.read()] == ["prepared"]


def test_a_data_set_that_was_changed_in_its_folder_is_not_taken(tmp_path: Path) -> None:
    made = tiny_dataset(tmp_path / "elsewhere")
    (made.path / "manifest.parquet").write_bytes(b"no table")
    with opened(tmp_path / "home") as ports, pytest.raises(DamagedData):
        intake.find(ports, str(made.path))


def test_a_bundle_stays_when_the_folder_it_came_in_goes(tmp_path: Path) -> None:
    outside = tmp_path / "bundle"
    shutil.copytree(tiny_bundle(tmp_path / "made").path, outside)
    with opened(tmp_path / "home") as ports:
        version = gating.register(ports, str(outside))
        assert gating.register(ports, str(outside)) == version
        shutil.rmtree(outside)
        assert measuring.open_bundle(ports, version["bundle"]).digest == version["bundle"]
        assert [event.kind for event in ports.events.read()] == ["imported", "registered"]
        assert Catalogue.of(ports.events.read()).bundle("v1").path == f"bundles/{version['bundle']}"


def test_a_folder_without_a_run_says_what_it_lacks(tmp_path: Path) -> None:
    with opened(tmp_path / "home") as ports, pytest.raises(UnknownId, match=r"run\.json"):
        exchange.take_run(ports, tmp_path)
