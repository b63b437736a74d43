"""``--dry-run``: the config.json that would be, where variables are from, what would be called."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

from roadstead.cli import attend, report
from roadstead.core.model import StepSpec, from_json
from roadstead.core.printable import printable
from roadstead.engines import local
from roadstead.errors import UsageError
from roadstead.step import rehearsal
from roadstead.step.rehearsal import Rehearsed


def main(
    command: str,
    kind: str,
    components: list[tuple[dict[str, str], list[str]]],
    script: str = "",
) -> int:
    """Print what ``command`` would run; its exit code, which is the step's if it cannot start.

    Raises RoadsteadError.
    """
    (asked, operands), *others = components
    if others:
        raise UsageError("--dry-run is for jobs of one component")
    form = asked.pop("dry-run")
    if form not in ("", "json"):
        raise UsageError("Invalid --dry-run specification", hint="--dry-run, or --dry-run=json")
    message = attend.base_message(command, "rehearse", asked, operands)
    message["for"] = kind
    if script:
        message["script"] = script
    spec = from_json(StepSpec, local.ask(message)["step"])
    notices: list[str] = []

    def hear(sentence: str) -> None:
        notices.append(sentence)
        report.write_line(f"{command}: {printable(sentence)}")

    outcome = rehearsal.run(spec, os.environ, hear)
    if form == "json" and not outcome.error:
        report.write_out(f"{json.dumps(_document(outcome.tasks, notices), indent=2)}\n")
    elif not outcome.error:
        report.write_out(_text(outcome.tasks))
    else:
        hint = f"; {outcome.hint}" if outcome.hint else ""
        report.write_line(f"{command}: error: {printable(outcome.error)}{printable(hint)}")
    return outcome.exit_code


def _document(tasks: list[Rehearsed], notices: list[str]) -> dict[str, Any]:
    return {
        "tasks": [
            {
                "task": each.procid,
                "node": each.node,
                "config": each.config,
                "environment": {
                    name: {"value": value, "from": whence}
                    for name, (value, whence) in sorted(each.variables.items())
                },
                "commands": each.commands,
            }
            for each in tasks
        ],
        "notices": notices,
    }


def _text(tasks: list[Rehearsed]) -> str:
    """The first task in full; of the others what is different."""
    first, *others = tasks
    lines = [f"# config.json of task {first.procid} on {first.node}"]
    if first.config is None:
        lines.append("# the runtime reads the bundle's own (IgnoreFileConfigJson)")
    else:
        lines += json.dumps(first.config, indent=2, ensure_ascii=True).split("\n")
    lines += ["", "# environment, and where each variable is from"]
    lines += _variables(first.variables)
    for other in others:
        different = {
            name: found
            for name, found in other.variables.items()
            if first.variables.get(name) != found
        }
        lines += ["", f"# task {other.procid} on {other.node}", *_variables(different)]
    lines += ["", "# commands"]
    for each in tasks:
        lines += [printable(shlex.join(argv)) for argv in each.commands.values()]
    return "".join(f"{line}\n" for line in lines)


def _variables(variables: dict[str, tuple[str, str]]) -> list[str]:
    return [
        f"{whence:<15} {printable(f'{name}={value}')}"
        for name, (value, whence) in sorted(variables.items())
    ]
