"""Bundles of what Docker, Podman or Buildah has: an image, or a container as it is now.

An image is saved and goes through the store, so its layers are shared with what is there; nothing
is created in the engine that a killed command could leave.  A container of Docker's or Podman's is
exported; one of Buildah's is committed to a file.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Final, cast

from roadstead.errors import BundleError, ImageError
from roadstead.host import program
from roadstead.images import copied, dockerarchive, layout, manifest, unpack
from roadstead.images.making import Made, Wanted, failed, tool
from roadstead.images.model import ImageConfig
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context, own_platform
from roadstead.images.store import Store
from roadstead.images.streams import Blob

# What they say of a name that they do not know.
_UNKNOWN: Final = ("no such", "not known", "not found", "no container")


def make(wanted: Wanted, work: str) -> Made:
    """See images/making.py.  Raises BundleError, ImageError."""
    (name,) = wanted.operands
    if name.startswith("-"):
        raise BundleError(f"{name} is not a name of an image or container")
    path = tool(wanted.kind)
    kind = _kind(path, wanted.kind, name)
    saved = f"{work}/saved"
    if kind == "container" and wanted.kind != "buildah":
        return _exported(path, name, wanted, work)
    transport = save(wanted.kind, name, saved, show=wanted.show, container=kind == "container")
    return _through_the_store(f"{transport}:{saved}", wanted, saved, work)


def _kind(path: str, tool_name: str, name: str) -> str:
    """Whether the name is an image's or a container's; of both it is the image's."""
    kinds = ("container", "image") if tool_name == "buildah" else ("image", "container")
    said: list[str] = []
    for kind in kinds:
        ask = ["inspect", "--type", kind] if tool_name == "buildah" else [kind, "inspect"]
        status, _, said = program.answer([path, *ask, name])
        if status == 0:
            return kind
        if not any(sign in " ".join(said).lower() for sign in _UNKNOWN):
            raise failed(tool_name, status, said)
    raise BundleError(
        f"{tool_name} has no image or container {name}", hint=f"{tool_name} pull {name}"
    )


def save(engine: str, name: str, file: str, *, show: bool = False, container: bool = False) -> str:
    """Have ``engine`` write an image, or a container of Buildah's, to ``file``; what it then is, as
    a transport.  Raises BundleError."""
    path = tool(engine)
    if engine == "buildah":
        verb = "commit" if container else "push"
        _run([path, verb, "-q", name, f"oci-archive:{file}"], engine, show=show)
        return "oci-archive"
    _run([path, "save", "-o", file, name], engine, show=show)
    return "docker-archive"


def _run(argv: list[str], name: str, *, show: bool) -> None:
    running = program.Program(argv, show=show)
    try:
        if status := running.wait():
            raise failed(name, status, running.said())
    finally:
        running.close()


def _through_the_store(text: str, wanted: Wanted, saved: str, work: str) -> Made:
    transport, _, path = text.partition(":")
    of = "docker-daemon" if wanted.kind == "docker" else "containers-storage"
    name = f"{of}:{wanted.operands[0]}"
    reference = Reference(name, transport, path=path)
    store = Store.default(os.environ)
    context = Context(own_platform(), wanted.progress)
    source = dockerarchive if transport == "docker-archive" else layout
    with store.importing():
        record = source.import_(reference, store, context)
        image = store.add(replace(record, reference=name))
        os.unlink(saved)
        return copied.unfold(image, work)


def _exported(path: str, name: str, wanted: Wanted, work: str) -> Made:
    status, said, _ = program.answer([path, "container", "inspect", name])
    try:
        config = _configuration(json.loads(said)[0])
    except (ValueError, LookupError, TypeError):
        raise failed(wanted.kind, status, ["its inspect is not understood"]) from None
    unpacked([path, "export", name], wanted, work)
    return Made(config=config)


def _configuration(found: dict[str, object]) -> ImageConfig:
    """A container's is written as its image's: Docker's format is where OCI's comes from."""
    known = dict(cast("dict[str, object]", found["Config"]))
    known["StopSignal"] = str(known.get("StopSignal") or "")  # Podman's is a number
    document = {"config": known, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    data = json.dumps({**document, "architecture": own_platform().split("/")[1]}).encode()
    try:
        return manifest.configuration(data, "the container").config
    except ImageError as error:
        raise BundleError(str(error), hint=error.hint) from None


def unpacked(argv: list[str], wanted: Wanted, work: str, env: dict[str, str] | None = None) -> None:
    """Have in ``work``/rootfs what the program ``argv`` writes as a tar file.

    Raises BundleError, ImageError.
    """
    os.mkdir(f"{work}/rootfs", 0o755)
    running = program.Program(argv, show=wanted.show, piped=True, env=env)
    try:
        blob = Blob(running.output, f"what {wanted.kind} writes")
        try:
            unpack.unpack(blob, f"{work}/rootfs", "")
        except ImageError:
            # Cut off, because it has failed: that is what there is to tell.
            if status := running.wait():
                raise failed(wanted.kind, status, running.said()) from None
            raise
        if status := running.wait():
            raise failed(wanted.kind, status, running.said())
    finally:
        running.close()
