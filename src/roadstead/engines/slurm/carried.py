"""How a batch script becomes the agent that runs it: the lines of shell in front of it.

When its job starts nobody is there who could send anything.  So a node takes the first of

    the submitter's own agent, if it sees that and has the Python that it is for
    the one that has settled on this node (agent/install.py)
    the submitter's archive, if it sees that
    the archive that the script carries, in base64 behind these lines

The last two settle first: under their digest, or not at all.  Pure.
"""

from __future__ import annotations

from roadstead.agent.request import for_shell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

# Where the archive begins: sh never comes here, and sbatch takes no line of it for a directive.
_HERE: Final = "# roadstead: the agent"
_START: Final = """\
top={top}
if [ -x {python} ] && [ -r {snapshot} ] &&
  {python} -ISc 'import sys; sys.exit(sys.implementation.cache_tag != "{tag}")' 2>/dev/null; then
  exec {command} batch "$0" "$@"
fi
agent=$top/agent/{digest}
settle() {{ sh "$1" install "$1" "$top/agent" {digest} >/dev/null; }}
if [ ! -x "$agent" ]; then
  if [ -r {archive} ]; then
    settle {archive}
  elif new=$(mktemp {landing}"$(id -u)-XXXXXXXX"); then
    trap 'rm -f "$new"' EXIT
    sed '1,/^{here}$/d;/^#/,$d' "$0" | base64 -d >"$new"
    if [ -s "$new" ]; then settle "$new"; fi
    rm -f "$new"
    trap - EXIT
  fi
fi
if [ -x "$agent" ]; then exec "$agent" batch "$0" "$@"; fi
node=${{SLURMD_NODENAME:-$(uname -n)}}
echo "slurmstepd: error: $node: there is no agent of roadstead here, and none could be brought;" \\
  "srun -w $node --container=… true brings it, and says more" >&2
exit 125"""


def in_place(command: Sequence[str]) -> str:
    """For nodes that all see the submitter's agent, which these words start."""
    return f'exec {" ".join(map(for_shell, command))} batch "$0" "$@"'


def start(
    command: Sequence[str], archive: str, tag: str, top: str, landing: str, carried: str
) -> str:
    """For nodes that may not.  ``command`` starts the submitter's agent with a Python of this cache
    ``tag``; ``archive`` is its file there, called by its digest; ``top`` is the directory of this
    user on each node, ``landing`` what the file begins with to which an archive is unpacked;
    ``carried`` the archive in base64, or "" where all see the file."""
    lines = _START.format(
        top=for_shell(top), python=for_shell(command[0]), snapshot=for_shell(command[-1]), tag=tag,
        command=" ".join(map(for_shell, command)), archive=for_shell(archive), here=_HERE,
        landing=for_shell(landing), digest=archive.rpartition("/")[2].partition(".")[0],
    )  # fmt: skip
    return f"{lines}\n{_HERE}\n{carried}".rstrip("\n") if carried else lines
