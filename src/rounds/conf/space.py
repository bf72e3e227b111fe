"""Sweeps as people type them in Hydra's grammar, as the axes of a study."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from rounds.conf.groups import Training, groups
from rounds.conf.resolve import resolve
from rounds.conf.thaw import kinds
from rounds.core.errors import BadOverride, Fault
from rounds.core.specs import Axis, TrainSpec

# What a study varies where nobody says: what moved the stress validation most on phantoms and chest films.
DEFAULT = (
    "train.lr=tag(log,interval(0.002,0.05))",
    "train.weight_decay=tag(log,interval(0.001,0.3))",
    "train.label_smoothing=interval(0,0.2)",
    "augment.translate=interval(0,0.15)",
    "augment.gamma=interval(0,0.6)",
    "augment.contrast=interval(0,0.6)",
    "augment.noise=interval(0,0.08)",
    "augment.blur=interval(0,1.5)",
)


def spec_of(overrides: Sequence[str]) -> TrainSpec:
    """The training that overrides resolve to; BadOverride."""
    return resolve(overrides)[0]


def axes(overrides: Sequence[str]) -> tuple[list[str], tuple[Axis, ...]]:
    """The plain overrides, and an axis for each sweep: lr=interval(0.1,1), lr=tag(log,interval(...)), n=range(1,9,2),
    model=choice(a,b); without any sweep those of `DEFAULT`.

    Raises BadOverride naming each sweep that cannot be read, names no setting, or leaves its setting's range.
    """
    read = [(text, _parsed(text)) for text in overrides]
    plain = [text for text, found in read if found is None or not found.is_sweep_override()]
    sweeps = [(text, found) for text, found in read if found is not None and found.is_sweep_override()]
    sweeps = sweeps or [(text, found) for text in DEFAULT if (found := _parsed(text)) is not None]
    made = [_axis(text, found) for text, found in sweeps]
    faults = [item for item in made if isinstance(item, Fault)]
    if not faults:
        faults = _outside([item for item in made if isinstance(item, Axis)])
    if faults:
        raise BadOverride("this is no space to search", faults)
    return plain, tuple(item for item in made if isinstance(item, Axis))


def _parsed(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def _axis(text: str, found: Override) -> Axis | Fault:
    name, sweep = found.key_or_group, found.value()
    known = {**kinds(Training), **dict.fromkeys(groups(Training), str)}
    if name not in known:
        return Fault("no such setting", text, "a setting or group of rounds train", repr(name))
    whole = known[name] is int
    if isinstance(sweep, ChoiceSweep):
        return Axis(name, options=tuple(_text(option) for option in sweep.list))
    if isinstance(sweep, RangeSweep) and sweep.start is not None and sweep.stop is not None:
        start, step = float(sweep.start), float(sweep.step)
        values = (start + i * step for i in range(math.ceil((float(sweep.stop) - start) / step)))
        return Axis(name, options=tuple(_text(int(value) if whole else value) for value in values))
    if isinstance(sweep, IntervalSweep) and sweep.start is not None and sweep.end is not None:
        low, high, log = float(sweep.start), float(sweep.end), "log" in sweep.tags
        if low < high and (low > 0 or not log):
            return Axis(name, low, high, log, whole)
    expected = "interval(low,high), tag(log,interval(low,high)), range(...) or choice(...)"
    return Fault("not a range to search", text, expected, next="put the larger end last; log needs a start above 0")


def _outside(found: Sequence[Axis]) -> list[Fault]:
    """The ends of each axis, held to the bounds of its setting."""
    faults: list[Fault] = []
    for axis in found:
        for end in axis.options or (_text(axis.low), _text(axis.high)):
            try:
                spec_of([f"{axis.name}={int(float(end)) if axis.whole else end}"])
            except BadOverride as error:
                faults += error.faults
    return faults


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(getattr(value, "text", value))
