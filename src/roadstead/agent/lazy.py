"""Of the standard library, what the packed node side imports when it is used, or not at all
(engines/slurm/lowering.py puts these in place of the imports).

A task's agent starts once for each task, and these modules were more than half of its start: json
for ``re`` and ``enum``, contextlib and functools for ``collections``, socket for its own enums; a
task without a mistake needs what a few of their functions in C do.

``json`` here gives what json gives: whatever its C halves do not take at once, a mistake above all,
is given to json itself.

Any Python from 3.9 on; imports nothing at once but what is in the interpreter.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, ClassVar, TypeAlias

    _Kind: TypeAlias = type[BaseException] | None

try:
    from _functools import partial  # type: ignore[import-not-found]
except ImportError:  # not CPython
    from functools import partial


class Module:
    """Stands for a module, one of ours as well, until the first of its names is asked for; then
    names are found here."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(__import__(self._name, None, None, ("__name__",)), name)
        setattr(self, name, found)
        return found


class _Context:
    """How json.loads reads, in words of its C half."""

    strict = True
    object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float

    def __init__(self, hook: Callable[[Any], Any] | None) -> None:
        self.object_hook = hook
        self.memo: dict[str, str] = {}


_BLANKS = " \t\n\r"


class _Json(Module):
    def loads(self, text: Any, *, object_hook: Callable[[Any], Any] | None = None) -> Any:
        try:
            from _json import make_scanner

            if isinstance(text, str):
                read = text
            elif text[:1] in (b"{", b"[") and b"\0" not in text[:4]:  # else it may be UTF-16
                read = text.decode("utf-8", "surrogatepass")
            else:
                raise ValueError
            begin = len(read) - len(read.lstrip(_BLANKS))
            scan = make_scanner(_Context(object_hook))  # type: ignore[arg-type]
            value, end = scan(read, begin)
            if not read[end:].strip(_BLANKS):
                return value
        except (ImportError, StopIteration, ValueError):
            pass
        return __import__("json").loads(text, object_hook=object_hook)

    def load(self, file: Any) -> Any:
        return self.loads(file.read())

    def dumps(
        self,
        value: Any,
        *,
        ensure_ascii: bool = True,
        separators: tuple[str, str] | None = None,
        **more: Any,
    ) -> str:
        try:
            from _json import encode_basestring, encode_basestring_ascii, make_encoder
        except ImportError:
            made = None
        else:
            encode = encode_basestring_ascii if ensure_ascii else encode_basestring
            item, key = separators or (", ", ": ")
            made = make_encoder({}, _refuse, encode, None, key, item, False, False, True)
        if made is None or more:
            text: str = __import__("json").dumps(
                value, ensure_ascii=ensure_ascii, separators=separators, **more
            )
            return text
        return "".join(made(value, 0))


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


class suppress:
    """``contextlib.suppress``."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: _Kind, error: BaseException | None, at: TracebackType | None) -> bool:
        return kind is not None and issubclass(kind, self._kinds)


class nullcontext:
    """``contextlib.nullcontext``."""

    def __init__(self, result: Any = None) -> None:
        self._result = result

    def __enter__(self) -> Any:
        return self._result

    def __exit__(self, *error: object) -> None:
        return None


class _Generated:
    """What a function of ``contextmanager`` returns."""

    def __init__(self, generator: Iterator[Any]) -> None:
        self._generator: Any = generator

    def __enter__(self) -> Any:
        return next(self._generator)

    def __exit__(self, kind: _Kind, error: BaseException | None, at: TracebackType | None) -> bool:
        try:
            if error is None:
                next(self._generator)
            else:
                self._generator.throw(error)
        except StopIteration as end:
            return error is not None and end is not error
        except BaseException as raised:
            if raised is error or (isinstance(error, StopIteration) and raised.__cause__ is error):
                return False  # it goes on as it came
            raise
        raise RuntimeError("a generator of contextmanager did not end")


def contextmanager(function: Callable[..., Iterator[Any]]) -> Callable[..., _Generated]:
    """``contextlib.contextmanager``, for with statements."""

    def made(*args: Any, **named: Any) -> _Generated:
        return _Generated(function(*args, **named))

    return made


class _Contextlib(Module):
    suppress = suppress
    nullcontext = nullcontext
    contextmanager = staticmethod(contextmanager)


class _Ctypes(Module):
    """What calls functions of libc: numbers, strings and their addresses, of ``_ctypes`` alone.
    ctypes itself makes three dozen types at its start, which takes a millisecond."""

    _CODES: ClassVar = {"c_char": "c", "c_char_p": "z", "c_int": "i", "c_long": "l", "c_ulong": "L"}

    def __getattr__(self, name: str) -> Any:
        import _ctypes

        if name in ("addressof", "get_errno"):
            found: Any = getattr(_ctypes, name)
        elif name == "c_size_t":  # as wide as long, on every Linux
            found = self.c_ulong
        elif name in self._CODES:
            kind: Any = _ctypes._SimpleCData
            found = type(kind)(name, (kind,), {"_type_": self._CODES[name]})
        else:
            return super().__getattr__(name)
        setattr(self, name, found)
        return found

    def CDLL(self, path: str | None, *arguments: Any, **more: Any) -> Any:
        if path is None and not arguments and more == {"use_errno": True}:
            return _Libc(self.c_int)
        return __import__("ctypes").CDLL(path, *arguments, **more)

    def create_string_buffer(self, content: Any, *size: int) -> Any:
        if size or not isinstance(content, bytes):
            return __import__("ctypes").create_string_buffer(content, *size)
        buffer = (self.c_char * (len(content) + 1))()
        buffer.value = content
        return buffer


class _Libc:
    """``ctypes.CDLL(None, use_errno=True)``."""

    def __init__(self, result: Any) -> None:
        import _ctypes

        module: Any = _ctypes
        self._handle = module.dlopen(None, 0)
        flags = module.FUNCFLAG_CDECL | module.FUNCFLAG_USE_ERRNO
        kind = module.CFuncPtr
        self._function = type(kind)("_Function", (kind,), {"_flags_": flags, "_restype_": result})

    def __getattr__(self, name: str) -> Any:
        found = self._function((name, self))
        setattr(self, name, found)
        return found


contextlib = _Contextlib("contextlib")
ctypes = _Ctypes("ctypes")
json = _Json("json")
copy = Module("copy")
enum = Module("enum")
heapq = Module("_heapq")  # what a loop needs is all there, in C
importlib = Module("importlib")
re = Module("re")
resource = Module("resource")
socket = Module("socket")
struct = Module("struct")
termios = Module("termios")

__all__ = ["partial"]
