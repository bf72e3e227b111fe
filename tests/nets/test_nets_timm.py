"""Networks of timm: their answers where timm works, and what is said where it is absent or its torchvision broken."""

from __future__ import annotations

import importlib.abc
import sys

import pytest
import torch

from rounds.core.errors import BadOverride
from rounds.core.specs import ModelSpec
from rounds.nets.names import build


def working() -> bool:
    try:
        import timm  # noqa: F401
    except Exception:
        return False
    return True


class Failing(importlib.abc.MetaPathFinder):
    """An environment in which importing timm fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if name.partition(".")[0] == "timm":
            raise self.error


@pytest.fixture
def failing(monkeypatch):
    def fail(error: Exception) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Failing(error), *sys.meta_path])

    return fail


def said() -> str:
    with pytest.raises(BadOverride) as caught:
        build(ModelSpec("timm:resnet34"), channels=1, classes=2, size=28)
    return str(caught.value)


def test_where_it_is_absent_the_command_that_installs_it_is_named(failing):
    failing(ModuleNotFoundError("No module named 'timm'", name="timm"))
    assert said() == (
        "networks of timm cannot be used\n"
        f"  model.name: timm is not installed; expected timm and a torchvision for torch {torch.__version__}; "
        "got No module named 'timm'. Pip install 'rounds[timm]'"
    )


def test_where_torchvision_is_broken_that_is_said_and_not_hidden(failing):
    # The words of torchvision 0.29 built for CUDA, under a torch without it.
    failing(RuntimeError("operator torchvision::nms does not exist"))
    assert said() == (
        "networks of timm cannot be used\n"
        f"  model.name: timm does not work here; expected timm and a torchvision for torch {torch.__version__}; "
        "got operator torchvision::nms does not exist. Install the torchvision that was built for this torch"
    )


@pytest.mark.skipif(not working(), reason="timm is not installed, or its torchvision does not work")
def test_where_it_works_its_networks_answer_like_any_other():
    net = build(ModelSpec("timm:resnet34"), channels=1, classes=3, size=64).eval()
    logits, embedding, activation = net(torch.zeros((2, 1, 64, 64), dtype=torch.uint8))
    assert (logits.shape, embedding.shape, activation.shape) == ((2, 3), (2, 512), (2, 3, 2, 2))


@pytest.mark.skipif(not working(), reason="timm is not installed, or its torchvision does not work")
def test_an_unknown_name_of_timm_is_refused_with_names_like_it():
    with pytest.raises(BadOverride, match=r"timm has no such network; expected .*resnet.* or another of its names"):
        build(ModelSpec("timm:resnet3444"), channels=1, classes=2, size=28)
