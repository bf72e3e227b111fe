"""The optimizer and its schedule."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from rounds.core.specs import LoopSpec


def optimise(net: nn.Module, spec: LoopSpec, steps: int) -> tuple[AdamW, LambdaLR]:
    """AdamW with one learning-rate cycle over all steps (Smith and Topin 2018); only kernels and matrices decay."""
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
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
