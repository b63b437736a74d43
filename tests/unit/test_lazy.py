"""What the packed agent has in place of modules that take long to import: it does what they do."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roadstead.agent import lazy

TEXTS = (
    *('{"a": [1, -2.5, 1e3, true, null]}', ' \n["\\u00e4\\ud83d\\ude00"]\t', '"x"', "3"),
    *("NaN", "-Infinity", "12345678901234567890"),
    *("", " ", "{", '{"a" 1}', "[1] 2", "nul", '["\t"]', "\ufeff[]", '{"a": 1,}'),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    {"a": [1, 2.5, True, None, "ä€\x00\"\ud800"], "b": {}}, {7: 2, None: 3, True: 4, 2.5: 5},
    [], (1, 2), "text", 3, 2.0, math.inf, None, False, {"x": object()}, {(1,): 2}, b"x",
)  # fmt: skip


def _outcome(call: Any, *args: Any, **named: Any) -> tuple[str, str]:
    try:
        return "gives", repr(call(*args, **named))
    except Exception as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("text", TEXTS)
def test_json_is_read_as_json_reads_it(text: str) -> None:
    assert _outcome(lazy.json.loads, text) == _outcome(json.loads, text)
    for encoding in ("utf-8", "utf-16"):
        data = text.encode(encoding)
        assert _outcome(lazy.json.loads, data) == _outcome(json.loads, data)
    assert _outcome(lazy.json.loads, text, object_hook=list) == _outcome(
        json.loads, text, object_hook=list
    )


def test_what_is_no_text_in_utf_8() -> None:
    assert _outcome(lazy.json.loads, b'["\xff"]') == _outcome(json.loads, b'["\xff"]')


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    "how", [{}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}]
)
def test_json_is_written_as_json_writes_it(value: Any, how: dict[str, Any]) -> None:
    assert _outcome(lazy.json.dumps, value, **how) == _outcome(json.dumps, value, **how)


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert _outcome(lazy.json.dumps, circle) == _outcome(json.dumps, circle)


def test_other_names_are_the_modules_own() -> None:
    assert lazy.json.JSONDecodeError is json.JSONDecodeError
    assert lazy.contextlib.ExitStack is contextlib.ExitStack
    with pytest.raises(AttributeError):
        lazy.json.no_such_name()


def _managed(module: Any, raised: type[BaseException] | None, inner: str) -> list[str]:
    """What happens around a with block that raises ``raised``, in a generator that does ``inner``
    about it."""
    seen: list[str] = []

    @module.contextmanager
    def around() -> Iterator[int]:
        seen.append("in")
        try:
            yield 3
            if inner == "goes on":
                yield 4
        except KeyError:
            seen.append("caught")
            if inner == "raises":
                raise
            if inner == "raises another":
                raise ValueError from None
            if inner == "goes on":
                yield 4
        finally:
            seen.append("out")

    try:
        with around() as value:
            seen.append(str(value))
            if raised is not None:
                raise raised
    except BaseException as error:
        seen.append(type(error).__name__)
    return seen


@pytest.mark.parametrize("inner", ["swallows", "raises", "raises another", "goes on"])
@pytest.mark.parametrize("raised", [None, KeyError, OSError, StopIteration])
def test_context_managers_are_contextlib_s(raised: type[BaseException] | None, inner: str) -> None:
    assert _managed(lazy, raised, inner) == _managed(contextlib, raised, inner)


def test_suppress_and_nullcontext() -> None:
    with lazy.suppress(OSError, KeyError):
        raise FileNotFoundError
    with pytest.raises(ValueError, match="x"), lazy.suppress(OSError):
        raise ValueError("x")
    with lazy.nullcontext(4) as value:
        assert value == 4


def _asked_of_libc(module: Any) -> list[Any]:
    """What functions of libc say to numbers, strings and their addresses, by ``module``."""
    libc = module.CDLL(None, use_errno=True)
    text = module.create_string_buffer(b"/no/such/place")
    said = [
        libc.access(text, 0),
        module.get_errno(),
        libc.access(module.c_char_p(b"/"), module.c_int(0)),
        libc.strlen(module.c_ulong(module.addressof(text))),
        libc.strnlen(text, module.c_size_t(3)),
        libc.abs(module.c_long(-4)),
        [type(each).__name__ for each in (module.c_int(7), module.c_ulong(7), module.c_size_t(7))],
        (module.c_char * 3)(b"a", b"b").raw,
        module.create_string_buffer(5).raw,
        hasattr(libc, "no_such_function"),
    ]
    libc.labs.restype = module.c_long
    return [*said, libc.labs(module.c_long(-(2**40)))]


def test_libc_is_called_as_ctypes_calls_it() -> None:
    assert _asked_of_libc(lazy.ctypes) == _asked_of_libc(ctypes)
    assert _asked_of_libc(lazy.ctypes)[1] == errno.ENOENT


def test_what_else_is_in_ctypes_is_ctypes_own() -> None:
    assert lazy.ctypes.Structure is ctypes.Structure
    assert isinstance(lazy.ctypes.CDLL("libc.so.6"), ctypes.CDLL)


def test_a_module_of_ours_is_imported_when_it_is_used() -> None:
    module = lazy.Module("roadstead.core.names")
    from roadstead.core import names

    assert module.__dict__.keys() == {"_name"}
    for each in dir(names):
        if not each.startswith("__"):
            assert getattr(module, each) is getattr(names, each)


def test_nothing_is_imported_at_once() -> None:
    path = Path(lazy.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(path)!r}); old = set(sys.modules); "
    code += "import roadstead.agent.lazy as lazy; lazy.json.loads('[1]'); lazy.json.dumps([1]); "
    code += "print(*sorted(set(sys.modules) - old))"
    argv = [sys.executable, "-ISc", code]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert set(said) - {"__future__", "roadstead", "roadstead.agent", "roadstead.agent.lazy"} == {
        "_functools", "_json",
    }  # fmt: skip
