"""Image names as Pyxis and Enroot write them, and the references that they are here.

    [USER@][REGISTRY#]IMAGE[:TAG]    docker://REGISTRY/IMAGE:TAG
    docker://[USER@][REGISTRY#]…     likewise
    dockerd://IMAGE                  docker-daemon:IMAGE
    podman://IMAGE                   containers-storage:IMAGE
    /path, ./path                    that path

Whatever has one of our transports in front stays as it is.  Pure, and on the clients' path.
"""

from __future__ import annotations

from roadstead.errors import UsageError

_OTHER_NAMES = {"dockerd://": "docker-daemon:", "podman://": "containers-storage:"}


def reference(text: str, transports: tuple[str, ...] | list[str]) -> tuple[str, str]:
    """The reference for what ``--container-image`` says, and the user that it names for the
    registry, or "".  Raises UsageError."""
    if not text:
        raise UsageError("--container-image: no image", hint="--container-image=NAME[:TAG]")
    if text.startswith(("/", ".")):
        return text, ""
    for prefix, transport in _OTHER_NAMES.items():
        if text.startswith(prefix):
            return transport + text[len(prefix) :], ""
    name = text.removeprefix("docker://")
    if name == text and text.partition(":")[0] in transports:
        return text, ""
    user, at, rest = name.partition("@")
    if not at or rest.startswith("sha256:") or "#" in user:
        user, rest = "", name  # an @ further on belongs to a digest
    registry, hash_sign, image = rest.partition("#")
    if not hash_sign:
        registry, image = "", rest
    if not image or (hash_sign and not registry) or "#" in image:
        raise UsageError(
            f"--container-image={text}: not an image's name",
            hint="write [REGISTRY#]IMAGE[:TAG], or a path with a / in it",
        )
    return f"docker://{registry}/{image}" if registry else f"docker://{image}", user
