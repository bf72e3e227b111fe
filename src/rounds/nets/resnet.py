"""ResNet-18 and ResNet-50 (He, Zhang, Ren and Sun 2016, arXiv 1512.03385), the latter with its stride in the 3x3
convolution (the variant "1.5", which trains better).

Inputs up to 64 pixels come in through one 3x3 convolution of stride 2 without pooling, larger ones through the paper's
7x7 of stride 2 and a maximum pooling. At 28 pixels a stem of stride 1 took 2.7 times as long (3.0 against 1.1 s for a
training step of ResNet-18 on 128 films, one thread).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rounds.nets.network import Answer, Network

SIDE = 64  # the largest input of the small stem
WIDTHS = (64, 128, 256, 512)
SAMPLE = 2048  # training images behind the statistics


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1, self.norm2, self.relu = nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.ReLU()
        self.shortcut = shortcut(inputs, width, stride)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        answer: Tensor = self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        return answer


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.BatchNorm2d(outputs)
        self.relu, self.shortcut = nn.ReLU(), shortcut(inputs, outputs, stride)
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.relu(self.norm2(self.conv2(y)))
        answer: Tensor = self.relu(self.norm3(self.conv3(y)) + self.shortcut(x))
        return answer


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The input as it is, or a 1x1 convolution where size or channels change."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(Network):
    """Four stages of residual blocks, average pooling and a linear head; any number of classes, 1 or 3 channels."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        block: type[Basic | Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        channels: int,
        classes: int,
        size: int,
        width: float,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 127.5))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 64.0))
        widths = [max(8, 8 * round(w * width / 8)) for w in WIDTHS]
        self.stem = stem(channels, widths[0], size)
        inputs, blocks = widths[0], []
        for stage, (outputs, depth) in enumerate(zip(widths, depths, strict=True)):
            for place in range(depth):
                blocks.append(block(inputs, outputs, 2 if place == 0 and stage > 0 else 1))
                inputs = block.expansion * outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        # The order of memory that convolutions on CPUs prefer.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types leave this word out

    def forward(self, pixels: Tensor) -> Answer:
        """Answer a batch, as `Network.forward` says."""
        features = self.blocks(self.stem((pixels.float() - self.mean) / self.std))
        embedding = features.mean(dim=(2, 3))
        activation = nn.functional.conv2d(features, self.head.weight[:, :, None, None])
        return self.head(embedding), embedding, activation

    @torch.no_grad()
    def prepare(self, pixels: Tensor) -> None:
        """Set mean and spread of the pixels, channel by channel."""
        images = pixels[:SAMPLE].float()
        self.mean.copy_(images.mean(dim=(0, 2, 3), keepdim=True))
        self.std.copy_(images.std(dim=(0, 2, 3), keepdim=True).clamp(min=1.0))


def stem(channels: int, width: int, size: int) -> nn.Sequential:
    """What reads the pixels: 3x3 of stride 2 up to 64 pixels, else 7x7 of stride 2 and pooling."""
    if size <= SIDE:
        conv: list[nn.Module] = [nn.Conv2d(channels, width, 3, 2, 1, bias=False)]
        return nn.Sequential(*conv, nn.BatchNorm2d(width), nn.ReLU())
    conv = [nn.Conv2d(channels, width, 7, 2, 3, bias=False)]
    return nn.Sequential(*conv, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))


def resnet18(*, channels: int, classes: int, size: int, width: float) -> Network:
    """ResNet-18: 11 million weights, embedding of 512."""
    return ResNet(Basic, (2, 2, 2, 2), channels=channels, classes=classes, size=size, width=width)


def resnet50(*, channels: int, classes: int, size: int, width: float) -> Network:
    """ResNet-50: 24 million weights, embedding of 2048."""
    return ResNet(Bottleneck, (3, 4, 6, 3), channels=channels, classes=classes, size=size, width=width)
