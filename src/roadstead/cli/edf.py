"""``--environment``: an Environment Definition File becomes the options that it stands for.

Options that were given beside it win; mounts and devices add to its own.
"""

from __future__ import annotations

import os

from roadstead.core import edf
from roadstead.errors import ConfigError, RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PATH_VARIABLE = "EDF_PATH"


def apply(
    name: str, options: dict[str, str], cwd: str, environ: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Put what the file says into ``options``; what no option says is returned.

    Raises ConfigError, RequestError.
    """
    found = edf.load(name, lambda each: _read(each, cwd, environ), environ)
    if not found.image and "container-name" not in options:
        raise RequestError(
            f"--environment={name}: it names no image", hint='add image = "NAME:TAG" to the file'
        )
    if found.image:
        options["container-image"] = found.image
    if found.workdir:
        options.setdefault("container-workdir", found.workdir)
    if found.entrypoint is not False and "no-container-entrypoint" not in options:
        options.setdefault("container-entrypoint", "1")  # the format's default
    if found.writable is False and "container-writable" not in options:
        options.setdefault("container-readonly", "1")
    for option, added in (("container-mounts", found.mounts), ("device", found.devices)):
        given = [options[option]] if option in options else []
        if added:
            options[option] = ",".join([*added, *given])
    return {"env": found.env, "annotations": found.annotations}


def _read(name: str, cwd: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The file that a name or a path stands for.  Raises ConfigError."""
    path = _find(name, cwd, environ)
    try:
        with open(path, encoding="utf-8") as file:
            return path, file.read((1 << 20) + 1)
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 (byte {error.start})", path=path) from None
    except OSError as error:
        raise ConfigError(error.strerror or str(error), path=path) from None


def _find(name: str, cwd: str, environ: Mapping[str, str]) -> str:
    if "/" in name or name.endswith(".toml"):
        return os.path.join(cwd, name)
    places = [each for each in environ.get(PATH_VARIABLE, "").split(":") if each.startswith("/")]
    places = places or [f"{environ.get('HOME', '')}/.edf"]
    for place in places:
        if os.path.isfile(f"{place}/{name}.toml"):
            return f"{place}/{name}.toml"
    raise ConfigError(
        f"no environment {name!r} in {', '.join(places)}",
        hint=f"name a path (./{name}.toml), or set {PATH_VARIABLE}",
    )
