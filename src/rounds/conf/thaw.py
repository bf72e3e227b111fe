"""Copies of the frozen core specs that Hydra will override, and the way back.

Hydra refuses overrides on frozen dataclasses, and knows enums by name where people write their values: a thawed copy is
not frozen, and its enums are named by their values. `rounds.core.ids.restore` makes the frozen spec of what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_type_hints


@cache
def thawed(kind: type[Any]) -> type[Any]:
    """The dataclass without its frost, and so for the dataclasses inside it."""
    hints = get_type_hints(kind)
    parts = [(part.name, _thawed_hint(hints[part.name]), _default(part, hints[part.name])) for part in fields(kind)]
    return make_dataclass(kind.__name__, parts)


def kinds(kind: type[Any], prefix: str = "") -> Mapping[str, type[Any]]:
    """The type of each setting by its dotted name: train.lr, imaging.size."""
    found: dict[str, type[Any]] = {}
    for name, hint in get_type_hints(kind).items():
        found |= kinds(hint, f"{prefix}{name}.") if is_dataclass(hint) else {prefix + name: hint}
    return found


@cache
def _thawed_enum(kind: type[Enum]) -> Any:
    return Enum(kind.__name__, {member.value: member.value for member in kind})


def _thawed_hint(hint: Any) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return thawed(hint)
    return _thawed_enum(hint) if isinstance(hint, type) and issubclass(hint, Enum) else hint


def _default(part: Field[Any], hint: Any) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return field(default_factory=thawed(hint))
    if isinstance(part.default, Enum):
        return _thawed_enum(type(part.default))[part.default.value]
    assert part.default is not MISSING, f"{part.name} has no default"
    return part.default
