"""Decompressing a block of known greatest length, whatever it was compressed with.

Blocks come from files that anybody may have made.  Each decoder here is told how much room there is
and writes no more; what does not fit, or is no such data, is a ValueError.  zlib and xz are
Python's own.  For zstd, lz4 and lzo the C library that the distribution's own tools use is called
(its function that checks bounds): Python before 3.14 has no zstd, and none has the others.
"""

from __future__ import annotations

import ctypes
import functools
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Final

# An xz block may ask for a dictionary of 4 GiB; block devices' blocks need none above their size.
_XZ_MEMORY: Final = 64 << 20

Decoder = Callable[[bytes, int], bytes]


class MissingLibrary(Exception):
    """The C library for a method is not on this machine: ``method``, and Debian's ``package``."""

    def __init__(self, method: str, package: str) -> None:
        super().__init__(f"{method}: {package} is not installed")
        self.method = method
        self.package = package


def decoder(method: str) -> Decoder:
    """The decoder for ``gzip``, ``lzma``, ``xz``, ``zstd``, ``lz4`` or ``lzo``: it is called with
    the data and the greatest length of the result.  Raises MissingLibrary."""
    return _DECODERS[method]()


def _inflate(data: bytes, room: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, room)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not stream.eof and stream.decompress(stream.unconsumed_tail, 1):
        raise ValueError("longer than it may be")
    if not stream.eof:
        raise ValueError("cut off")
    return found


def _unxz(data: bytes, room: int, *, form: int) -> bytes:
    stream = lzma.LZMADecompressor(format=form, memlimit=_XZ_MEMORY)
    try:
        found = stream.decompress(data, room)
        if not stream.eof and stream.decompress(b"", 1):
            raise ValueError("longer than it may be")
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(str(error)) from None
    return found


def _library(method: str, file: str, package: str) -> Any:
    try:
        return ctypes.CDLL(file)
    except OSError:
        raise MissingLibrary(method, package) from None


@functools.cache
def _zstd() -> Decoder:
    library = _library("zstd", "libzstd.so.1", "libzstd1")
    decompress, is_error = library.ZSTD_decompress, library.ZSTD_isError
    decompress.restype, is_error.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
    decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]

    def decode(data: bytes, room: int) -> bytes:
        target = ctypes.create_string_buffer(room)
        length = decompress(target, room, data, len(data))
        if is_error(length):
            raise ValueError("not zstd data, or longer than it may be")
        return target.raw[:length]

    return decode


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer: where, how long, how far."""

    _fields_ = (("place", ctypes.c_void_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t))


class ZstdStream:
    """A zstd frame, decompressed as it comes: as bz2's and lzma's decompressors.

    The library refuses frames that want a window of more than 128 MiB.
    """

    def __init__(self) -> None:
        """Raises MissingLibrary."""
        library = self._library = _library("zstd", "libzstd.so.1", "libzstd1")
        library.ZSTD_createDStream.restype = ctypes.c_void_p
        library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
        pointer = ctypes.POINTER(_Buffer)
        library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, pointer, pointer]
        library.ZSTD_decompressStream.restype = ctypes.c_size_t
        library.ZSTD_isError.argtypes = [ctypes.c_size_t]
        self._stream = library.ZSTD_createDStream()
        self._pending = b""
        self._target = ctypes.create_string_buffer(0)
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """The next bytes, ``max_length`` of them at the most.  Raises ValueError."""
        data = self._pending + data if self._pending else data
        if len(self._target) != max_length:
            self._target = ctypes.create_string_buffer(max_length)
        source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        target = _Buffer(ctypes.cast(self._target, ctypes.c_void_p), max_length, 0)
        left = self._library.ZSTD_decompressStream(
            self._stream, ctypes.byref(target), ctypes.byref(source)
        )
        if self._library.ZSTD_isError(left):
            raise ValueError("not zstd data, or it wants too much memory")
        self._pending = data[source.at :]
        if left == 0:
            self.eof = True
            self.unused_data, self._pending = self._pending, b""
        self.needs_input = not self._pending and target.at < max_length
        return ctypes.string_at(self._target, target.at)

    def __del__(self) -> None:
        if stream := getattr(self, "_stream", None):
            self._library.ZSTD_freeDStream(stream)


@functools.cache
def _lz4() -> Decoder:
    decompress = _library("lz4", "liblz4.so.1", "liblz4-1").LZ4_decompress_safe
    decompress.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]

    def decode(data: bytes, room: int) -> bytes:
        target = ctypes.create_string_buffer(room)
        length = decompress(data, target, len(data), room)
        if length < 0:
            raise ValueError("not lz4 data, or longer than it may be")
        return target.raw[:length]

    return decode


@functools.cache
def _lzo() -> Decoder:
    decompress = _library("lzo", "liblzo2.so.2", "liblzo2-2").lzo1x_decompress_safe
    decompress.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t),
        ctypes.c_void_p,
    ]  # fmt: skip

    def decode(data: bytes, room: int) -> bytes:
        target, length = ctypes.create_string_buffer(room), ctypes.c_size_t(room)
        if decompress(data, len(data), target, ctypes.byref(length), None):
            raise ValueError("not lzo data, or longer than it may be")
        return target.raw[: length.value]

    return decode


_DECODERS: Final[dict[str, Callable[[], Decoder]]] = {
    "gzip": lambda: _inflate,
    "lzma": lambda: functools.partial(_unxz, form=lzma.FORMAT_ALONE),
    "xz": lambda: functools.partial(_unxz, form=lzma.FORMAT_XZ),
    "zstd": _zstd,
    "lz4": _lz4,
    "lzo": _lzo,
}
