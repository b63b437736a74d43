"""How the agent is called for pods and daemons: an interpreter and the package itself, as nodes see
this installation.  (Tasks are started by the packed one: zipapp.py.)
"""

from __future__ import annotations

import os
import sys


def command() -> list[str]:
    """The words to which a verb and its arguments are added."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-IS", f"{package}/agent/__main__.py"]
