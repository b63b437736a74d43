"""What runs in an Executor's job: a call, from standard input, and its result, to standard output.

The source of this module travels with the call, so that the container needs Python and nothing of
ours: it is standard library only, and imports nothing of this package.  Input and output are opened
by who starts the container, so nothing has to be mounted into it.  What the function itself prints
goes to standard error, which is the job's log.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import sys
import traceback
from types import CodeType
from typing import IO, Any, Final

MAGIC: Final = b"roadstead-result\n"


class Travelled(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports modules from the sources that came along, where they are not installed."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.sources:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def is_package(self, fullname: str) -> bool:
        return any(name.startswith(f"{fullname}.") for name in self.sources)

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname]

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.sources[fullname], f"<{fullname}>", "exec")


def main(stream: IO[bytes]) -> None:
    """Make the call that ``stream`` holds."""
    out = os.dup(1)
    os.dup2(2, 1)
    letter = pickle.load(stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path += letter["path"]
    sys.meta_path.append(Travelled(letter["sources"]))
    if sys.version_info[:2] != letter["version"]:
        here, there = (".".join(map(str, v)) for v in (sys.version_info[:2], letter["version"]))
        data = pickle.dumps(("refused", f"the job has Python {here}, its submitter {there}"))
    else:
        data = _call(letter["call"])
    with open(out, "wb") as file:
        file.write(MAGIC + len(data).to_bytes(8, "big") + data)


def _call(call: bytes) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]

    text = ""
    try:
        function, args, kwargs = pickle.loads(call)
        answer: tuple[Any, ...] = ("result", function(*args, **kwargs))
    except BaseException as error:  # whatever it is, it is the caller's
        text = "".join(traceback.format_exception(error))
        answer = ("raised", error.with_traceback(None), text)
        sys.stderr.write(text)
    sys.stdout.flush()
    try:
        data: bytes = cloudpickle.dumps(answer)
    except Exception as error:  # pickling runs code of the value's
        what = "exception" if text else "result"
        data = pickle.dumps(("refused", f"its {what} cannot be pickled: {error}\n{text}".strip()))
    return data
