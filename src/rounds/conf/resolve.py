"""Overrides as people type them, resolved by Hydra to the frozen specs of the core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from threading import Lock
from typing import Any, get_origin

from hydra import compose, initialize
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rounds.conf.bounds import outside
from rounds.conf.groups import NAMES, Deciding, Training, groups
from rounds.conf.thaw import kinds
from rounds.core.errors import BadOverride, Fault
from rounds.core.ids import restore
from rounds.core.specs import (
    CaptureSpec,
    ExportSpec,
    GateSpec,
    MonitorSpec,
    PolicySpec,
    ServeSpec,
    TrackingSpec,
    TrainSpec,
)

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a list of texts: ['a','b']",
}
# Hydra keeps the composition under way in one global; a server's threads take turns.
_ONE_AT_A_TIME = Lock()


def resolve(overrides: Sequence[str]) -> tuple[TrainSpec, ExportSpec]:
    """What `rounds train` is asked for: model=small, train.epochs=5, seed=3, experiment=quick, augment.flip=false.

    Raises BadOverride with every override that names nothing or has the wrong type or size, and the nearest right name.
    """
    found = _resolve(Training, overrides)
    named = {name: getattr(found, name) for name in TrainSpec.__dataclass_fields__}
    return TrainSpec(**named), found.export


def tracking(overrides: Sequence[str]) -> TrackingSpec:
    """Where the run of these overrides is entered: tracking=wandb, tracking.project=lungs; BadOverride as `resolve`."""
    found: TrackingSpec = _resolve(Training, overrides).tracking
    return found


def policy(overrides: Sequence[str]) -> tuple[GateSpec, MonitorSpec, PolicySpec, ServeSpec, CaptureSpec]:
    """The rules that are asked for: gate.margin=0.02, monitor.alpha=0.005.

    Raises BadOverride as `resolve` does.
    """
    found = _resolve(Deciding, overrides)
    return found.gate, found.monitor, found.policy, found.serve, found.capture


def _resolve(kind: type[Any], overrides: Sequence[str]) -> Any:
    faults = [fault for text in overrides if (fault := _misnamed(kind, text))]
    named = [text for text in overrides if _misnamed(kind, text) is None]
    try:
        settings = _compose(kind, named)
    except (HydraException, OmegaConfBaseException):
        faults += [fault for text in named if (fault := _mistyped(kind, text))]
        settings = _compose(kind, [text for text in named if _mistyped(kind, text) is None])
    faults += outside(settings)
    if faults:
        raise BadOverride(f"{len(faults)} of the settings cannot be used", faults)
    return restore(kind, settings)


def _compose(kind: type[Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Hydra's composition as plain JSON types."""
    with _ONE_AT_A_TIME, _own_hydra():
        composed = compose(NAMES[kind], list(overrides))
    settings: dict[str, Any] = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)  # type: ignore[assignment]
    return settings


@contextmanager
def _own_hydra() -> Iterator[None]:
    """A Hydra of our own, also inside an application that runs under another one, which gets its own back."""
    theirs = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize(version_base="1.3", config_path=None):
            yield
    finally:
        GlobalHydra.instance().hydra = theirs


def _misnamed(kind: type[Any], text: str) -> Fault | None:
    """What is wrong with an override before its value is looked at."""
    try:
        override: Override = OverridesParser.create().parse_override(text)
    except HydraException:
        return Fault("this cannot be read", text, "name=value", next="put quotes around a value with special signs")
    plain = override.type is OverrideType.CHANGE and override.package is None and not override.is_sweep_override()
    if not plain:
        return Fault("only plain settings are taken", text, "name=value", next="give one value, and no + or ~")
    name, value = override.key_or_group, override.value()
    choices = groups(kind)
    if name in choices:
        return None if value in choices[name] else _unknown("option", text, str(value), choices[name])
    return None if name in kinds(kind) else _unknown("setting", text, name, [*kinds(kind), *choices])


def _unknown(what: str, text: str, name: str, known: Sequence[str]) -> Fault:
    """An unknown name, with the known one that looks most like it: whole, or by its last part alone."""
    last = {other.rpartition(".")[2]: other for other in reversed(known)}
    near = get_close_matches(name, known, 1) or [last[key] for key in get_close_matches(name, last, 1)]
    near = near or get_close_matches(name.rpartition(".")[2], last, 1, 0.0)
    expected = ", ".join(known) if len(known) <= 8 else ""
    return Fault(f"no such {what}", text, expected, repr(name), f"did you mean {near[0]}?")


def _mistyped(kind: type[Any], text: str) -> Fault | None:
    """What is wrong with the value of an override whose name is right."""
    try:
        _compose(kind, [text])
    except (HydraException, OmegaConfBaseException):
        name, _, value = text.partition("=")
        return Fault("the value has the wrong type", text, _words(kinds(kind)[name]), repr(value))
    return None


def _words(hint: Any) -> str:
    """A type as people say it."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(member.value for member in hint)
    if is_dataclass(hint):
        return "{" + ", ".join(f"{part.name}: ..." for part in fields(hint)) + "}"
    return _WORDS.get(hint) or _WORDS[get_origin(hint)]
