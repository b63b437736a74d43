"""scontrol's keywords that change something: hold, release, requeue, suspend, resume, update.

Jobs are named by number, several with commas or blanks between them, or by ``JobName=NAME``.  What
could not be done to one of them is said, in Slurm's words, and the others have it done; the exit
code is 1 then.
"""

from __future__ import annotations

from roadstead.cli import report
from roadstead.core import hostlist
from roadstead.errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    from roadstead.cli.words import Ask

    Verb: TypeAlias = Callable[["Ask", str, list[str]], int]


def _to_jobs(action: str, **fields: Any) -> Verb:
    """The keyword that does ``action`` to each job it names."""

    def verb(ask: Ask, keyword: str, operands: list[str]) -> int:
        jobs = _jobs(keyword, operands)
        return _say(ask({"op": "control", "action": action, "jobs": jobs, **fields}))

    return verb


def _requeue_hold(ask: Ask, keyword: str, operands: list[str]) -> int:
    """``requeuehold [State=SpecialExit] JOB…``."""
    tag, _, word = (operands or [""])[0].partition("=")
    fields = {}
    if tag.lower() == "state":
        if word.lower() not in ("specialexit", "special_exit"):
            raise UsageError(f"Invalid State specification: {word}", hint="State=SpecialExit")
        fields = {"special": True}
    return _to_jobs("requeue", hold=True, **fields)(ask, keyword, operands[bool(fields) :])


def _jobs(keyword: str, operands: list[str]) -> list[int | str]:
    found: list[int | str] = []
    for operand in operands:
        tag, equals, name = operand.partition("=")
        if equals and tag.lower() in ("jobname", "name"):
            found.append(name)
            continue
        listed = name if equals and tag.lower() in ("job", "jobid") else operand
        words = hostlist.split(listed)
        if not words or listed.endswith(","):
            words.append("")
        for word in words:
            number, underscore, index = word.partition("_")
            parts = [
                number,
                *(index.strip("[]").replace("-", ",").split(",") if underscore else []),
            ]
            if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
                raise RequestError(f"Invalid job id specified: {word}", hint="squeue lists them")
            found.append(word if underscore else int(word))
    if not found:
        raise UsageError(
            f"too few arguments for keyword:{keyword}", hint=f"scontrol {keyword} JOBID[,JOBID…]"
        )
    return found


def _say(answer: dict[str, Any]) -> int:
    for error in answer["errors"]:
        report.write_line(f"{error['why']} for job {error['job_id']}")
    return int(bool(answer["errors"]))


def _update(ask: Ask, keyword: str, operands: list[str]) -> int:
    """``update JobId=7 TimeLimit=10``, ``update NodeName=n1 State=DRAIN Reason="…"``."""
    pairs: dict[str, str] = {}
    expected = ""
    for operand in operands:
        name, equals, value = operand.partition("=")
        if name.lower() == "arraytaskthrottle" and not equals:  # two words are the same
            expected = name
            continue
        if expected:
            name, equals, value, expected = expected, "=", operand, ""
        if name[-1:] in ("+", "-") and equals:  # TimeLimit+=5
            name, value = name[:-1], name[-1] + value
        if not equals:
            raise UsageError(f"Invalid input: {operand}", hint="write KEY=VALUE")
        pairs[name.lower()] = value
    if "jobid" in pairs or "job" in pairs:
        return _update_job(ask, pairs)
    if "nodename" in pairs:
        return _update_node(ask, pairs)
    raise UsageError(
        "No valid entity in update command",
        hint="Input line must include JobId or NodeName",
    )


# What Slurm calls the same thing by.
_SAME: Final = {"jobname": "name", "partitionname": "partition", "eligibletime": "starttime"}


def _update_job(ask: Ask, pairs: dict[str, str]) -> int:
    jobs = _jobs("update", [pairs.pop("jobid", "") or pairs.pop("job", "")])
    changes = {_SAME.get(name, name): value for name, value in pairs.items()}
    if changes.keys() & {"starttime", "deadline"}:
        from roadstead.cli import moments

        moments.convert(changes, "starttime", "deadline")
    if not changes:
        raise UsageError("No changes specified", hint="scontrol update JobId=7 TimeLimit=10")
    return _say(ask({"op": "control", "action": "update", "jobs": jobs, "changes": changes}))


def _update_node(ask: Ask, pairs: dict[str, str]) -> int:
    nodes, state, reason = pairs.pop("nodename"), pairs.pop("state", ""), pairs.pop("reason", "")
    if pairs:
        raise UsageError(
            f"Update of this parameter is not supported: {next(iter(pairs))}",
            hint="a node's State and Reason can be changed; the rest is in roadstead.conf",
        )
    if not state:
        raise UsageError("No changes specified", hint="State=DRAIN Reason=TEXT, or State=RESUME")
    ask({"op": "update_node", "nodes": nodes, "state": state, "reason": reason})
    return 0


def _reconfigure(ask: Ask, keyword: str, operands: list[str]) -> int:
    """Read roadstead.conf again; what runs goes on."""
    if operands:
        raise UsageError("too many arguments for keyword:reconfigure")
    for warning in ask({"op": "reconfigure"})["warnings"]:
        report.warn("scontrol", warning)
    return 0


VERBS: dict[str, Verb] = {
    "hold": _to_jobs("hold"),
    "uhold": _to_jobs("hold"),
    "holdu": _to_jobs("hold"),
    "release": _to_jobs("release"),
    "requeue": _to_jobs("requeue"),
    "requeuehold": _requeue_hold,
    "suspend": _to_jobs("suspend"),
    "resume": _to_jobs("resume"),
    "update": _update,
    "reconfigure": _reconfigure,
}

# How much of a keyword has to be there; of the others, all (Slurm: scontrol.c, _process_command).
_LEAST: Final = {
    "reconfigure": 3, "release": 3, "requeue": 3, "requeuehold": 8, "resume": 3, "suspend": 2,
    "update": 1,
}  # fmt: skip


def named(word: str) -> str:
    """The keyword that a word in lower case stands for, cut short or not; "" for none of these."""
    if word in VERBS:
        return word
    fitting = (name for name, least in _LEAST.items() if len(word) >= least)
    return next((name for name in fitting if name.startswith(word)), "")
