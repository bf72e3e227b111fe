"""Every network of the house answers through ONNX Runtime as it does in torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.support.networks import fitted

from rounds.core.specs import ModelSpec
from rounds.export.graph import Mirrored, check_parity, to_onnx
from rounds.imaging.phantom import draw
from rounds.nets.names import NETWORKS
from rounds.runtime.predictor import Network

FEW, MANY, LIMIT = 100, 1000, 1e-4


@pytest.fixture(scope="module")
def films() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """1,000 X-rays uint8 (n, 1, 28, 28) with their classes; phantoms where none are at hand."""
    path = Path(os.environ.get("ROUNDS_DATASETS", "")) / "pneumoniamnist_trainval.npz"
    if not path.is_file():
        drawn = list(draw(MANY, seed=0, size=56))
        labels = np.array([film.label == "opacity" for film in drawn], np.int64)
        return np.stack([film.pixels[::2, ::2] for film in drawn])[:, np.newaxis], labels
    with np.load(path, allow_pickle=False) as held:
        # in the file one class follows the other
        chosen = np.random.default_rng(0).permutation(len(held["train_labels"]))[:MANY]
        images, labels = held["train_images"][chosen], held["train_labels"][chosen, 0]
    return np.ascontiguousarray(images[:, np.newaxis]), labels.astype(np.int64)


@pytest.mark.parametrize("n", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_agree_to_a_ten_thousandth(
    name: str, n: int, films: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
) -> None:
    pixels, truth = films
    net = fitted(ModelSpec(name), pixels, truth, batches=6, batch=48)
    network = Network(to_onnx(net, channels=1, size=28))
    with torch.no_grad():
        wanted = np.concatenate(
            [net(torch.from_numpy(part))[0].numpy() for part in np.array_split(pixels[:n], n // 50)]
        )
    said = network.answer_all(pixels[:n]).logits
    assert np.abs(wanted).max() > 1  # no agreement about nothing
    np.testing.assert_allclose(said, wanted, rtol=1e-5, atol=LIMIT)
    assert check_parity(net, network, pixels[:50], LIMIT) <= LIMIT


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_the_average_with_the_mirror_image_agrees_too(
    name: str, films: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
) -> None:
    pixels, truth = films
    served = Mirrored(fitted(ModelSpec(name), pixels, truth, batches=6, batch=48))
    assert check_parity(served, Network(to_onnx(served, channels=1, size=28)), pixels[:50], LIMIT) <= LIMIT
