"""How a request gets from a command to the agents of its tasks.  Pure.

For srun and salloc it is JSON in one variable, never in an argv: variables of EDFs may be secrets.
The name begins with SLURM_, which every --export lets through (srun(1)).

A batch script in a container is in a script that Slurm's own sbatch takes:

    #!/bin/sh
    #SBATCH …                      the user's lines, less what is about containers
    exec AGENT batch "$0" "$@"     or more lines, where nodes may lack the agent
    # roadstead: {"v":1,…}         what the agent is told
    # roadstead: the script
    …                              the user's script, byte for byte

The shell never reads past exec; sbatch reads no directive past it.  The script is in the job, so
nothing has to be kept for it, ``scontrol write batch_script`` shows it, and --export has no say.
"""

from __future__ import annotations

from roadstead.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

VARIABLE = "SLURM_ROADSTEAD_REQUEST"
VERSION = 1
_TOLD = "# roadstead: "
_SCRIPT = "# roadstead: the script"


def whole(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the agents are told: of each component what was asked for, nothing for one without a
    container."""
    return {"v": VERSION, "components": list(parts)}


def component(told: Any, at: int) -> dict[str, Any]:
    """The part that is about one component.  Raises EngineError for what is no request."""
    try:
        if told["v"] != VERSION:
            raise EngineError(
                f"the request is of version {told['v']}, and the agent of version {VERSION}",
                hint="submit the job again",
            )
        found: dict[str, Any] = told["components"][at]
        found["options"], found["cwd"]
    except (KeyError, IndexError, TypeError):
        raise EngineError(f"{VARIABLE} holds no request of roadstead's") from None
    return found


def script(directives: Sequence[str], start: str, told: str, text: str) -> str:
    """The script to submit.  ``directives`` are what comes after #SBATCH, ``start`` the lines of
    shell that become the agent, ``told`` JSON in one line of ASCII."""
    lines = [
        "#!/bin/sh",
        "# Made by roadstead: the script below runs in a container.",
        *[f"#SBATCH {each}" for each in directives],
        start,
        f"{_TOLD}{told}",
        _SCRIPT,
        "",
    ]
    return "\n".join(lines) + text


def taken_apart(text: str) -> tuple[str, str]:
    """What the agent is told, and the user's script.  Raises EngineError for any other script."""
    head, mark, inner = text.partition(f"\n{_SCRIPT}\n")
    told = head.rpartition("\n")[2]
    if not mark or not told.startswith(f"{_TOLD}{{"):
        raise EngineError("this is not a batch script that roadstead has made")
    return told.removeprefix(_TOLD), inner


def for_shell(word: str) -> str:
    """A word as it is, for sh.  (shlex takes longer to import than most of us.)"""
    return "'" + word.replace("'", "'\\''") + "'"
