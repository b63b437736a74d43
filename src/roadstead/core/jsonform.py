"""Dataclasses as JSON and back: how model values cross sockets and years.

Fields that are missing take their defaults and unknown ones are dropped, so that what a
neighbouring version wrote still loads.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")


def to_json(value: object) -> Any:
    """The JSON form of a model value: dataclasses become objects, tuples arrays."""
    if isinstance(value, (str, int, float)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    assert dataclasses.is_dataclass(value), f"{type(value).__name__} is not of the model"
    return {name: to_json(getattr(value, name)) for name in value.__dataclass_fields__}


def compact_json(value: object) -> Any:
    """The same without the fields that have their defaults, which ``from_json`` puts back: what is
    kept or sent by the hundred thousand."""
    if not dataclasses.is_dataclass(value):
        return to_json(value)
    found = {}
    for name, default in _defaults(type(value)):
        each = getattr(value, name)
        if each is not default and each != default:
            found[name] = compact_json(each)
    return found


_DEFAULTS: dict[type, list[tuple[str, object]]] = {}
_NO_DEFAULT: Final = object()


def _defaults(cls: type) -> list[tuple[str, object]]:
    known = _DEFAULTS.get(cls)
    if known is None:
        known = []
        for each in dataclasses.fields(cls):
            default: object = _NO_DEFAULT
            if each.default is not dataclasses.MISSING:
                default = each.default
            elif each.default_factory is not dataclasses.MISSING:
                default = each.default_factory()
            known.append((each.name, default))
        _DEFAULTS[cls] = known
    return known


def from_json(cls: type[T], data: Any) -> T:
    """The model value that ``to_json`` made ``data`` from.

    Fields that ``data`` lacks take their defaults and fields that we do not know are dropped, so
    that a record of a neighbouring version still loads.  Raises TypeError for a wrong shape.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__} wants an object, not {type(data).__name__}")
    loaders = _loaders(cls)
    return cls(**{name: loaders[name](item) for name, item in data.items() if name in loaders})


Loader = Callable[[Any], Any]


_LOADERS: dict[type, dict[str, Loader]] = {}


def _loaders(cls: type) -> dict[str, Loader]:
    """What turns each field's JSON into its value; found out once."""
    found = _LOADERS.get(cls)
    if found is None:
        names = vars(sys.modules[cls.__module__])
        hints = cls.__dict__.get("__hints__") or cls.__annotations__
        found = _LOADERS[cls] = {name: _loader(hint, names) for name, hint in hints.items()}
    return found


def _loader(hint: str, names: dict[str, Any]) -> Loader:
    """By an annotation's text: ``typing`` would evaluate it, which costs the node side a start, and
    Pythons before 3.10 cannot."""
    if hint.endswith(" | None"):
        some = _loader(hint.removesuffix(" | None"), names)
        return lambda item: None if item is None else some(item)
    if hint.startswith("tuple["):
        each = _loader(_first(hint[len("tuple[") : -1]), names)
        return lambda items: tuple([each(item) for item in items])
    kind = names.get(hint, _CHECKED.get(hint))
    if dataclasses.is_dataclass(kind):
        return lambda item: from_json(cast("type[Any]", kind), item)
    if isinstance(kind, enum.EnumMeta):
        return kind
    if kind is float:
        return lambda item: _checked(float(item) if type(item) is int else item, float)
    if kind is not None and kind in _CHECKED.values():
        return lambda item: _checked(item, kind)
    return lambda item: item


def _first(hints: str) -> str:
    """The first of several annotations with commas between them."""
    depth = 0
    for at, letter in enumerate(hints):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and not depth:
            return hints[:at]
    return hints


_CHECKED: Final[dict[str, type]] = {"int": int, "str": str, "bool": bool, "float": float}


def _checked(item: Any, kind: type) -> Any:
    if type(item) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {type(item).__name__}")
    return item
