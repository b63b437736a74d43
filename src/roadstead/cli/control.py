"""scontrol's keywords that change something: hold, release, requeue, suspend, resume, update.

Jobs are named by number, several with commas or blanks between them, or by ``JobName=NAME``.  What
could not be done to one of them is said, in Slurm's words, and the others have it done; the exit
code is 1 then.
"""

from __future__ import annotations

from roadstead.cli import report
from roadstead.cli.words import step_number
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
            number, underscore, index = word.replace("+", "_").partition("_")
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
    if not operands:
        raise UsageError("too few arguments for update keyword", hint="scontrol update KEY=VALUE…")
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
    if "stepid" in pairs:
        return _update_step(ask, pairs)
    if pairs.keys() & {"partitionname", "partition"}:
        return _set_partition(ask, pairs, create=False)
    if pairs.keys() & {"reservationname", "reservation"}:
        raise RequestError(_NO_RESERVATIONS)
    raise UsageError(
        "No valid entity in update command",
        hint="Input line must include JobId, StepId, NodeName or PartitionName",
    )


def _update_step(ask: Ask, pairs: dict[str, str]) -> int:
    job, dot, name = pairs.pop("stepid").partition(".")
    step = step_number(name)
    if not dot or step is None or not job.isdecimal():
        raise UsageError("Invalid StepId specification", hint="StepId=JOB.STEP")
    limit = pairs.pop("timelimit", None)
    if pairs or limit is None:
        what = next(iter(pairs), "")
        sentence = f"Update of this parameter is not supported: {what}" if what else ""
        raise UsageError(sentence or "No changes specified", hint="TimeLimit=MINUTES")
    ask({"op": "update_step", "job_id": int(job), "step_id": step, "limit": limit})
    return 0


_NO_RESERVATIONS: Final = "the local engine has no reservations"


def _set_partition(ask: Ask, pairs: dict[str, str], *, create: bool) -> int:
    name = pairs.pop("partitionname", "") or pairs.pop("partition", "")
    if not pairs and not create:
        raise UsageError("No changes specified", hint="PartitionName=NAME State=DOWN, for example")
    ask({"op": "set_partition", "name": name, "pairs": pairs, "create": create})
    return 0


def _create(ask: Ask, keyword: str, operands: list[str]) -> int:
    """``create PartitionName=new Nodes=n1 MaxTime=60``."""
    pairs = {}
    for operand in operands:
        name, equals, value = operand.partition("=")
        pairs[name.lower()] = value
        if name.lower() in ("reservation", "reservationname"):
            raise RequestError(_NO_RESERVATIONS)
        if not equals and name.lower() != "partition":
            raise UsageError(
                f"Invalid creation entity: {name}", hint="PartitionName=NAME KEY=VALUE…"
            )
    if not operands:
        raise UsageError(
            "too few arguments for create keyword", hint="PartitionName=NAME KEY=VALUE…"
        )
    if pairs.get("partition") == "":  # create partition PartitionName=new
        del pairs["partition"]
    return _set_partition(ask, pairs, create=True)


def _delete(ask: Ask, keyword: str, operands: list[str]) -> int:
    """``delete PartitionName=old``."""
    if not operands:
        raise UsageError("too few arguments for delete keyword", hint="PartitionName=NAME")
    for operand in operands:
        tag, _, name = operand.partition("=")
        if tag.lower() in ("reservation", "reservationname"):
            raise RequestError(_NO_RESERVATIONS)
        if tag.lower() not in ("partition", "partitionname") or not name:
            raise UsageError(f"Invalid deletion entity: {operand}", hint="PartitionName=NAME")
        ask({"op": "delete_partition", "name": name})
    return 0


def _notify(ask: Ask, keyword: str, operands: list[str]) -> int:
    """``notify JOB MESSAGE``: a line where the job's user reads."""
    if len(operands) < 2:
        raise UsageError("too few arguments for keyword:notify", hint="scontrol notify JOB MESSAGE")
    request = {"op": "control", "action": "notify", "jobs": _jobs(keyword, operands[:1])}
    answer = ask({**request, "sentence": " ".join(operands[1:])})
    for error in answer["errors"]:
        report.write_line(f"job notify failure: {error['why']}")
    return int(bool(answer["errors"]))


def _wait_job(ask: Ask, keyword: str, operands: list[str]) -> int:
    """``wait_job JOB``: until it has its nodes."""
    if len(operands) != 1:
        few = "many" if operands else "few"
        raise UsageError(f"too {few} arguments for keyword:wait_job", hint="scontrol wait_job JOB")
    number = operands[0]
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise RequestError(f"Invalid job id specified: {number}", hint="squeue lists them")
    try:
        answer = ask({"op": "ready", "job_id": int(number)})
    except RequestError:
        report.warn_plainly("scontrol", f"Problem running job {number}")
        return 1
    if answer["event"] == "ready":
        report.warn_plainly("scontrol", f"Nodes are ready for job {number}")
        return 0
    report.warn_plainly("scontrol", f"Job {number} no longer running")
    return 1


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
    "create": _create,
    "delete": _delete,
    "notify": _notify,
    "top": _to_jobs("top"),
    "wait_job": _wait_job,
    "reconfigure": _reconfigure,
}

# How much of a keyword has to be there; of the others, all (Slurm: scontrol.c, _process_command).
_LEAST: Final = {
    "reconfigure": 3, "release": 3, "requeue": 3, "requeuehold": 8, "resume": 3, "suspend": 2,
    "update": 1, "create": 2, "delete": 2, "notify": 1, "wait_job": 2,
}  # fmt: skip


def named(word: str) -> str:
    """The keyword that a word in lower case stands for, cut short or not; "" for none of these."""
    if word in VERBS:
        return word
    fitting = (name for name, least in _LEAST.items() if len(word) >= least)
    return next((name for name in fitting if name.startswith(word)), "")
