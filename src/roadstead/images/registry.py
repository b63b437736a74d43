"""``docker://``, ``docker-daemon:`` and ``containers-storage:``, through skopeo.

skopeo's own files apply: logins, mirrors, certificates, the signature policy.  It serves as a proxy
(``skopeo experimental-image-proxy``, from 1.5 on): a JSON message a request, and a pipe for what is
fetched.  So a layer goes from the network into the store without being written in between, and one
that is in the store is not fetched.
"""

from __future__ import annotations

import os
from typing import Any

from roadstead.errors import ImageError
from roadstead.host import process, wire
from roadstead.images import layered, layers, manifest
from roadstead.images.manifest import Descriptor
from roadstead.images.model import Record
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.store import Store

# What skopeo says → what it means, and what to do.  The first that fits.
_CAUSES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("manifest unknown", "name unknown"), "no such image or tag", "check the name and the tag"),
    (("toomanyrequests", "429"), "the registry's rate limit is reached", "wait, or skopeo login"),
    (
        ("unauthorized", "authentication required", "denied", "401", "403"),
        "not authorised, or no such image",
        "skopeo login HOST",
    ),
    (
        ("server gave HTTP response to HTTPS", "x509", "tls:"),
        "the registry's TLS certificate or protocol is not accepted",
        "add it to /etc/containers/certs.d, or registries.conf: insecure = true",
    ),
    (
        ("no such host", "connection refused", "network is unreachable", "i/o timeout"),
        "the registry cannot be reached",
        "check the network and the name",
    ),
    (("no image found in image index", "no image found in manifest list"), "not made for", ""),
)


def import_(reference: Reference, store: Store, context: Context) -> Record:
    """Bring the image into the store.  Raises ImageError."""
    proxy = _Proxy(reference, context.platform)
    try:
        data, digest = proxy.manifest()
        found = manifest.manifest(data, manifest.document(data, reference.text), reference.text)
        record = layered.bring(reference, store, context, proxy, found)
    finally:
        proxy.close()
    from dataclasses import replace

    # The registry's own digest: skopeo may have translated the manifest.
    return replace(record, digest=digest or record.digest)


class _Proxy:
    """A skopeo that serves one image."""

    def __init__(self, reference: Reference, platform: str) -> None:
        self._reference = reference
        self._platform = platform
        program = process.which("skopeo", os.environ.get("PATH", os.defpath))
        if program is None:
            raise ImageError(
                f"{reference.text}: skopeo is needed to fetch it, and is not installed",
                hint="apt install skopeo, or dnf install skopeo",
            )
        ours, theirs = wire.pair()
        kind = platform.split("/")
        argv = [program, "--override-os", kind[0], "--override-arch", kind[1]]
        if len(kind) > 2:
            argv += ["--override-variant", kind[2]]
        argv += ["experimental-image-proxy", "--sockfd", str(theirs.fileno())]
        self._child = process.spawn(
            argv, env=dict(os.environ), keep=(theirs.fileno(),), session=False
        )
        theirs.close()
        self._wire = ours
        self._call("Initialize")
        self._image = self._call("OpenImage", str(reference))[0]

    def close(self) -> None:
        self._wire.close()
        self._child.signal(process.TERM)
        self._child.reap()

    def _call(self, method: str, *arguments: object) -> tuple[Any, int, int]:
        """What skopeo answers: a value, and a pipe with its number (-1 and 0: none)."""
        self._ask(method, *arguments)
        return self._answer()

    def _ask(self, method: str, *arguments: object) -> None:
        try:
            self._wire.send({"method": method, "args": list(arguments)})
        except OSError as error:
            raise ImageError(f"{self._reference.text}: skopeo: {error}") from None

    def _answer(self) -> tuple[Any, int, int]:
        try:
            received = self._wire.receive()
        except (OSError, ValueError) as error:
            raise ImageError(f"{self._reference.text}: skopeo: {error}") from None
        if received is None:
            raise ImageError(
                f"{self._reference.text}: skopeo has ended without an answer",
                hint="skopeo 1.5 or later is needed: skopeo --version",
            )
        answer, fds = received
        if not answer.get("success"):
            fds.close()
            raise self._told(str(answer.get("error", "")))
        pipe = answer.get("pipeid") or 0
        return answer.get("value"), fds.take(0) if pipe else -1, pipe

    def _told(self, said: str) -> ImageError:
        for signs, meaning, hint in _CAUSES:
            if any(sign in said for sign in signs):
                more = f" {self._platform}" if meaning == "not made for" else ""
                host = self._reference.name.partition("/")[0]
                fix = hint.replace("HOST", host)
                return ImageError(f"{self._reference.text}: {meaning}{more} ({said})", hint=fix)
        return ImageError(f"{self._reference.text}: {said}")

    def _all(self, method: str, *arguments: object) -> tuple[bytes, Any]:
        value, fd, pipe = self._call(method, *arguments)
        # skopeo closes a pipe when it is told to finish it, and answers when all is read: who reads
        # to the end first waits for ever.  Of a layer's blob the size is known.
        self._ask("FinishPipe", pipe)
        data = layered.read_document(fd, -1, self._reference.text)
        self._answer()
        return data, value

    def manifest(self) -> tuple[bytes, str]:
        """The manifest in OCI's form, and the digest of the image as its owner has it."""
        data, digest = self._all("GetManifest", self._image)
        return data, digest if isinstance(digest, str) else ""

    def document(self, wanted: Descriptor) -> bytes:
        data, _ = self._all("GetBlob", self._image, wanted.digest, wanted.size)
        return layered.checked(data, wanted.digest, self._reference.text)

    def layer(self, wanted: Descriptor, diff_id: str) -> layers.Source:
        pipes: list[int] = []

        def fetch() -> int:
            _, fd, pipe = self._call("GetBlob", self._image, wanted.digest, wanted.size)
            pipes.append(pipe)
            return fd

        def close(read: bool) -> None:
            if read:  # else somebody else has brought it, and skopeo found the pipe closed
                self._call("FinishPipe", pipes.pop())

        return layers.Source(diff_id, wanted.digest, wanted.size, fetch, close)
