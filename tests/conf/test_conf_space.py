"""Sweeps in Hydra's grammar become the axes of a study."""

from __future__ import annotations

import pytest

from rounds.conf.space import DEFAULT, axes, spec_of
from rounds.core.errors import BadOverride
from rounds.core.specs import Axis


def test_sweeps_become_axes_and_the_rest_stays_an_override() -> None:
    plain, found = axes(
        [
            "experiment=quick",
            "train.lr=tag(log,interval(0.001,0.1))",
            "train.epochs=interval(2,6)",
            "train.batch=range(32,129,32)",
            "augment.flip=true,false",
            "augment=choice(none,shift)",
        ]
    )
    assert plain == ["experiment=quick"]
    assert found == (
        Axis("train.lr", 0.001, 0.1, log=True),
        Axis("train.epochs", 2.0, 6.0, whole=True),
        Axis("train.batch", options=("32", "64", "96", "128")),
        Axis("augment.flip", options=("true", "false")),
        Axis("augment", options=("none", "shift")),
    )


def test_without_a_sweep_the_default_space_is_searched() -> None:
    plain, found = axes(["seed=3"])
    assert plain == ["seed=3"]
    assert [axis.name for axis in found] == [text.partition("=")[0] for text in DEFAULT]


def test_what_is_no_space_is_refused_at_once_and_by_name() -> None:
    with pytest.raises(BadOverride) as caught:
        axes(["train.lrr=interval(0,1)", "train.lr=interval(0.1,0.01)", "train.ema=tag(log,interval(0,0.5))"])
    assert [fault.where for fault in caught.value.faults] == [
        "train.lrr=interval(0,1)",
        "train.lr=interval(0.1,0.01)",
        "train.ema=tag(log,interval(0,0.5))",
    ]


def test_the_ends_of_an_axis_keep_to_the_range_of_its_setting() -> None:
    with pytest.raises(BadOverride, match=r"augment\.noise.*0 to 1.*3"):
        axes(["augment.noise=interval(0,3)"])
    with pytest.raises(BadOverride, match="heavy"):
        axes(["augment=choice(none,heavy)"])


def test_overrides_resolve_to_the_training_alone() -> None:
    assert spec_of(["train.epochs=4", "seed=2"]).train.epochs == 4
