"""What a command finds out about the container before it asks for it.

A bundle's path is made absolute, and that is all.  A reference to an image is resolved here, where
the user sees what takes long, and becomes the digest that the job keeps, whatever the reference
means later.  Where the image is in the store already that is three system calls (images/pins.py),
so nothing heavy is imported until something has to be fetched.
"""

from __future__ import annotations

import os

from roadstead.cli import report
from roadstead.core import enroot
from roadstead.errors import ImageError, RequestError
from roadstead.images import pins
from roadstead.images.reference import TRANSPORTS, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def prepare(
    command: str, options: dict[str, str], cwd: str, environ: Mapping[str, str]
) -> dict[str, Any]:
    """What the message says of the container; ``options`` are changed to what they mean.

    Raises RoadsteadError.
    """
    found: dict[str, Any] = {}
    edf = options.pop("environment", "")
    if edf:
        from roadstead.cli.edf import apply  # tomllib

        found["edf"] = apply(edf, options, cwd, environ)
    if "sqsh" in options.get("container-mounts", ""):
        found |= _squashfs_mounts(options["container-mounts"], cwd, environ)
    text = options.pop("container-image", "")
    if text and "container" in options:
        raise RequestError("--container and --container-image are given", hint="leave one out")
    if text:
        text, user = enroot.reference(text, list(TRANSPORTS))
        if user:
            report.write_line(
                f"{command}: warning: --container-image: user {user} not used: skopeo logs in with "
                "its own auth file (skopeo login)"
            )
    text = text or options.get("container", "")
    if not text:
        return found
    path = os.path.normpath(os.path.join(cwd, text))
    if os.path.lexists(f"{path}/config.json") or _is_plain(text):
        options["container"] = path
        return found
    system = options.get("container-system", "")
    if system and _is_its_own(text, system, environ):
        options["container"] = text
        return found
    is_reference = text.partition(":")[0] in TRANSPORTS
    if ("://" in text or not is_reference) and _is_for_the_runtime(environ):
        options["container"] = text if "://" in text else path
        return found
    image = _resolve(text, cwd, environ)
    options["container"] = text if image else path
    return {**found, "image": image} if image else found


def _squashfs_mounts(text: str, cwd: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The squashfs files that are to be mounted, in the store: nobody may mount the file itself."""
    from roadstead.core import mounts
    from roadstead.images.resolve import resolve
    from roadstead.images.store import Store

    store = Store(pins.store_path(environ), others=pins.other_stores(environ))
    files = [each.source for each in mounts.parse(text, cwd) if each.kind == "squashfs"]
    digests = {each: resolve(f"sqsh:{each}", store=store, cwd=cwd).digest for each in files}
    return {"mounted": {"digests": digests, "store": ":".join((store.path, *store.others))}}


def _is_plain(text: str) -> bool:
    """A path that leads nowhere, which the step will say of it."""
    return text.partition(":")[0] not in TRANSPORTS and not os.path.exists(text)


def _resolve(text: str, cwd: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The image's digest and the stores; nothing for a directory that is no image, of which the
    step says what a bundle has that it has not."""
    own, others = pins.store_path(environ), pins.other_stores(environ)
    reference = parse(text, cwd)
    if not reference.path and reference.transport not in ("docker", "docker-daemon"):
        from roadstead.images import repositories

        reference = repositories.find(reference, environ)
    for place in (own, *others):
        digest = pins.pinned(place, reference)
        if digest:
            break
    else:
        import sys

        from roadstead.cli.progress import Line
        from roadstead.images.resolve import resolve
        from roadstead.images.store import Store

        if not reference.transport and os.path.isdir(reference.path):
            from roadstead.images.recognise import recognise

            try:
                recognise(reference.path)
            except ImageError:
                return {}
        with Line(sys.stderr) as shown:
            store = Store(own, others=others)
            digest = resolve(reference, store=store, cwd=cwd, progress=shown).digest
    return {"digest": digest, "store": ":".join((own, *others))}


def _is_its_own(text: str, system: str, environ: Mapping[str, str]) -> bool:
    """Whether that is an image which the container system has itself.  Raises RuntimeFailure."""
    from roadstead import systems

    return text.partition(":")[0] in systems.find(system, environ).own


def _is_for_the_runtime(environ: Mapping[str, str]) -> bool:
    """Whether an oci.conf leaves it to the runtime to know what a path or reference means."""
    from roadstead.oci import search

    conf = search.configured(environ)
    return conf is not None and conf.ignore_file_config_json
