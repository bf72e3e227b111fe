"""The optimizer and its schedule."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from rounds.core.specs import LoopSpec


def optimise(net: nn.Module, spec: LoopSpec, steps: int) -> tuple[AdamW, OneCycleLR]:
    """AdamW with one learning-rate cycle over all steps; only kernels and matrices decay.

    The cycle rises to `lr` in the first quarter and falls to nearly nothing (Smith and Topin 2018), which is why the
    last weights, not the best on validation, are the ones to keep.
    """
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=spec.lr, betas=(0.9, 0.99))
    return optimizer, OneCycleLR(optimizer, spec.lr, total_steps=steps, pct_start=0.25)
