"""Any image classification task works without touching the code: ten classes of clothes, from folders to an answer."""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.support.server import server

from rounds.imaging.fit import encode_png

FASHION = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
EACH = 200


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """200 images a class, written out as PNG folders."""
    if not FASHION.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed: apt-get install dataset-fashion-mnist")
    images = np.frombuffer(gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((FASHION / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    for c, name in enumerate(NAMES):
        folder = tmp_path / "clothes" / name
        folder.mkdir(parents=True)
        for i in np.flatnonzero(labels == c)[:EACH]:
            (folder / f"{i:05d}.png").write_bytes(encode_png(images.reshape(-1, 28, 28)[i]))
    return tmp_path / "clothes"


def rounds(home: Path, *arguments: str) -> dict[str, object]:
    """One command in a process of its own, its JSON answer."""
    command = [sys.executable, "-m", "rounds", "--home", str(home), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_ten_classes_are_prepared_trained_served_and_predicted_with_no_change_of_code(
    clothes: Path, home: Path
) -> None:
    prepared = rounds(home, "data", "prepare", str(clothes), "--name", "clothes")
    assert prepared["classes"] == sorted(NAMES)
    assert prepared["taken"] == len(NAMES) * EACH
    trained = rounds(home, "train", "--data", "clothes", "train.epochs=6", "train.progress=false")
    measured = rounds(home, "evaluate", "latest", "--data", "clothes")
    assert measured["bundle"] == trained["bundle"]
    assert measured["threshold"] is None
    assert isinstance(measured["metrics"], dict)
    names = {"auc", "accuracy", "balanced_accuracy", "f1", "brier", "ece", "average_precision"}
    assert set(measured["metrics"]) == names
    assert measured["metrics"]["accuracy"]["value"] > 0.6
    rounds(home, "promote", "latest")
    film = next((clothes / "boot").iterdir())
    with server(home) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        connection.request("POST", "/v1/predict", film.read_bytes(), {"content-type": "image/png"})
        answer = json.loads(connection.getresponse().read())
    assert sorted(answer["probabilities"]) == sorted(NAMES)
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
    assert answer["version"] == "v1"
