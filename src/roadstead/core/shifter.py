"""What Shifter's users write, and what it is here (docs/systems.md).

    --image=[TYPE:]NAME[:TAG]            --container=shifter:TYPE:NAME[:TAG]
    --volume=SRC:DST[:FLAG…][;…]         --container-mounts=SRC:DST:FLAG+…
    srun shifter [OPTIONS] COMMAND …     the command, in that container

Types are those of Shifter's gateway.  Paths are absolute, as Shifter has them.  Pure.
"""

from __future__ import annotations

from typing import Final

from roadstead.errors import UsageError

WORD: Final = "shifter"
_TYPES: Final = ("docker", "custom", "id")
# Shifter's flags of a volume, and mount(8)'s.
_FLAGS: Final = {"ro": "ro", "rec": "rbind", "slave": "rslave", "private": "rprivate"}
_SHORT: Final = {"-i": "--image", "-V": "--volume", "-w": "--workdir", "-e": "--env"}
_VALUED: Final = ("--image", "--volume", "--workdir", "--env")
_NO_IMAGE: Final = "write --image=[TYPE:]NAME[:TAG]"


def reference(text: str) -> str:
    """The reference for what ``--image`` says.  Raises UsageError."""
    kind, colon, name = text.partition(":")
    if not text:
        raise UsageError("--image: no image", hint=_NO_IMAGE)
    if kind == "local":
        raise UsageError(
            f"--image={text}: a directory is no image of Shifter's gateway",
            hint=f"--container={name or 'DIRECTORY'}",
        )
    if not colon or kind not in _TYPES:
        kind, name = "docker", text
    parts = name.split("/")
    odd = any(not each.isprintable() or each.isspace() for each in name)
    if odd or not name or name.startswith("-") or {"", ".", ".."} & set(parts):
        raise UsageError(f"--image={text}: not an image's name", hint=_NO_IMAGE)
    if name.endswith(":"):
        raise UsageError(f"--image={text}: no tag after the colon", hint=f"--image={text}latest")
    return f"{WORD}:{kind}:{name}"


def mounts(text: str) -> str:
    """What ``--volume`` says, for ``--container-mounts``.  Raises UsageError."""
    return ",".join([_mount(each) for each in text.replace(",", ";").split(";")])


def _mount(entry: str) -> str:
    source, _, rest = entry.partition(":")
    destination, *flags = rest.split(":")
    where = f"--volume: {entry!r}"
    for path in (source, destination):
        if not path.startswith("/"):
            raise UsageError(
                f"{where}: {path or 'what is empty'} is no absolute path",
                hint="write /SRC:/DST or /SRC:/DST:ro",
            )
    unknown = next((each for each in flags if each not in _FLAGS), "")
    if unknown:
        raise UsageError(
            f"{where}: {unknown!r} is not honoured", hint=f"flags are {', '.join(_FLAGS)}"
        )
    return ":".join([source, destination, *(["+".join(_FLAGS[f] for f in flags)] if flags else [])])


def taken_apart(operands: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The options of ``shifter …``, each with its values, and the command.  Raises UsageError."""
    asked: dict[str, list[str]] = {}
    words = operands[1:]
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name not in _VALUED:
            raise UsageError(
                f"shifter: {word} is not honoured", hint=f"options are {', '.join(_VALUED)}"
            )
        if not equals:
            if not words:
                raise UsageError(f"shifter: {name} needs a value", hint=f"{name}=VALUE")
            value = words.pop(0)
        asked.setdefault(name, []).append(value)
    if not words:
        raise UsageError("shifter: no command", hint="srun shifter [options] command …")
    return asked, words
