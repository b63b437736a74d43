"""Dataclasses as JSON and back: how model values cross sockets and years.

Fields that are missing take their defaults and unknown ones are dropped, so that what a
neighbouring version wrote still loads.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from typing import Any, Final, TypeVar

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
    """What turns each field's JSON into its value; found out once, as hints are slow to read."""
    found = _LOADERS.get(cls)
    if found is None:
        hints = typing.get_type_hints(cls)
        found = _LOADERS[cls] = {name: _loader(hint) for name, hint in hints.items()}
    return found


def _loader(hint: Any) -> Loader:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        some = _loader(next(each for each in arguments if each is not type(None)))
        return lambda item: None if item is None else some(item)
    if dataclasses.is_dataclass(hint):
        return lambda item: from_json(typing.cast("type[Any]", hint), item)
    if origin is tuple:
        each = _loader(arguments[0])
        return lambda items: tuple([each(item) for item in items])
    if isinstance(hint, enum.EnumType):
        return hint
    if hint is float:
        return lambda item: _checked(float(item) if type(item) is int else item, float)
    if hint in (int, str, bool):
        return lambda item: _checked(item, hint)
    return lambda item: item


def _checked(item: Any, kind: type) -> Any:
    if type(item) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {type(item).__name__}")
    return item
