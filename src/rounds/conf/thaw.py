"""Copies of the frozen core specs that Hydra will override, and the way back.

Hydra refuses overrides on frozen dataclasses, and knows enums by name where people write their values: a thawed copy is
not frozen, and its enums are named by their values. `rounds.core.ids.restore` makes the frozen spec of what comes out.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from enum import Enum
from typing import Any, get_type_hints

# Hydra merges by identity of types, so there is one thawed copy of each kind.
_THAWED: dict[type[Any], Any] = {}


def thawed(kind: type[Any]) -> Any:
    """The dataclass without its frost, and so for the dataclasses inside it; or the enum named by its values."""
    if kind not in _THAWED:
        if issubclass(kind, Enum):
            _THAWED[kind] = Enum(kind.__name__, {member.value: member.value for member in kind})
        else:
            hints = get_type_hints(kind)
            parts = [(part.name, _hint(hints[part.name]), _default(part, hints[part.name])) for part in fields(kind)]
            _THAWED[kind] = make_dataclass(kind.__name__, parts)
    return _THAWED[kind]


def thaw(spec: Any) -> Any:
    """The thawed copy of a frozen spec, with its values."""
    if isinstance(spec, Enum):
        return thawed(type(spec))[spec.value]
    if not is_dataclass(spec):
        return spec
    return thawed(type(spec))(**{part.name: thaw(getattr(spec, part.name)) for part in fields(spec)})


def kinds(kind: type[Any], prefix: str = "") -> dict[str, Any]:
    """The type of each setting by its dotted name, train.lr, and of each group of settings, train."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        found[prefix + name] = hint
        if isinstance(hint, type) and is_dataclass(hint):
            found |= kinds(hint, f"{prefix}{name}.")
    return found


def _hint(hint: Any) -> Any:
    inside = isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, Enum))
    return thawed(hint) if inside else hint


def _default(part: Field[Any], hint: Any) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return field(default_factory=thawed(hint))
    assert part.default is not MISSING, f"{part.name} has no default"
    return thaw(part.default)
