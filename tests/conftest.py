"""What every test may ask for: real data where they are at hand, and a workspace of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# one thread a test process: the tests share two cores
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of real X-rays that ROUNDS_DATASETS names; without it the tests that need them are skipped, saying
    so."""
    folder = Path(os.environ.get("ROUNDS_DATASETS", "../shared/datasets"))
    if not (folder / "chest_xray_224.tar").is_file():
        pytest.skip(f"no real films in {folder}: set ROUNDS_DATASETS to a folder that holds chest_xray_224.tar")
    return folder.resolve()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the test's own, so that no test ever touches the user's."""
    place = tmp_path / "home"
    monkeypatch.setenv("ROUNDS_HOME", str(place))
    return place
