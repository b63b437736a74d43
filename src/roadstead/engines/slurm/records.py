"""Where a submitter keeps what agents write down of their tasks (agent/accounting.py).

    STATE/records → records.TOKEN       PLACE, as agents are told it
    STATE/records.TOKEN/DAY/NODE        what a node has written
    STATE/records.TOKEN/DAY/NODE~       a copy of what a node has that does not see this place

STATE is $XDG_STATE_HOME/roadstead.  The token is chance: a node on which the place is there shares
it.  Every srun looks, so this is one call of readlink(2).
"""

from __future__ import annotations

import os

from roadstead.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def place(environ: Mapping[str, str]) -> str:
    """The directory, made if there is none; "" where none can be made."""
    state = os.path.dirname(paths.state_directory(environ))
    try:
        return f"{state}/{os.readlink(f'{state}/records')}"
    except OSError:
        return _made(state)


def _made(state: str) -> str:
    name = f"records.{os.urandom(8).hex()}"
    try:
        paths.make_private(state)
        os.mkdir(f"{state}/{name}", 0o700)
        os.symlink(name, f"{state}/records")
    except FileExistsError:  # another command was faster
        os.rmdir(f"{state}/{name}")
        return f"{state}/{os.readlink(f'{state}/records')}"
    except OSError:
        return ""  # tasks can run without
    return f"{state}/{name}"
