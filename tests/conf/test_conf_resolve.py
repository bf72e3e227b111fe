"""Overrides, as people type them, become frozen specs or one message that names every fault."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest

from rounds.conf.bounds import BOUNDS
from rounds.conf.experiments import EXPERIMENTS
from rounds.conf.groups import OPTIONS, Deciding, Training
from rounds.conf.resolve import policy, resolve, tracking
from rounds.conf.thaw import kinds
from rounds.core.errors import BadOverride
from rounds.core.specs import (
    AugmentSpec,
    CaptureSpec,
    ExportSpec,
    Fit,
    GateSpec,
    ImagingSpec,
    Limits,
    LoopSpec,
    ModelSpec,
    MonitorSpec,
    PolicySpec,
    ServeSpec,
    TrackingSpec,
    TrainSpec,
)


def test_no_override_gives_the_defaults_of_the_core():
    assert resolve([]) == (TrainSpec(), ExportSpec())
    assert policy([]) == (GateSpec(), MonitorSpec(), PolicySpec(), ServeSpec(), CaptureSpec())


def test_overrides_of_every_group_and_type_reach_their_spec():
    spec, export = resolve(
        [
            "data=films@0f3a",
            "seed=3",
            "model=small",
            "model.width=2",
            "imaging.size=64",
            "imaging.fit=pad",
            "augment.flip=false",
            "augment.rotate=5",
            "train.epochs=5",
            "train.lr=1e-3",
            "export.alpha=0.05",
        ]
    )
    assert spec == TrainSpec(
        data="films@0f3a",
        seed=3,
        imaging=ImagingSpec(size=64, fit=Fit.PAD),
        model=ModelSpec(width=2.0),
        augment=AugmentSpec(flip=False, rotate=5.0),
        train=LoopSpec(epochs=5, lr=0.001),
    )
    assert export == ExportSpec(alpha=0.05)


def test_where_a_run_is_entered_is_asked_for_beside_what_is_trained():
    assert tracking([]) == TrackingSpec()
    assert tracking(["tracking=both", "tracking.project=lungs", "seed=3"]) == TrackingSpec("both", project="lungs")
    assert resolve(["tracking=none"]) == (TrainSpec(), ExportSpec())
    with pytest.raises(BadOverride, match=r"tracking=mlfow: no such option; .*Did you mean mlflow\?"):
        tracking(["tracking=mlfow"])


def test_what_comes_out_is_the_frozen_spec_itself():
    spec, _ = resolve(["train.epochs=5"])
    assert type(spec.train) is LoopSpec
    with pytest.raises(FrozenInstanceError):
        spec.train.epochs = 6  # type: ignore[misc]


def test_rules_take_lists_nested_settings_and_whole_mappings():
    rules = policy(
        [
            "gate.margin=0.02",
            "monitor.alpha=0.005",
            "policy.retrain_overrides=['train.epochs=3','experiment=quick']",
            "serve.limits={max_bytes:5,max_pixels:7}",
            "serve.limits.max_pixels=8",
            "capture.days=90",
        ]
    )
    assert rules == (
        GateSpec(margin=0.02),
        MonitorSpec(alpha=0.005),
        PolicySpec(retrain_overrides=("train.epochs=3", "experiment=quick")),
        ServeSpec(limits=Limits(max_bytes=5, max_pixels=8)),
        CaptureSpec(days=90),
    )


def test_the_later_of_two_overrides_wins_and_a_setting_wins_over_its_group_and_experiment():
    spec, _ = resolve(["train.epochs=77", "seed=1", "experiment=quick", "seed=2", "augment.flip=true", "augment=none"])
    assert (spec.seed, spec.train.epochs) == (2, 77)
    assert spec.augment == AugmentSpec(flip=True, translate=0.0)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_resolves_and_says_more_than_the_defaults(name):
    assert resolve([f"experiment={name}"])[0] != TrainSpec()


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in OPTIONS.items() for o in options])
def test_every_option_of_every_group_resolves_to_its_spec(group, option):
    found = resolve if group in {part.name for part in fields(Training)} else policy
    specs = [*found([f"{group}={option}"]), tracking([f"tracking={option}"] if group == "tracking" else [])]
    assert OPTIONS[group][option] in [*specs, *(getattr(specs[0], part.name) for part in fields(specs[0]))]


def test_every_fault_is_told_at_once_with_the_nearest_right_name():
    with pytest.raises(BadOverride) as caught:
        resolve(
            [
                "train.epocs=3",
                "modl=small",
                "epochs=3",
                "experiment=quik",
                "model=smal",
                "+train.new=3",
                "~train.lr",
                "seed=1,2",
                "train.lr",
                "data=a@b(",
                "train.batch=many",
                "imaging.fit=pudding",
                "augment.flip=perhaps",
                "seed=1.5",
                "train.label_smoothing=null",
                "train.epochs=0",
                "train.ema=nan",
                "imaging.channels=64",
            ]
        )
    names = ", ".join(EXPERIMENTS)
    plain = "only plain settings are taken; expected name=value. Give one value, and no + or ~"
    unread = "this cannot be read; expected name=value. Put quotes around a value with special signs"
    assert str(caught.value).splitlines() == [
        "18 of the settings cannot be used",
        "  train.epocs=3: no such setting; got 'train.epocs'. Did you mean train.epochs?",
        "  modl=small: no such setting; got 'modl'. Did you mean model?",
        "  epochs=3: no such setting; got 'epochs'. Did you mean train.epochs?",
        f"  experiment=quik: no such option; expected {names}; got 'quik'. Did you mean quick?",
        "  model=smal: no such option; expected small; got 'smal'. Did you mean small?",
        f"  +train.new=3: {plain}",
        f"  ~train.lr: {plain}",
        f"  seed=1,2: {plain}",
        f"  train.lr: {unread}",
        f"  data=a@b(: {unread}",
        "  train.batch=many: the value has the wrong type; expected a whole number; got 'many'",
        "  imaging.fit=pudding: the value has the wrong type; expected stretch or pad; got 'pudding'",
        "  augment.flip=perhaps: the value has the wrong type; expected true or false; got 'perhaps'",
        "  seed=1.5: the value has the wrong type; expected a whole number; got '1.5'",
        "  train.label_smoothing=null: the value has the wrong type; expected a number; got 'null'",
        "  imaging.channels: the value is outside its range; expected 1 to 3; got 64",
        "  train.epochs: the value is outside its range; expected 1 to 100000; got 0",
        "  train.ema: the value is outside its range; expected 0 to 0.999999; got nan",
    ]
    assert caught.value.__context__ is None, "Hydra's own traceback stays hidden"


def test_rules_refuse_wrong_lists_and_mappings():
    with pytest.raises(BadOverride) as caught:
        policy(["policy.retrain_overrides=3", "serve.limits=3", "gate.margin=0", "serve.deadline_s=0"])
    assert str(caught.value).splitlines() == [
        "4 of the settings cannot be used",
        "  policy.retrain_overrides=3: the value has the wrong type; expected a list of texts: ['a','b']; got '3'",
        "  serve.limits=3: the value has the wrong type; expected {max_bytes: ..., max_pixels: ...}; got '3'",
        "  gate.margin: the value is outside its range; expected 1e-06 to 0.999; got 0.0",
        "  serve.deadline_s: the value is outside its range; expected at least 1e-12; got 0.0",
    ]


def test_a_name_like_nothing_at_all_still_gets_an_answer():
    with pytest.raises(BadOverride, match=r"zzzzqqq=1: no such setting; got 'zzzzqqq'\. Did you mean "):
        resolve(["zzzzqqq=1"])


def test_every_bound_names_a_setting_and_every_number_has_bounds():
    numbers = {name for kind in (Training, Deciding) for name, hint in kinds(kind).items() if hint in (int, float)}
    assert set(BOUNDS) == numbers


def test_every_default_keeps_to_its_bounds():
    for kind in (Training, Deciding):
        for name in kinds(kind):
            value = kind()
            for part in name.split("."):
                value = getattr(value, part)
            if name in BOUNDS and not is_dataclass(value):
                low, high = BOUNDS[name]
                assert low <= value <= high, name


def test_many_resolves_in_one_process_do_not_disturb_each_other_nor_a_hydra_of_somebody_else():
    from hydra import initialize
    from hydra.core.global_hydra import GlobalHydra

    with initialize(version_base="1.3", config_path=None):
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda seed: resolve([f"seed={seed}"])[0], range(12)))
        assert GlobalHydra.instance().is_initialized()
    assert found == [replace(TrainSpec(), seed=seed) for seed in range(12)]


def test_resolving_imports_no_torch():
    code = "import sys; from rounds.conf.resolve import resolve; resolve([]); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
