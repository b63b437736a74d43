"""Where a batch script's own container is on this node: nobody has looked before its job.

In place, if it is there: it may have changed since the job was submitted.  Else it is what was sent
here by an earlier step (cache.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from roadstead.agent import cache
from roadstead.core.printable import printable
from roadstead.errors import LaunchError


def settle(told: Mapping[str, Any], node: str) -> dict[str, Any]:
    """What we are told, with "staged" only if the container is not to be used in place.  Raises
    LaunchError where it is not here at all."""
    rest = {name: value for name, value in told.items() if name != "staged"}
    unseen = [path for path in told["see"] if not os.path.exists(path)]
    if not unseen:
        return rest
    staged = told.get("staged")
    if staged is not None and cache.find(str(staged["place"]), str(staged["key"])) is not None:
        return {**rest, "staged": staged}
    reference = printable(str(told["options"].get("container", "")))
    raise LaunchError(
        f"{printable(unseen[0])} is not on {node}, and was not sent there before the job",
        hint=f"srun -w {node} --container={reference} true sends it there, for batch jobs as well",
    )
