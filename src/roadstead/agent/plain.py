"""What the packed node side has in place of ``dataclasses``, ``enum.StrEnum`` and ``typing``
(engines/slurm/lowering.py): a class that was a dataclass is written out there, and takes from here
what all of them share.

Any Python from 3.9 on; imports nothing at once.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Missing:
    """No default."""


MISSING = _Missing()


class Field:
    """A field, as ``dataclasses.fields`` tells of it."""

    __slots__ = ("default", "default_factory", "name")

    def __init__(self, name: str, default: Any, default_factory: Any) -> None:
        self.name, self.default, self.default_factory = name, default, default_factory


def fields(cls: Any) -> list[Field]:
    init = cls.__init__
    positional = init.__code__.co_varnames[: init.__code__.co_argcount]
    defaults = init.__defaults__ or ()
    known = dict(zip(positional[len(positional) - len(defaults) :], defaults))  # noqa: B905
    known.update(init.__kwdefaults__ or {})
    factories = getattr(cls, "_factories", {})
    return [
        Field(name, known.get(name, MISSING), factories.get(name, MISSING))
        for name in cls.__dataclass_fields__
    ]


def is_dataclass(value: Any) -> bool:
    return hasattr(value, "__dataclass_fields__")


def replace(value: Any, /, **changes: Any) -> Any:
    for name in value.__dataclass_fields__:
        if name not in changes:
            changes[name] = getattr(value, name)
    return type(value)(**changes)


def asdict(value: Any) -> Any:
    if is_dataclass(value):
        return {name: asdict(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, (list, tuple)):
        return type(value)([asdict(each) for each in value])
    if isinstance(value, dict):
        return {asdict(name): asdict(each) for name, each in value.items()}
    return value


def get_args(words: Any) -> Any:
    """Of a ``Literal``, which is a tuple there."""
    return words


def pairwise(values: Any) -> Any:
    """``itertools.pairwise``, from 3.10 on."""
    every = list(values)
    return zip(every, every[1:])  # noqa: B905, RUF007


def _values(value: Any) -> tuple[Any, ...]:
    return tuple([getattr(value, name) for name in value._compared])


def equal(left: Any, right: Any) -> Any:
    if type(left) is not type(right):
        return NotImplemented
    return _values(left) == _values(right)


def less(left: Any, right: Any) -> Any:
    if type(left) is not type(right):
        return NotImplemented
    return _values(left) < _values(right)


def hashed(value: Any) -> int:
    return hash(_values(value))


def shown(value: Any) -> str:
    inner = ", ".join([f"{name}={getattr(value, name)!r}" for name in value._shown])
    return f"{type(value).__qualname__}({inner})"


def __getattr__(name: str) -> Any:
    """``StrEnum``, made when it is asked for: Python has one from 3.11 on."""
    if name != "StrEnum":
        raise AttributeError(name)
    import enum

    made = getattr(enum, "StrEnum", None)
    if made is None:

        class StrEnum(str, enum.Enum):  # noqa: UP042
            __str__ = str.__str__
            __format__ = str.__format__  # type: ignore[assignment]

        made = StrEnum
    globals()["StrEnum"] = made
    return made
