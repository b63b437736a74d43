"""The agent's verbs.  Executed by its path, in an interpreter that knows no other path of ours, or
from the packed agent (boot.py)."""

from __future__ import annotations

import gc
import os
import sys

if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(__file__))))


def main(argv: list[str]) -> int:
    """Run ``VERB …``; its exit code, where the process does not end otherwise."""
    verb, *rest = argv or [""]
    if verb in ("task", "batch"):
        gc.disable()  # until it has started: what is made now stays
        from roadstead.agent import task

        return task.main(verb, rest)
    gc.freeze()  # what has been read stays
    gc.enable()
    if verb == "guard":
        from roadstead.agent import guard

        return guard.main(rest)
    if verb == "keep":
        from roadstead.agent import keeper

        return keeper.main(rest)
    if verb == "oci":
        from roadstead.agent import oci

        return oci.main(rest)
    if verb in ("pod", "daemon"):
        from roadstead.agent import inner

        return inner.main([verb, *rest])
    if verb == "check":
        from roadstead.agent import check

        return check.main()
    if verb == "receive":
        from roadstead.agent import receive

        return receive.main()
    if verb == "install":
        from roadstead.agent import install

        return install.main(rest)
    sys.stderr.write(f"roadstead: error: the agent does not know {verb or 'nothing'}\n")
    return 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
