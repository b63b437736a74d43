"""A blob as it is read: inflated, measured and digested on the way, never held in memory.

A thread of its own reads, digests and inflates, chunk by chunk, while the other thread makes files:
zlib and hashlib work without the interpreter's lock.  The queue between them is short, so a layer
of any size takes some megabytes.

gzip comes from `isal` or `zlib_ng` where one of them is installed (they inflate two to three times
as fast), else from the standard library's zlib; zstd from Python 3.14, `backports.zstd`, or else
libzstd.  (`zstandard` cannot bound what it gives at a time, and 256 KiB can become 8 GiB.)
"""

from __future__ import annotations

import hashlib
import importlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from roadstead.errors import ImageError
from roadstead.host import codecs

_READ: Final = 256 << 10
_CHUNK: Final = 1 << 20
_AHEAD: Final = 8
# What a layer may become.  deflate reaches 1032:1 only for a single repeated byte.
_BOMB_FROM: Final = 4 << 30
_BOMB_RATIO: Final = 500


class Inflater(Protocol):
    """zlib's decompressobj, as far as it is used here."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _first(names: tuple[str, ...]) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _gzip() -> Callable[[], Inflater]:
    module = _first(("isal.isal_zlib", "zlib_ng.zlib_ng", "zlib"))
    return lambda: module.decompressobj(wbits=31)


class _Buffered:
    """A decompressor of the standard library's newer shape (bz2, lzma, zstd) in zlib's."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.unconsumed_tail = b""

    @property
    def eof(self) -> bool:
        return bool(self.inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self.inner.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found: bytes = self.inner.decompress(data, max_length)
        # It keeps what it has not used, and wants to be called again with nothing.
        self.unconsumed_tail = b"" if self.inner.needs_input or self.inner.eof else _MORE
        return found


_MORE: Final = b"more"


def _zstd() -> Callable[[], Inflater]:
    module = _first(("compression.zstd", "backports.zstd"))
    if module is not None:
        return lambda: _Buffered(module.ZstdDecompressor())
    try:
        codecs.ZstdStream()
    except codecs.MissingLibrary:
        raise ImageError(
            "a layer is compressed with zstd, and libzstd1 is not installed",
            hint="apt install libzstd1, or pip install backports.zstd",
        ) from None
    return lambda: _Buffered(codecs.ZstdStream())


def _bzip2() -> Callable[[], Inflater]:
    import bz2

    return lambda: _Buffered(bz2.BZ2Decompressor())


def _xz() -> Callable[[], Inflater]:
    import lzma

    return lambda: _Buffered(lzma.LZMADecompressor(memlimit=512 << 20))


_MAGIC: Final[tuple[tuple[bytes, str, Callable[[], Callable[[], Inflater]]], ...]] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"BZh", "bzip2", _bzip2),
    (b"\xfd7zXZ\x00", "xz", _xz),
)


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins like this is inflated when it is read as a Blob."""
    return any(head.startswith(magic) for magic, _, _ in _MAGIC)


class Blob:
    """A blob being read: ``read``, ``copy`` and ``skip`` of what is in it, uncompressed.

    ``fd`` is read from ``offset`` on (None: from where it is) for ``size`` bytes (-1: to its end)
    and is closed at the end.  ``digest`` is that of the bytes as they are, ``diff_id`` of what is
    in them; "" is not checked.  All errors are ImageErrors that name ``what``.
    """

    def __init__(
        self,
        fd: int,
        what: str,
        *,
        size: int = -1,
        digest: str = "",
        diff_id: str = "",
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.what = what
        self.taken = 0  # bytes as they are
        self.given = 0  # bytes of what is in them
        self._fd = fd
        self._size = size
        self._digest = digest
        self._diff_id = diff_id
        self._tell = tell
        self._inner = hashlib.sha256()
        self._outer = hashlib.sha256()
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._stopped = False
        self._chunk = b""
        self._at = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- the thread that reads ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._inflate()
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._stopped:
            try:
                self._queue.put(item, timeout=1.0)
                return
            except queue.Full:
                continue

    def _raw(self) -> bytes:
        """The next bytes as they are; b"" at the end."""
        wanted = _READ if self._size < 0 else min(_READ, self._size - self.taken)
        data = os.read(self._fd, wanted) if wanted else b""
        if not data and self._size > self.taken:
            raise ImageError(
                f"{self.what}: it ends after {self.taken} of {self._size} bytes",
                hint="fetch it again",
            )
        self._outer.update(data)
        self.taken += len(data)
        if self._tell and data:
            self._tell(len(data))
        return data

    def _give(self, data: bytes) -> None:
        self._inner.update(data)
        self.given += len(data)
        if self.given > _BOMB_FROM and self.given > _BOMB_RATIO * self.taken:
            raise ImageError(
                f"{self.what}: {self.taken} bytes have become {self.given}, and it goes on: "
                "that is not a layer but a bomb"
            )
        self._put(data)

    def _inflate(self) -> None:
        data = self._raw()
        while data and len(data) < 8 and (more := self._raw()):
            data += more
        make = next((make for magic, _, make in _MAGIC if data.startswith(magic)), None)
        if make is None:
            same = True
            while data and not self._stopped:
                self._give(data)
                data = self._raw()
        else:
            same = False
            self._inflate_all(data, make())
        if self._stopped:
            return
        if self._size < 0 or self.taken < self._size:
            while self._raw():
                pass  # what follows the last member counts for the digest
        self._check(same)

    def _inflate_all(self, data: bytes, make: Callable[[], Inflater]) -> None:
        """Members one after the other, as gzip(1) reads them; zeros may follow the last."""
        while data and not self._stopped:
            inflater = make()
            while not inflater.eof and not self._stopped:
                try:
                    found = inflater.decompress(data, _CHUNK)
                except Exception as error:  # each library has its own
                    raise ImageError(f"{self.what}: damaged: {error}") from None
                if found:
                    self._give(found)
                data = inflater.unconsumed_tail
                if data is _MORE:
                    data = b""
                elif not data and not inflater.eof:
                    if len(found) == _CHUNK:
                        continue  # it may hold more than it was asked for
                    data = self._raw()
                    if not data:
                        raise ImageError(f"{self.what}: damaged: it ends in the middle")
            data = inflater.unused_data or self._raw()
            while data and not data.strip(b"\0"):
                data = self._raw()

    def _check(self, same: bool) -> None:
        outer = f"sha256:{self._outer.hexdigest()}"
        inner = f"sha256:{self._inner.hexdigest()}"
        if self._digest and outer != self._digest:
            raise ImageError(
                f"{self.what}: its digest is {outer}, not what the manifest says",
                hint="it is damaged or was exchanged: fetch it again",
            )
        if self._diff_id and inner != self._diff_id:
            raise ImageError(
                f"{self.what}: its content has the digest {inner}, not {self._diff_id} as the "
                "configuration says",
                hint="the image is damaged: build or fetch it again",
            )
        self.outer, self.inner = outer, inner

    # -- the thread that uses it -------------------------------------------------------------------

    def _next(self) -> bool:
        """Go on to the next chunk; False at the end."""
        if self._ended:
            return False
        item = self._queue.get()
        if item is None:
            self._ended = True
            self._chunk, self._at = b"", 0
            return False
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        self._chunk, self._at = item, 0
        return True

    def read(self, count: int) -> bytes:
        """``count`` bytes; fewer at the end alone."""
        at = self._at
        if at + count <= len(self._chunk):
            self._at = at + count
            return self._chunk[at : at + count]
        parts = [self._chunk[at:]]
        left = count - len(parts[0])
        self._at = len(self._chunk)
        while left and self._next():
            parts.append(self._chunk[:left])
            self._at = len(parts[-1])
            left -= self._at
        return b"".join(parts)

    def copy(self, count: int, write: Callable[[memoryview], object]) -> None:
        """Hand ``count`` bytes to ``write`` without copying them.  Raises ImageError at the end."""
        while count:
            have = len(self._chunk) - self._at
            if not have:
                if not self._next():
                    raise ImageError(f"{self.what}: damaged: it ends in the middle of a file")
                continue
            some = min(have, count)
            write(memoryview(self._chunk)[self._at : self._at + some])
            self._at += some
            count -= some

    def finish(self) -> None:
        """Read to the end, so that everything has been checked.  Raises ImageError."""
        while self._next():
            pass

    def close(self) -> None:
        """Stop reading, wherever it is."""
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        os.close(self._fd)
