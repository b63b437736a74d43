"""What other container systems leave in a root file system to say how it is to be run.

    Charliecloud   /ch/metadata.json, or /ch/environment
    Singularity    /.singularity.d: runscript, env/*.sh, labels.json
    Enroot         /etc/rc, /etc/environment
    udocker        container.json beside ROOT: the image's own configuration

These files come with the image, and are only read: by paths that are resolved inside the root, as
text of limited length, and never executed.  Singularity's env/*.sh are shell scripts; what they
assign plainly is understood (``export NAME=VALUE``, with quotes and variables), and the rest is
counted, so that a note can say that it was left out.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field, replace
from typing import Any, Final

from roadstead.errors import ImageError
from roadstead.images.model import ImageConfig
from roadstead.oci.lookup import DEFAULT_PATH, Unknown, View

_LONGEST: Final = 1 << 20
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_ASSIGNMENT: Final = r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)"
_OPENING: Final = r"(?:if|for|while|until|case|[A-Za-z_]\w*\s*\(\))\b|\{$"
_CLOSING: Final = r"(?:fi|done|esac|\})\b"
_ENROOT_DIRECTORY: Final = r"""(?m)^cd\s+(['"]?)(/[^'"\s]*)\1"""
# Of /.singularity.d/env; the others are Singularity's own, for its own ways.
_SINGULARITY_ENV: Final = r"(10-docker2singularity|90-environment|9[0-3]-[\w-]+)\.sh"


def _re() -> Any:
    """``re``: images that are in a store need it no more, and an agent's start counts."""
    import re

    return re


@dataclass(frozen=True, slots=True)
class Description:
    """How to run a root file system: whose words they are, the configuration, and notes on what
    could not be understood."""

    system: str
    config: ImageConfig = field(default_factory=ImageConfig)
    notes: tuple[str, ...] = ()


def describe(rootfs: str) -> Description:
    """Whatever is found in a root file system; a plain one is described as nothing special."""
    if is_directory(rootfs, "/.singularity.d"):
        return _singularity(rootfs)
    if is_directory(rootfs, "/ch"):
        return _charliecloud(rootfs)
    if read_text(rootfs, "/etc/rc") is not None and read_text(rootfs, "/etc/environment"):
        return enroot(rootfs)
    return Description("rootfs")


def read_text(rootfs: str, path: str) -> str | None:
    """A file's text, found as a process inside would find it; None where there is no such file, or
    it is none that can be read as text."""
    try:
        found = View(rootfs, {}).resolve(path)
        fd = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, Unknown):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with open(fd, "rb", closefd=False) as file:
            data = file.read(_LONGEST + 1)
    finally:
        os.close(fd)
    return None if len(data) > _LONGEST else data.decode(errors="replace")


def is_directory(rootfs: str, path: str) -> bool:
    return View(rootfs, {}).is_directory(path) is True


# -- the systems ---------------------------------------------------------------------------------


def _charliecloud(rootfs: str) -> Description:
    known = _object(read_text(rootfs, "/ch/metadata.json"))
    pairs = _strings_of(known.get("env"))
    if not pairs:
        pairs = _lines(read_text(rootfs, "/ch/environment") or "", quotes="'")
    config = ImageConfig(
        env=_env(pairs),
        workdir=_text(known.get("cwd")),
        architecture=_charliecloud_architecture(_text(known.get("arch"))),
        volumes=_strings(known.get("volumes")),
        labels=_strings_of(known.get("labels")),
    )
    return Description("Charliecloud", config)


def _charliecloud_architecture(name: str) -> str:
    """Its names are uname's, images have Go's."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(name, "" if name in ("None",) else name)


def enroot(rootfs: str) -> Description:
    """A root file system that Enroot made, whether or not it has all of its files."""
    script = read_text(rootfs, "/etc/rc")
    workdir = _re().search(_ENROOT_DIRECTORY, script) if script else None
    config = ImageConfig(
        entrypoint=("/bin/sh", "/etc/rc") if script is not None else (),
        env=_env(_lines(read_text(rootfs, "/etc/environment") or "", quotes="\"'")),
        workdir=workdir[2] if workdir else "",
    )
    return Description("Enroot", config)


def _singularity(rootfs: str) -> Description:
    env: dict[str, str] = {}
    skipped = 0
    try:
        names = sorted(os.listdir(View(rootfs, {}).resolve("/.singularity.d/env")))
    except (OSError, Unknown):
        names = []
    for name in names:
        if _re().fullmatch(_SINGULARITY_ENV, name):
            script = read_text(rootfs, f"/.singularity.d/env/{name}") or ""
            skipped += assign(script, env)
    has_script = read_text(rootfs, "/.singularity.d/runscript") is not None
    config = ImageConfig(
        entrypoint=("/.singularity.d/runscript",) if has_script else (),
        env=_env(env),
        labels=labels(read_text(rootfs, "/.singularity.d/labels.json") or ""),
    )
    notes: tuple[str, ...] = ()
    if skipped:
        notes = (
            f"{skipped} lines of /.singularity.d/env are more than assignments and were left out: "
            "set what they set with --export or --container-env",
        )
    return Description("Singularity", config, notes)


def udocker(container: str) -> Description:
    """A container of udocker's: the directory that holds container.json and ROOT.

    Raises ImageError for a container.json that is none.
    """
    path = f"{container}/container.json"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            known = _object(file.read(_LONGEST))
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    inner = known.get("config") or known.get("container_config")
    if not isinstance(inner, dict):
        raise ImageError(f"{path} is not a container's of udocker: it has no config")
    config = replace(docker_config(inner), architecture=_text(known.get("architecture")))
    return Description("udocker", config)


def docker_config(inner: dict[str, Any]) -> ImageConfig:
    """The ``config`` of an image's JSON, as Docker and the OCI image-spec have it; what has the
    wrong type counts as absent."""
    volumes = inner.get("Volumes")
    return ImageConfig(
        entrypoint=_strings(inner.get("Entrypoint")),
        cmd=_strings(inner.get("Cmd")),
        env=tuple(each for each in _strings(inner.get("Env")) if "=" in each),
        user=_text(inner.get("User")),
        workdir=_text(inner.get("WorkingDir")),
        volumes=tuple(sorted(volumes)) if isinstance(volumes, dict) else (),
        labels=_strings_of(inner.get("Labels")),
        stop_signal=_text(inner.get("StopSignal")),
    )


def labels(text: str) -> dict[str, str]:
    """Those of a JSON object, as Singularity keeps them; none where it is no such thing."""
    return _strings_of(_object(text))


# -- small readers -------------------------------------------------------------------------------


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _strings_of(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}


def _env(pairs: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in pairs.items() if _re().fullmatch(_NAME, name))


def _lines(text: str, *, quotes: str) -> dict[str, str]:
    """NAME=VALUE, one a line; a pair of quotes around the value is not part of it."""
    pairs = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        name = name.removeprefix("export ").strip()
        if not equals or name.startswith("#") or not name:
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in quotes:
            value = value[1:-1]
        pairs[name] = value
    return pairs


# -- shell assignments ---------------------------------------------------------------------------


def assign(script: str, env: dict[str, str]) -> int:
    """Do in ``env`` what the plain assignments of a shell script do; how many other lines there
    are that do something."""
    skipped = depth = 0
    for line in script.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if _re().match(_CLOSING, line):
            depth = max(depth - 1, 0)
        elif _re().match(_OPENING, line) and not _re().search(_CLOSING, line.split()[-1]):
            depth += 1
            skipped += depth == 1
        elif depth == 0 and not line.startswith(("set ", "export -")):
            found = _re().fullmatch(_ASSIGNMENT, line)
            value = _Word(found[2], env).value() if found else None
            if found is None or value is None:
                skipped += 1
            else:
                env[found[1]] = value
    return skipped


class _Word:
    """A word of the shell's, taken as it takes it (POSIX shell, 2.2 and 2.6.2), as far as it has
    only quotes, ``$NAME``, ``${NAME}`` and ``${NAME:-WORD}``."""

    def __init__(self, text: str, env: dict[str, str]) -> None:
        self._text = text
        self._env = env
        self._at = 0

    def value(self) -> str | None:
        """What the word means; None for what is more than that."""
        found = self._until("")
        rest = self._text[self._at :].strip()
        return found if rest.startswith("#") or not rest.strip("; ") else None

    def _until(self, end: str, *, quoted: bool = False) -> str | None:
        parts: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == end:
                return "".join(parts)
            if not quoted and (char.isspace() or char in ";&|<>()"):
                return "".join(parts) if not end else None
            part = self._piece(char, quoted)
            if part is None:
                return None
            parts.append(part)
        return "".join(parts) if not end else None

    def _piece(self, char: str, quoted: bool) -> str | None:
        self._at += 1
        if char == "`":
            return None
        if char == "\\":
            self._at += 1
            return self._text[self._at - 1 : self._at] or None
        if char == "$":
            return self._variable(quoted)
        if char == "'" and not quoted:
            end = self._text.find("'", self._at)
            found = self._text[self._at : end]
            self._at = end + 1
            return found if end >= 0 else None
        if char == '"':
            inner = self._until('"', quoted=True)
            self._at += 1
            return inner
        return char

    def _variable(self, quoted: bool) -> str | None:
        braces = self._text.startswith("{", self._at)
        self._at += braces
        name = _re().compile(_NAME).match(self._text, self._at)
        if name is None:
            return None
        self._at = name.end()
        known = self._env.get(name[0])
        if not braces:
            return self._plain(name[0], known)
        if self._text.startswith("}", self._at):
            self._at += 1
            return self._plain(name[0], known)
        if not self._text.startswith(":-", self._at):
            return None
        self._at += 2
        default = self._until("}", quoted=quoted)
        self._at += 1
        return known if known else default

    @staticmethod
    def _plain(name: str, known: str | None) -> str:
        return known if known is not None else DEFAULT_PATH if name == "PATH" else ""
