"""A PMIx server for the tasks of one step, by libpmix through ctypes.

libpmix has threads of its own, so the server lives in a process of its own (step/pmix.py), which
does nothing else.  All tasks are on this machine and are local to it: what they exchange at a fence
needs no other server, and comes back as it went.

The structures and numbers are those of pmix_server.h and pmix_common.h of PMIx 3 and 4, whose
layout the PMIx standard fixes.  Arrays of pmix_info_t are made by the library itself.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

NAME: Final = "libpmix.so.2"
_SUCCEEDED: Final = -157  # PMIX_OPERATION_SUCCEEDED: done, no callback will follow
_SECONDS: Final = 10.0
# pmix_data_type_t
_BOOL, _STRING, _UINT16, _UINT32, _ARRAY, _RANK = 1, 3, 13, 14, 39, 40
_LONGEST_NAMESPACE: Final = 255

Item = tuple[str, int, Any]


class _Proc(ctypes.Structure):
    """pmix_proc_t"""

    _fields_ = (("nspace", ctypes.c_char * (_LONGEST_NAMESPACE + 1)), ("rank", ctypes.c_uint32))


class _Array(ctypes.Structure):
    """pmix_data_array_t"""

    _fields_ = (
        ("type", ctypes.c_uint16),
        ("size", ctypes.c_size_t),
        ("array", ctypes.c_void_p),
    )


_P, _N = ctypes.c_void_p, ctypes.c_size_t
_DONE = ctypes.CFUNCTYPE(None, ctypes.c_int, _P)  # pmix_op_cbfunc_t
_MODEX = ctypes.CFUNCTYPE(None, ctypes.c_int, _P, _N, _P, _P, _P)  # pmix_modex_cbfunc_t
_ABOUT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Proc), _P, _P, _P)
_ABORT = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(_Proc), _P, ctypes.c_int, ctypes.c_char_p, _P, _N, _P, _P
)
_FENCE = ctypes.CFUNCTYPE(ctypes.c_int, _P, _N, _P, _N, _P, _N, _P, _P)
# pmix_server_module_t, which begins with these; the rest stays NULL: not offered.
_CALLS: Final = ("client_connected", "client_finalized", "abort", "fence_nb")
_LATER_CALLS: Final = 24


class _Module(ctypes.Structure):
    _fields_ = (*[(name, _P) for name in _CALLS], ("others", _P * _LATER_CALLS))


def is_there() -> bool:
    """Whether this machine has the library."""
    try:
        ctypes.CDLL(NAME)
    except OSError:
        return False
    return True


class Server:
    """The server of a namespace of so many tasks.  ``abort`` is called, from a thread of the
    library's, with a task that wants the step to end, its exit code and what it says.

    Raises OSError where the library is not there or does not do as it is told.
    """

    def __init__(self, directory: str, abort: Callable[[int, int, str], None]) -> None:
        self._library = ctypes.CDLL(NAME, mode=ctypes.RTLD_GLOBAL)
        self._library.PMIx_Info_list_start.restype = _P
        self._library.PMIx_Info_list_add.argtypes = [_P, ctypes.c_char_p, _P, ctypes.c_uint16]
        self._library.PMIx_Info_list_convert.argtypes = [_P, ctypes.POINTER(_Array)]
        self._library.PMIx_Info_list_release.argtypes = [_P]
        self._abort = abort
        self._kept: list[object] = []  # what the library points to
        module = _Module()
        functions = (
            _ABOUT(lambda proc, *_: _SUCCEEDED),
            _ABOUT(lambda proc, *_: _SUCCEEDED),
            _ABORT(self._on_abort),
            _FENCE(_on_fence),
        )
        for name, function in zip(_CALLS, functions, strict=True):
            setattr(module, name, ctypes.cast(function, _P))
        self._kept += [module, functions]
        places = self._infos(
            [("pmix.srvr.tmpdir", _STRING, directory), ("pmix.sys.tmpdir", _STRING, directory)]
        )
        self._call("PMIx_server_init", ctypes.byref(module), _P(places.array), _N(places.size))

    def serve(self, namespace: str, size: int, directory: str) -> list[dict[str, str]]:
        """Make the namespace; the variables by which each of its tasks finds us.  ``directory`` is
        where they may have files, "" if they find a place for themselves."""
        host = os.uname().nodename
        ranks = ",".join(map(str, range(size)))
        job: list[Item] = [
            ("pmix.jobid", _STRING, namespace),
            *[(f"pmix.{name}", _UINT32, size) for name in _SIZES],
            ("pmix.num.nodes", _UINT32, 1),
            ("pmix.job.napps", _UINT32, 1),
            ("pmix.nmap", _STRING, self._generated("PMIx_generate_regex", host)),
            ("pmix.pmap", _STRING, self._generated("PMIx_generate_ppn", ranks)),
            ("pmix.lpeers", _STRING, ranks),
            ("pmix.lldr", _RANK, 0),
            ("pmix.aldr", _RANK, 0),
        ]
        if directory:
            job += [("pmix.tmpdir", _STRING, directory), ("pmix.nsdir", _STRING, directory)]
        for rank in range(size):
            of_task: list[Item] = [
                ("pmix.rank", _RANK, rank),
                ("pmix.grank", _RANK, rank),
                ("pmix.lrank", _UINT16, rank),
                ("pmix.nrank", _UINT16, rank),
                ("pmix.appnum", _UINT32, 0),
                ("pmix.nodeid", _UINT32, 0),
                ("pmix.hname", _STRING, host),
            ]
            job.append(("pmix.pdata", _ARRAY, self._infos(of_task)))
        infos = self._infos(job)
        name = namespace.encode().ljust(_LONGEST_NAMESPACE + 1, b"\0")
        self._wait("PMIx_server_register_nspace", name, size, _P(infos.array), _N(infos.size))
        found = []
        for rank in range(size):
            proc = _Proc(namespace.encode(), rank)
            ids = ctypes.c_uint32(os.getuid()), ctypes.c_uint32(os.getgid())
            self._wait("PMIx_server_register_client", ctypes.byref(proc), *ids, None)
            env = ctypes.POINTER(ctypes.c_char_p)()
            self._call("PMIx_server_setup_fork", ctypes.byref(proc), ctypes.byref(env))
            found.append(_variables(env))
        return found

    def _on_abort(self, proc: Any, _: object, code: int, said: bytes | None, *rest: object) -> int:
        self._abort(proc[0].rank, code, (said or b"").decode(errors="replace"))
        return _SUCCEEDED

    def _call(self, name: str, *arguments: object) -> int:
        status: int = getattr(self._library, name)(*arguments)
        if status not in (0, _SUCCEEDED):
            raise OSError(None, f"{name} answers {status}", NAME)
        return status

    def _wait(self, name: str, *arguments: object) -> None:
        """Call what answers by a callback."""
        done = threading.Event()
        statuses: list[int] = []

        def answer(status: int, _: object) -> None:
            statuses.append(status)
            done.set()

        callback = _DONE(answer)
        self._kept.append(callback)
        if self._call(name, *arguments, callback, None) == _SUCCEEDED:
            return
        if not done.wait(_SECONDS) or statuses[0] not in (0, _SUCCEEDED):
            raise OSError(None, f"{name} answers {statuses or 'nothing'}", NAME)

    def _generated(self, name: str, text: str) -> str:
        made = ctypes.c_char_p()
        self._call(name, text.encode(), ctypes.byref(made))
        return (made.value or b"").decode()

    def _infos(self, items: Sequence[Item]) -> _Array:
        """An array of pmix_info_t."""
        listed = self._library.PMIx_Info_list_start()
        for key, kind, value in items:
            self._kept.append(held := _held(kind, value))
            self._call("PMIx_Info_list_add", listed, key.encode(), ctypes.cast(held, _P), kind)
        array = _Array()
        self._call("PMIx_Info_list_convert", listed, ctypes.byref(array))
        self._library.PMIx_Info_list_release(listed)
        self._kept.append(array)
        return array


_SIZES: Final = ("univ.size", "job.size", "max.size", "local.size", "node.size")


def _held(kind: int, value: Any) -> Any:
    """A pointer to a value of this type."""
    if kind == _STRING:
        return ctypes.c_char_p(value.encode())
    if kind == _ARRAY:
        return ctypes.pointer(value)
    types = {_UINT16: ctypes.c_uint16, _BOOL: ctypes.c_bool}
    return ctypes.pointer(types.get(kind, ctypes.c_uint32)(value))


def _on_fence(
    procs: object, count: int, infos: object, number: int, data: int, size: int,
    answer: int, handle: int,
) -> int:  # fmt: skip
    """All have arrived, as all are ours: what they have brought is what they take away."""
    _MODEX(answer)(0, data, size, handle, None, None)
    return 0


def _variables(env: Any) -> dict[str, str]:
    found, at = {}, 0
    while env[at]:
        name, _, value = env[at].decode("utf-8", "surrogateescape").partition("=")
        found[name] = value
        at += 1
    return found
