"""The groups of the configuration and their options, in Hydra's config store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from rounds.conf.thaw import thawed
from rounds.core.specs import AugmentSpec, ExportSpec, GateSpec, ImagingSpec, LoopSpec, ModelSpec, MonitorSpec
from rounds.core.specs import PolicySpec, ServeSpec, TrainSpec


@dataclass(frozen=True)
class Training:
    """All that `rounds train` takes."""

    data: str = TrainSpec.data
    seed: int = TrainSpec.seed
    imaging: ImagingSpec = field(default_factory=ImagingSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    train: LoopSpec = field(default_factory=LoopSpec)
    export: ExportSpec = field(default_factory=ExportSpec)


@dataclass(frozen=True)
class Deciding:
    """All that `rounds policy` takes."""

    gate: GateSpec = field(default_factory=GateSpec)
    monitor: MonitorSpec = field(default_factory=MonitorSpec)
    policy: PolicySpec = field(default_factory=PolicySpec)
    serve: ServeSpec = field(default_factory=ServeSpec)
