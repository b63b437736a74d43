"""How the agent is called on a node: an interpreter and what it executes.

Where nodes see this installation that is the package itself.  Both are words of an argv, so that
what is sent to nodes that do not can take their place.
"""

from __future__ import annotations

import os
import sys


def command() -> list[str]:
    """The words to which a verb and its arguments are added."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-IS", f"{package}/agent/__main__.py"]
