"""What every contained task imports: a snapshot of the agent has it together (boot.py).

A module too many or too few here is a task that starts a little later, nothing else.  What it is
now, tests/e2e/test_agent_archive.py asks a task, and says.
"""

from __future__ import annotations

from typing import Final

_ROOMS: Final = {
    "roadstead": """
        agent core errors host images oci step
    """,
    "roadstead.agent": """
        __main__ accounting given guard lazy place plain request signals task
    """,
    "roadstead.core": """
        container expand jsonform model names
    """,
    "roadstead.host": """
        files linux loop mounts namespaces paths process removal sealed watching
    """,
    "roadstead.images": """
        model
    """,
    "roadstead.oci": """
        bundle config edits environment idmap lookup runtime search
    """,
    "roadstead.step": """
        around container contents life plan plugged processes
        record taskdir wanted
    """,
}
PRELOADED: Final = (
    "roadstead",
    *[f"{room}.{name}" for room, names in _ROOMS.items() for name in names.split()],
)
