"""The small net, in the style of airbench94 (Keller Jordan, github.com/KellerJordan/cifar10-airbench, 2024).

A frozen whitening convolution over training patches, then three groups of (convolution, max pooling, batch norm,
GELU, convolution, batch norm, GELU), average pooling and a linear head. 73,000 weights at width 1: made for two CPU
cores. Pooling by the average gave an AUC of .964 on phantoms where airbench's maximum gave .955, and makes a logit the
mean of its class activation map, plus a bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rounds.nets.network import Answer, Network

WIDTHS = (16, 32, 64)
SIDE = 64  # larger images are read in patches, so that the first feature map never has a longer side
FILTERS = 12  # whitening filters kept, each with its negative; 2x2 patches of 1 and 3 channels have 4 and 12
SAMPLE = 2048  # training images behind the statistics: their error is far below one gray value
EPS = 5e-4  # added to the eigenvalues: keeps the whitening from blowing up sensor noise (airbench94)


class Small(Network):
    """Three convolution groups over whitened patches; any number of classes, 1 or 3 channels, 28 to 224 pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, channels: int, classes: int, size: int, width: float) -> None:
        super().__init__()
        stride = -(-size // SIDE)
        kernel = max(2, stride)
        filters = min(FILTERS, channels * kernel * kernel)
        first, second, third = (max(8, 8 * round(w * width / 8)) for w in WIDTHS)
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 127.5))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 64.0))
        self.whiten = nn.Conv2d(channels, 2 * filters, kernel, stride=stride, bias=False).requires_grad_(False)
        self.gelu = nn.GELU()
        self.groups = nn.Sequential(
            Group(2 * filters, first), Group(first, second), Group(second, last := min(third, 128))
        )
        self.head = nn.Linear(last, classes)
        # The order of memory that convolutions on CPUs prefer: 1.6 times as fast in training.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types leave this word out

    def forward(self, pixels: Tensor) -> Answer:
        """Answer a batch, as `Network.forward` says."""
        x = (pixels.float() - self.mean) / self.std
        features = self.groups(self.gelu(self.whiten(x)))
        embedding = features.mean(dim=(2, 3))
        activation = nn.functional.conv2d(features, self.head.weight[:, :, None, None])
        return self.head(embedding), embedding, activation

    @torch.no_grad()
    def prepare(self, pixels: Tensor) -> None:
        """Set mean, spread and the whitening filters: eigenvectors of the patches' covariance over their roots."""
        images = pixels[:SAMPLE].float()
        self.mean.copy_(images.mean(dim=(0, 2, 3), keepdim=True))
        self.std.copy_(images.std(dim=(0, 2, 3), keepdim=True).clamp(min=1.0))
        size, stride = self.whiten.kernel_size[0], self.whiten.stride[0]
        patches = nn.functional.unfold((images - self.mean) / self.std, size, stride=stride)
        flat = patches.transpose(1, 2).reshape(-1, patches.shape[1]).double()
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        filters = (vectors / (values + EPS).sqrt()).T.flip(0)[: self.whiten.out_channels // 2]
        self.whiten.weight.copy_(torch.cat([filters, -filters]).float().view_as(self.whiten.weight))


class Group(nn.Module):
    """Two 3x3 convolutions with batch norm and GELU; the first halves the side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.pool, self.gelu = nn.MaxPool2d(2), nn.GELU()
        # Identity start, as in airbench94: an untrained group passes its input on, which speeds up the first epochs.
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight.data[: conv.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        x = self.gelu(self.norm1(self.pool(self.conv1(x))))
        answer: Tensor = self.gelu(self.norm2(self.conv2(x)))
        return answer
