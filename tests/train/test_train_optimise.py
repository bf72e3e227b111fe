"""The optimizer and its learning-rate cycle."""

from __future__ import annotations

import pytest

from rounds.core.specs import LoopSpec, ModelSpec
from rounds.nets.names import build
from rounds.train.optimise import cycle, optimise


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 100])
def test_the_cycle_rises_to_the_full_rate_once_and_never_reaches_nothing(steps):
    rates = [cycle(step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert max(rates) == 1
    assert peak == max(1, steps // 4) - 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0
    assert steps < 100 or rates[-1] < 0.001


def test_kernels_decay_biases_and_norms_do_not_and_the_whitening_is_not_trained():
    net = build(ModelSpec(), channels=1, classes=2, size=28)
    optimizer, _ = optimise(net, LoopSpec(weight_decay=0.3), 10)
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert {id(net.head.weight), id(net.groups[0].conv1.weight)} <= {id(weight) for weight in decayed["params"]}
    assert {id(net.head.bias), id(net.groups[0].norm1.weight)} <= {id(weight) for weight in plain["params"]}
    assert id(net.whiten.weight) not in {id(weight) for weight in decayed["params"] + plain["params"]}
