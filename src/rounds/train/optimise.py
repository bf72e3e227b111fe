"""The optimizer and its schedule."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from rounds.core.specs import LoopSpec


def optimise(net: nn.Module, spec: LoopSpec, steps: int) -> tuple[AdamW, LambdaLR]:
    """AdamW with one learning-rate cycle over all steps (Smith and Topin 2018); only kernels and matrices decay.

    What is not of the module `head` learns at `spec.backbone_lr` times the rate: less for pretrained weights.
    """
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in net.named_parameters():
        if weight.requires_grad:
            rate = spec.lr * (1.0 if name.startswith("head.") else spec.backbone_lr)
            alike.setdefault((rate, spec.weight_decay if weight.ndim > 1 else 0.0), []).append(weight)
    groups = [{"params": weights, "lr": rate, "weight_decay": decay} for (rate, decay), weights in alike.items()]
    optimizer = AdamW(groups, lr=spec.lr, betas=(0.9, 0.99))
    # torch's OneCycleLR divides by zero in runs of up to four steps, which tiny data sets have.
    return optimizer, LambdaLR(optimizer, lambda step: cycle(step, steps))


def cycle(step: int, steps: int) -> float:
    """The share of the full learning rate at a step, 0..1: a straight rise in the first quarter, then half a cosine
    down to nearly nothing."""
    rise = max(1, steps // 4)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / (steps + 1 - rise)))
