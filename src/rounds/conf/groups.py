"""The groups of the configuration and their options, entered in Hydra's config store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore

from rounds.conf.experiments import EXPERIMENTS
from rounds.conf.thaw import thaw, thawed
from rounds.core.specs import (
    AugmentSpec,
    CaptureSpec,
    ExportSpec,
    GateSpec,
    ImagingSpec,
    LaunchSpec,
    LoopSpec,
    ModelSpec,
    MonitorSpec,
    PolicySpec,
    ServeSpec,
    TrackingSpec,
    TrainSpec,
)

# Options of each group: the first is the default. What a group names here, an override picks: augment=none.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "model": {"small": ModelSpec("small")},
    "augment": {
        "shift": AugmentSpec(),
        "none": AugmentSpec(flip=False, translate=0.0),
        "scanner": AugmentSpec(translate=0.07, brightness=0.1, contrast=0.2, gamma=0.2, noise=0.02, blur=0.7),
    },
    "train": {"cycle": LoopSpec()},
    "launcher": {"local": LaunchSpec(), "torchrun": LaunchSpec("torchrun", 2), "ray": LaunchSpec("ray", 2)},
    "export": {"onnx": ExportSpec()},
    "tracking": {name: TrackingSpec(name) for name in ("mlflow", "wandb", "both", "none")},
    "gate": {"paired": GateSpec()},
    "monitor": {"first_films": MonitorSpec()},
    "policy": {"careful": PolicySpec()},
    "serve": {"local": ServeSpec()},
    "capture": {"keep": CaptureSpec()},
}


@dataclass(frozen=True)
class Training:
    """What the overrides of `rounds train` reach: TrainSpec, how the run is packed, and where it is entered."""

    data: str = TrainSpec.data
    seed: int = TrainSpec.seed
    imaging: ImagingSpec = field(default_factory=ImagingSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    train: LoopSpec = field(default_factory=LoopSpec)
    launcher: LaunchSpec = field(default_factory=LaunchSpec)
    export: ExportSpec = field(default_factory=ExportSpec)
    tracking: TrackingSpec = field(default_factory=TrackingSpec)


@dataclass(frozen=True)
class Deciding:
    """What the overrides of `rounds policy` reach."""

    gate: GateSpec = field(default_factory=GateSpec)
    monitor: MonitorSpec = field(default_factory=MonitorSpec)
    policy: PolicySpec = field(default_factory=PolicySpec)
    serve: ServeSpec = field(default_factory=ServeSpec)
    capture: CaptureSpec = field(default_factory=CaptureSpec)


def groups(kind: type[Any]) -> dict[str, list[str]]:
    """The groups that a configuration has, and the options of each."""
    found = {name: list(OPTIONS[name]) for name in get_type_hints(kind) if name in OPTIONS}
    return found | {"experiment": list(EXPERIMENTS)} if kind is Training else found


def _register(kind: type[Any]) -> str:
    """Enter a configuration with its groups in Hydra's config store; the name it has there."""
    store, name = ConfigStore.instance(), f"rounds_{kind.__name__.lower()}"
    store.store(name=f"{name}_schema", node=thawed(kind))
    picked: list[Any] = [{group: next(iter(OPTIONS[group]))} for group in groups(kind) if group in OPTIONS]
    if kind is Training:
        picked.append({"experiment": None})
        for recipe, settings in EXPERIMENTS.items():
            store.store(group="experiment", name=recipe, package="_global_", node=dict(settings))
    store.store(name=name, node={"defaults": [f"{name}_schema", *picked, "_self_"]})
    for group in groups(kind):
        for option, spec in OPTIONS.get(group, {}).items():
            store.store(group=group, name=option, node=thaw(spec))
    return name


NAMES = {kind: _register(kind) for kind in (Training, Deciding)}
