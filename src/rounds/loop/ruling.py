"""The rules in force: an event in the log, so that nothing that serves or decides composes a configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rounds.core.errors import DamagedData, Fault
from rounds.core.ids import plain, restore
from rounds.core.ports import Ports
from rounds.core.specs import CaptureSpec, GateSpec, MonitorSpec, PolicySpec, ServeSpec


@dataclass(frozen=True)
class Rules:
    """What the gate, the watch, the policy, the server and the keeping of images go by."""

    gate: GateSpec = field(default_factory=GateSpec)
    monitor: MonitorSpec = field(default_factory=MonitorSpec)
    policy: PolicySpec = field(default_factory=PolicySpec)
    serve: ServeSpec = field(default_factory=ServeSpec)
    capture: CaptureSpec = field(default_factory=CaptureSpec)

    def public(self) -> dict[str, Any]:
        """Group by group, name by name."""
        answer: dict[str, Any] = plain(self)
        return answer

    def overrides(self) -> list[str]:
        """What differs from the defaults, as configuration overrides; a later one wins."""
        found = []
        for group in fields(self):
            given, usual = plain(asdict(getattr(self, group.name))), plain(asdict(getattr(Rules(), group.name)))
            found += [f"{group.name}.{key}={_written(value)}" for key, value in given.items() if value != usual[key]]
        return found


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(f"'{item}'" for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def in_force(ports: Ports) -> Rules:
    """The rules of the last `policy` event, or the defaults; DamagedData where that event cannot be read."""
    events = ports.events.read(kinds=("policy",))
    if not events:
        return Rules()
    try:
        rules: Rules = restore(Rules, events[-1].evidence["rules"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        then = "`rounds audit` names the first entry that was changed"
        fault = Fault("the rules cannot be read", events[-1].id, "groups of rules", repr(error), then)
        raise DamagedData("the rules in force are damaged", [fault]) from error
    return rules


def change(ports: Ports, rules: Rules, *, who: str = "operator", why: str = "set on the command line") -> Rules:
    """Put other rules in force; what was decided before stays as it was decided."""
    ports.events.append("policy", who=who, why=why, evidence={"rules": plain(rules)})
    return rules
