"""The job's comment, where the user has given none: which container it is for.

    --comment=container=docker://alpine:3.19

It is what Slurm can tell of a job that waits (squeue -o %k, scontrol show job), to others too, and
what accounting keeps with it.  Slurm's other comment, for administrators, is theirs alone.
``JobComment=none`` in roadstead.conf leaves it out, for a site that means something by comments.
"""

from __future__ import annotations

from roadstead.engines import choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PREFIX = "container="
_KEY = "jobcomment"
_LONGEST = 512  # Slurm refuses one that is too long; a path may be


def pairs(
    reference: str, named: Collection[str], environ: Mapping[str, str]
) -> list[tuple[str, str]]:
    """What to add to the options of a job for this container; ``named`` are those it has."""
    if "comment" in named or not reference or len(reference) > _LONGEST:
        return []
    if not reference.isprintable() or choice.configured(_KEY, environ) == "none":
        return []
    return [("comment", f"{PREFIX}{reference}")]


def reference(comment: str) -> str:
    """The container that a comment names; "" for a comment of the user's."""
    return comment.removeprefix(PREFIX) if comment.startswith(PREFIX) else ""
