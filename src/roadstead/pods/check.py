"""A manifest against the table of fields: every field known, everything of its type.

Pure.  What is wrong is named by its file and path: ``pod.yaml: spec.containers[1].foo``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from roadstead.core.printable import printable
from roadstead.errors import RequestError
from roadstead.pods import fields

_SUFFIXES: Final = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip

_LONGEST: Final = 400  # of a sentence
_INTEGERS: Final = 1 << 31
_QUANTITIES: Final = float(1 << 63)


def wrong(where: str, what: str, hint: str = "") -> RequestError:
    """The error for what stands at ``where``: one line, whatever a manifest has in it."""
    sentence = printable(f"{where}: {what}")
    if len(sentence) > _LONGEST:
        sentence = f"{sentence[: _LONGEST // 2]} … {sentence[-_LONGEST // 2 :]}"
    return RequestError(sentence, hint=hint)


def document(where: str, node: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The document with all nulls taken out, if it is one that we know; and which of its fields do
    nothing, each with the reason.  Raises RequestError.  ``where`` names the file."""
    if not isinstance(node, dict):
        raise wrong(where, "not a Kubernetes object", "it begins with apiVersion: and kind:")
    version, kind = node.get("apiVersion"), node.get("kind")
    names = isinstance(version, str) and isinstance(kind, str)
    schema = fields.KINDS.get((str(version), str(kind))) if names else None
    if schema is None:
        known = ", ".join(f"{kind} ({version})" for version, kind in fields.KINDS)
        what = f"kind {kind} of apiVersion {version} is not supported"
        raise wrong(where, what, f"what is: {known}")
    unused: list[tuple[str, str]] = []
    found = _object(where, "", node, schema, unused)
    return found, unused


def _object(
    where: str, path: str, node: Any, schema: fields.Schema, unused: list[tuple[str, str]]
) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise wrong(f"{where}: {path}", "not an object")
    found: dict[str, Any] = {}
    for name, value in node.items():
        below = f"{path}.{name}" if path else str(name)
        if name not in schema:
            raise wrong(f"{where}: {below}", "not supported", _similar(str(name), schema))
        if value is None:
            continue
        kind = schema[name]
        if isinstance(kind, fields.Unused):
            unused.append((below, kind.why))
        else:
            found[name] = _value(where, below, value, kind, unused)
    return found


def _value(where: str, path: str, value: Any, kind: Any, unused: list[tuple[str, str]]) -> Any:
    if isinstance(kind, dict):
        return _object(where, path, value, kind, unused)
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise wrong(f"{where}: {path}", "not an array")
        return [
            _object(where, f"{path}[{number}]", each, kind[0], unused)
            for number, each in enumerate(value)
        ]
    return scalar(f"{where}: {path}", value, kind)


def scalar(where: str, value: Any, kind: str) -> Any:
    """A value of a simple kind.  Raises RequestError."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    right = {
        fields.STRING: isinstance(value, str),
        fields.INTEGER: is_number,
        fields.BOOLEAN: isinstance(value, bool),
        fields.STRINGS: isinstance(value, list) and all(isinstance(v, str) for v in value),
        fields.MAP: isinstance(value, dict) and all(_is_text(each) for each in value.items()),
        fields.QUANTITIES: isinstance(value, dict),
        fields.PORT: is_number or isinstance(value, str),
        fields.QUANTITY: is_number or isinstance(value, (str, float)),
    }[kind]
    if not right:
        raise wrong(where, f"not {kind}", _quoted(value, kind))
    if kind == fields.INTEGER and not -_INTEGERS <= value < _INTEGERS:
        raise wrong(where, f"{value} is out of range")
    for text in _texts(value):
        _check_text(where, text, zero=kind == fields.MAP)
    if kind == fields.QUANTITIES:
        return {str(name): quantity(f"{where}.{name}", each) for name, each in value.items()}
    if kind == fields.QUANTITY:
        return quantity(where, value)
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (each for pair in value.items() for each in pair if isinstance(each, str))
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, str):
        yield value


def _check_text(where: str, text: str, *, zero: bool) -> None:
    """Files may have zero bytes in them; paths, arguments and variables not."""
    if "\0" in text and not zero:
        raise wrong(where, "has a zero byte in it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise wrong(where, "has half a surrogate pair in it, which is not text") from None


def _is_text(pair: tuple[Any, Any]) -> bool:
    return all(isinstance(each, str) for each in pair)


def _quoted(value: Any, kind: str) -> str:
    """What a number that should be a string is mended with: YAML takes 1, yes and 1.0 for what they
    look like."""
    flat = value if isinstance(value, list) else list(_scalars(value))
    loose = [each for each in flat if isinstance(each, (bool, int, float))]
    if kind in (fields.STRING, fields.STRINGS, fields.MAP) and loose:
        shown = str(loose[0]).lower()
        return f'put it in quotes: "{shown}"'
    return ""


def _scalars(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else [value]


def _similar(name: str, schema: fields.Schema) -> str:
    by_case = {each.lower(): each for each in schema}
    near = by_case.get(name.lower())
    return f"its name is {near}" if near else ""


def quantity(where: str, value: Any) -> float:
    """A quantity of Kubernetes: 500m, 1.5, 2Gi.  Raises RequestError."""
    text = str(value)
    number = text.rstrip("numkKMGTPEi")
    factor = _SUFFIXES.get(text[len(number) :], None) if number != text else 1
    try:
        if factor is None or isinstance(value, bool):
            raise ValueError(text)
        found = float(number) * factor
    except ValueError:
        raise wrong(where, f"{value!r} is not a quantity", "for instance 500m, 2, 512Mi") from None
    if found < 0:
        raise wrong(where, f"{value!r} is less than nothing")
    if not found < _QUANTITIES:
        raise wrong(where, f"{value!r} is more than there is")
    return found
