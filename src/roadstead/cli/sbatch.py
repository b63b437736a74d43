"""sbatch: hand a script over, to be run when there is room for it."""

from __future__ import annotations

import os
import sys

from roadstead.cli import attend, options, report
from roadstead.cli import script as scripts
from roadstead.engines import choice, local
from roadstead.errors import EngineError, RequestError, RoadsteadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from roadstead.cli.plugged import Plugged

COMMAND = "sbatch"
_MAX_SCRIPT = 4 << 20  # slurm.conf(5), max_script_size


def main(argv: list[str] | None = None) -> int:
    """Run sbatch with ``argv`` (without the program's name); its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    attend.open_standard_streams()
    try:
        if choice.is_slurm(os.environ):
            from roadstead.cli import cluster

            return cluster.main(COMMAND, argv)
        plugged = attend.plugins(COMMAND, argv)
        asked, operands = options.gather(COMMAND, argv, os.environ)
        if report.informational(COMMAND, asked):
            return 0
        if operands[:1] == [":"]:
            return _submit_components(argv, plugged)
        text, operands = _script(asked, operands)
        if "wrap" not in asked and not text.startswith("#!") and "apiVersion" in text[:65536]:
            from roadstead.cli import pod

            asked, text = pod.batch(argv, text, operands, os.environ)
            return _submit([asked], text, operands[:1], plugged)
        if "wrap" not in asked:
            found = scripts.directives(text)
            if any(each.argv[0] in ("hetjob", "packjob") for each in found):
                return _submit_components(argv, plugged)
            asked, _ = options.gather(COMMAND, argv, os.environ, found)
        if attend.wants_daemons(asked):
            text = _with_daemons(asked, text)
        return _submit([asked], text, operands, plugged)
    except RoadsteadError as error:
        return report.fail(COMMAND, error)
    except KeyboardInterrupt:
        return report.INTERRUPTED


def _with_daemons(asked: dict[str, str], text: str) -> str:
    """The script, with what brings up daemons before it."""
    from roadstead.cli import daemons

    if "container" in asked or "container-image" in asked:
        raise RequestError(
            "--dockerd is for scripts on the node, and this one is in a container",
            hint="leave out --container, and call srun --container in the script",
        )
    return daemons.script(daemons.of(asked, os.environ), text)


def _script(asked: dict[str, str], operands: list[str]) -> tuple[str, list[str]]:
    """The script's text and the job's argv, whose first word names the script."""
    if "wrap" in asked:
        if operands:
            raise UsageError(
                "Script arguments not permitted with --wrap option",
                hint='put them into the command: --wrap "command arguments"',
            )
        return scripts.wrap(asked["wrap"]), ["wrap"]
    name = operands[0] if operands else "/dev/stdin"
    try:
        with open(name if operands else 0, "rb", closefd=bool(operands)) as file:
            data = file.read(_MAX_SCRIPT + 1)
    except OSError as error:
        raise RoadsteadError(f"Unable to open file {name}: {error.strerror}") from None
    if len(data) > _MAX_SCRIPT:
        raise RoadsteadError(f"{name} is larger than {_MAX_SCRIPT >> 20} MiB")
    return data.decode("utf-8", "surrogateescape"), operands or ["sbatch"]


def _submit_components(argv: list[str], plugged: Plugged | None) -> int:
    """The same for a heterogeneous job: of the command line, of the script, or of both."""
    from roadstead.cli import components

    lines, operands = components.lines(COMMAND, argv)
    asked = components.gather(COMMAND, lines, os.environ)
    if report.informational(COMMAND, asked[0]):
        return 0
    text, operands = _script(asked[0], operands)
    if "wrap" not in asked[0]:
        found = components.of_script(scripts.directives(text))
        asked = components.gather(COMMAND, lines, os.environ, found)
    return _submit(asked, text, operands, plugged)


def _submit(
    components: list[dict[str, str]], text: str, operands: list[str], plugged: Plugged | None
) -> int:
    asked, *others = components
    if plugged is not None:
        plugged.settle([(each, operands) for each in components])
    report.explain(COMMAND, asked)
    if "dry-run" in asked:
        from roadstead.cli import rehearse

        return rehearse.main(COMMAND, "submit", [(each, operands) for each in components], text)
    message = attend.base_message(COMMAND, "submit", asked, operands)
    attend.add_components(COMMAND, message, [(each, operands) for each in others])
    message["script"] = text
    if "export-file" in asked:
        message["env"] = _exported(asked["export-file"], message["env"])
    if "test-only" in asked:
        try:
            report.say_forecast(COMMAND, local.ask(message))
        except RequestError as error:
            return report.test_failed(error)
        return 0
    answer = local.ask(message)
    if plugged is not None:
        plugged.end()
    job_id = answer["job_id"]
    if "parsable" in asked:
        report.write_out(f"{job_id}\n")
    elif "quiet" not in asked:
        report.write_out(f"Submitted batch job {job_id}\n")
    if "wait" not in asked:
        return 0
    # All elements of an array; sbatch(1): the highest exit code of any.
    return max(_wait(each) for each in range(job_id, answer.get("last", job_id) + 1))


def _exported(name: str, env: dict[str, str]) -> dict[str, str]:
    """--export-file: the variables of a file, NAME=VALUE with a NUL after each, in place of ours; a
    number from 3 on is a descriptor that we were started with (sbatch(1))."""
    by_number = name.isdecimal() and int(name) > 2
    try:
        with open(int(name) if by_number else name, "rb") as file:
            data = file.read(_MAX_SCRIPT)
    except OSError as error:
        raise RoadsteadError(f"Unable to read --export-file {name}: {error.strerror}") from None
    found = {name: value for name, value in env.items() if name.startswith("SLURM_")}
    for entry in data.decode("utf-8", "surrogateescape").split("\0"):
        variable, equals, value = entry.strip("\n").partition("=")
        if equals and variable:
            found[variable] = value
    return found


def _wait(job_id: int) -> int:
    """Sleep until the job has ended; its exit code."""
    while True:
        connection = local.request(
            {"op": "wait", "job_id": job_id, "step_id": None}, environ=os.environ
        )
        answer = local.receive(connection)
        connection.close()
        if answer is not None and answer.get("event") == "exit":
            return int(answer["code"])
        if answer is not None:
            raise EngineError(f"unexpected answer: {answer.get('event')}")
