"""Networks of timm (Wightman, github.com/huggingface/pytorch-image-models) by name, where that package works."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rounds.core.errors import BadOverride, Fault, WorldFault
from rounds.nets.network import Answer, Network

PREFIX = "timm:"


class Timm(Network):
    """A backbone of timm and a linear head over its average."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, *, channels: int, classes: int, size: int) -> None:
        super().__init__()
        settings: dict[str, Any] = getattr(body, "pretrained_cfg", {})
        for name, usual in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            colours = torch.tensor(settings.get(name) or usual, dtype=torch.float32)
            values = colours if channels == 3 else colours.mean(0, keepdim=True)
            self.register_buffer(name, 255 * values.view(1, channels, 1, 1))
        self.body = body
        with torch.no_grad():
            seen = body.eval()(torch.zeros(1, channels, size, size))
        body.train()
        self.head = nn.Linear(seen.shape[1], classes)

    def forward(self, pixels: Tensor) -> Answer:
        """Answer a batch, as `Network.forward` says."""
        features = self.body((pixels.float() - self.mean) / self.std)
        embedding = features.mean(dim=(2, 3))
        activation = nn.functional.conv2d(features, self.head.weight[:, :, None, None])
        return self.head(embedding), embedding, activation

    def prepare(self, pixels: Tensor) -> None:
        """Nothing: the input's scale is the one that timm's weights expect."""


def from_timm(name: str, *, channels: int, classes: int, size: int, pretrained: bool) -> Network:
    """The network `timm:NAME`; pretrained weights are fetched by timm.

    Raises BadOverride where timm or its torchvision is missing or broken, where it does not know the name, or where the
    network ends in no feature map; WorldFault where pretrained weights cannot be had.
    """
    timm, short = _working(), name.removeprefix(PREFIX)
    if not timm.is_model(short):
        near = timm.list_models(f"*{short[:6]}*")[:3] or timm.list_models("resnet*")[:3]
        fault = Fault(
            "timm has no such network", "model.name", f"{', '.join(near)} or another of its names", repr(name)
        )
        raise BadOverride("this network cannot be built", [fault])
    try:
        body = timm.create_model(short, pretrained=pretrained, in_chans=channels, num_classes=0, global_pool="")
        net = Timm(body, channels=channels, classes=classes, size=size)
        net.eval()(torch.zeros((1, channels, size, size), dtype=torch.uint8))
    except (OSError, ImportError) as error:
        fault = Fault("timm cannot fetch them", name, "a connection", str(error), "or set model.pretrained=false")
        raise WorldFault("there are no pretrained weights", [fault]) from error
    except Exception as error:  # a thousand networks by others fail in as many ways on a size or a last layer
        fault = Fault(
            "not a network of this kind", name, f"a feature map from {size} pixels", str(error), "try another"
        )
        raise BadOverride("this network cannot be built", [fault]) from error
    return net.train()


def _working() -> ModuleType:
    """timm, if it and the torchvision under it can be imported.

    A torchvision that was built for another torch fails with RuntimeError ("operator torchvision::nms does not exist").
    """
    try:
        return importlib.import_module("timm")
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError)
        what = f"{error.name} is not installed" if isinstance(error, ModuleNotFoundError) else "timm does not work here"
        advice = "pip install 'rounds[timm]'" if absent else "install the torchvision that was built for this torch"
        fault = Fault(what, "model.name", f"timm and a torchvision for torch {torch.__version__}", str(error), advice)
        raise BadOverride("networks of timm cannot be used", [fault]) from error
