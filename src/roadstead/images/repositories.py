"""Where container systems keep the images that they know by name: from a name to a path.

    ch-image:NAME[:TAG]   Charliecloud's storage: $CH_IMAGE_STORAGE, else /var/tmp/$USER.ch
    udocker:NAME          udocker's containers: $UDOCKER_DIR, else ~/.udocker
    enroot:NAME           Enroot's containers: $ENROOT_DATA_PATH, else $XDG_DATA_HOME/enroot
    sarus:NAME[:TAG]      Sarus's repository: what its metadata.json lists
    shifter:NAME[:TAG]    images of Shifter's gateway, which ``shifterimg`` looks up

What is at the path is then read as any other (recognise.py): directories are used in place,
squashfs files are unpacked once, with what the system has written beside them (beside.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from roadstead.errors import ImageError
from roadstead.images.reference import Reference

_CONFIGURATIONS: Final = ("/etc/shifter/udiRoot.conf", "/opt/shifter/default/etc/udiRoot.conf")


def find(reference: Reference, environ: Mapping[str, str]) -> Reference:
    """The same as a path; one that names no system's image is returned as it is.

    Raises ImageError: the system has none of this name.
    """
    place = _PLACES.get(reference.transport)
    if place is None:
        return reference
    name = reference.text.partition(":")[2]
    parts = name.split("/")
    if name.startswith(("/", "-")) or ".." in parts or "." in parts or "" in parts:
        raise ImageError(f"{reference.text}: not a name of an image")
    where, hint = place(name, environ)
    for path in where:
        if os.path.lexists(path):
            return Reference(reference.text, "", path=os.path.realpath(path))
    looked = f" (looked at {where[0]})" if where else ""
    raise ImageError(f"{reference.text}: no such image{looked}", hint=hint)


Place = tuple[list[str], str]


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME", "")


def _charliecloud(name: str, environ: Mapping[str, str]) -> Place:
    user = environ.get("USER", "")
    storage = environ.get("CH_IMAGE_STORAGE") or f"/var/tmp/{user}.ch"
    # A name is one directory there: / and : would be no part of its name.
    flat = name.replace("/", "%").replace(":", "+")
    names = [flat] if ":" in name else [flat, f"{flat}+latest"]
    return [f"{storage}/img/{each}" for each in names], f"ch-image pull {name}"


def _udocker(name: str, environ: Mapping[str, str]) -> Place:
    top = environ.get("UDOCKER_DIR") or f"{_home(environ)}/.udocker"
    containers = environ.get("UDOCKER_CONTAINERS") or f"{top}/containers"
    return [f"{containers}/{name}"], f"udocker create --name={name} IMAGE"


def _enroot(name: str, environ: Mapping[str, str]) -> Place:
    data = environ.get("XDG_DATA_HOME") or f"{_home(environ)}/.local/share"
    top = environ.get("ENROOT_DATA_PATH") or f"{data}/enroot"
    return [f"{top}/{name}"], f"enroot create --name {name} FILE.sqsh"


def _sarus(name: str, environ: Mapping[str, str]) -> Place:
    hint = f"sarus pull {name}"
    wanted = _full(name)
    for repository in _sarus_repositories(environ):
        found = _document(f"{repository}/metadata.json").get("images")
        for image in found if isinstance(found, list) else ():
            if isinstance(image, dict) and _sarus_name(image) == wanted:
                path = str(image.get("imagePath") or "")
                # A repository that was moved is still whole.
                below = f"{repository}/images/{wanted.replace(':', '/')}.squashfs"
                return [each for each in (path, below) if each.startswith("/")], hint
    return [], hint


def _sarus_repositories(environ: Mapping[str, str]) -> Iterator[str]:
    """The user's and the site's: as sarus.json says, which lies beside the program."""
    from roadstead.host import process

    user = environ.get("USER", "")
    program = process.which("sarus", environ.get("PATH", os.defpath))
    if program:
        top = os.path.dirname(os.path.dirname(os.path.realpath(program)))
        known = _document(f"{top}/etc/sarus.json")
        if known.get("localRepositoryBaseDir"):
            yield f"{known['localRepositoryBaseDir']}/{user}/.sarus"
        if known.get("centralizedRepositoryDir"):
            yield str(known["centralizedRepositoryDir"])
    yield f"{_home(environ)}/.sarus"


def _full(name: str) -> str:
    """SERVER/NAMESPACE/IMAGE:TAG, as Sarus completes a name."""
    parts = name.split("/")
    if len(parts) == 1:
        parts = ["library", *parts]
    if len(parts) == 2:
        parts = ["index.docker.io", *parts]
    tag = "" if ":" in parts[-1] else ":latest"
    return "/".join(parts) + tag


def _sarus_name(image: Mapping[str, Any]) -> str:
    words = [str(image.get(key) or "") for key in ("server", "namespace", "image")]
    server = "index.docker.io" if words[0] == "docker.io" else words[0]
    return "/".join([server, *words[1:]]) + f":{image.get('tag') or 'latest'}"


def _shifter(name: str, environ: Mapping[str, str]) -> Place:
    """shifterimg tells an image's id; the file of that name is where udiRoot.conf says."""
    from roadstead.host import process

    kind, colon, rest = name.partition(":")
    if not colon or kind not in ("docker", "custom", "id", "local"):
        kind, rest = "docker", name
    hint = f"shifterimg pull {kind}:{rest}"
    identity = rest
    if kind != "id":
        program = process.which("shifterimg", environ.get("PATH", os.defpath))
        if program is None:
            raise ImageError("shifterimg is not on PATH", hint="module load shifter")
        identity = process.output([program, "lookup", f"{kind}:{rest}"]).strip()
        if not identity or not identity.isalnum():
            return [], hint
    own = environ.get("ROADSTEAD_UDIROOT_CONF", "")
    for path in (own,) if own else _CONFIGURATIONS:
        images = _setting(path, "imagePath")
        if images:
            return [f"{images}/{identity}.squashfs"], hint
    raise ImageError(
        f"no udiRoot.conf of Shifter's says where images are (looked at {_CONFIGURATIONS[0]})",
        hint="ROADSTEAD_UDIROOT_CONF names it",
    )


def _setting(path: str, name: str) -> str:
    """A value of a file of lines NAME=VALUE."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                key, equals, value = line.strip().partition("=")
                if equals and key.strip() == name:
                    return value.strip()
    except OSError:
        return ""
    return ""


def _document(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


_PLACES: Final[dict[str, Callable[[str, Mapping[str, str]], Place]]] = {
    "ch-image": _charliecloud,
    "udocker": _udocker,
    "enroot": _enroot,
    "sarus": _sarus,
    "shifter": _shifter,
}
