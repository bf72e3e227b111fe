"""What every network of the house is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

Answer = tuple[Tensor, Tensor, Tensor]


class Network(nn.Module, ABC):
    """An image classifier from pixels to logits, embedding and class activation map, normalisation inside."""

    @abstractmethod
    def forward(self, pixels: Tensor) -> Answer:
        """Answer a batch.

        `pixels`: uint8 (n, c, h, w), 0..255; floats of that range are taken too. Returns float32 logits (n, k),
        embedding (n, d) of the network's own width d, and activation (n, k, h', w'): each class's weights over the last
        feature map.
        """

    @abstractmethod
    def prepare(self, pixels: Tensor) -> None:
        """Learn from training images, uint8 (n, c, h, w), what is computed rather than trained; once, before
        training."""

    def __call__(self, pixels: Tensor) -> Answer:
        answer: Answer = super().__call__(pixels)
        return answer
