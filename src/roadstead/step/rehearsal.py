"""What a step with a container would run: all that its supervisor does before the first call of the
runtime, by the same code, in a process of its own and a directory that goes away (trial.place).

What is told names the directories that the step would have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from roadstead.core.model import StepSpec
from roadstead.errors import RoadsteadError
from roadstead.host import apart, linux
from roadstead.step import layout, trial
from roadstead.step import plan as plans
from roadstead.step.container import Container
from roadstead.step.save import Saving

_SECONDS: Final = 600.0  # a root may have to be copied
_OPERATIONS: Final = {"run": ("run", "delete"), "create": ("create", "start", "delete")}


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One task: its config.json (None where the runtime alone reads the bundle), its variables with
    where each is from, and the command lines, by their operation."""

    procid: int
    node: str
    config: dict[str, Any] | None
    variables: dict[str, tuple[str, str]]
    commands: dict[str, list[str]]


@dataclass(slots=True)
class Outcome:
    """What came of it: the tasks, or why there would be none."""

    tasks: list[Rehearsed]
    error: str = ""
    hint: str = ""
    exit_code: int = 0


def run(spec: StepSpec, environ: Mapping[str, str], hear: Callable[[str], None]) -> Outcome:
    """Go through the preparation of ``spec``; ``hear`` is told each notice as it comes.

    Leaves nothing.  Raises EngineError where there is no place for it.
    """
    outcome = Outcome([])

    def heard(said: dict[str, Any]) -> None:
        if "notice" in said:
            hear(said["notice"])
        elif "error" in said:
            outcome.error, outcome.hint = said["error"], said["hint"]
            outcome.exit_code = said["exit_code"]
        else:
            variables = {name: (value, whence) for name, value, whence in said.pop("variables")}
            outcome.tasks.append(Rehearsed(**said, variables=variables))

    with trial.place(environ) as at:
        ending = apart.run(
            lambda say, _: _rehearse(spec, at, say), seconds=_SECONDS, grace=1.0, hear=heard
        )
    if ending.crash:
        raise AssertionError(f"{ending.crash}\n{ending.output}")
    if not ending.complete and not outcome.error:
        outcome.error, outcome.exit_code = "the rehearsal was ended before it was over", 1
    return outcome


def _rehearse(spec: StepSpec, at: str, say: apart.Say) -> None:
    """In a process of its own."""
    linux.set_process_name("roadstead-trial")
    real = os.path.dirname(os.path.dirname(spec.directory))
    inner = f"{at}{spec.directory[len(real) :]}"

    def shown(what: Any) -> Any:
        return json.loads(json.dumps(what).replace(json.dumps(at)[1:-1], json.dumps(real)[1:-1]))

    def notice(sentence: str) -> None:
        say({"notice": shown(sentence)})

    os.umask(spec.umask)
    os.makedirs(inner, mode=0o700)
    ours = replace(spec, directory=inner)
    plan: plans.Plan | None = None
    try:
        Saving.check_request(ours)
        (plan,) = plans.prepare(ours, notice, rehearse=True)
        assert plan is not None  # core/rehearsal.py sees to it
        for task in layout.task_specs(ours):
            say(shown(_told(Container(plan, task, notice))))
    except RoadsteadError as error:
        failure = {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
        say(shown(failure))
    finally:
        if plan is not None:
            plan.close()


def _told(container: Container) -> dict[str, Any]:
    config, commands = None, container.commands
    path = f"{container.directory.path}/config.json"
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    called = {name: commands.command(name) for name in _OPERATIONS[commands.mode]}  # type: ignore[arg-type]
    origins = container.directory.origins()
    made = {
        "procid": container.task.procid,
        "node": container.task.node,
        "config": config,
        "variables": [[name, value, whence] for name, (value, whence) in origins.items()],
        "commands": {name: argv for name, argv in called.items() if argv is not None},
    }
    container.close()
    return made
