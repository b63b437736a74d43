"""A command's way to a step that runs: its supervisor's own socket (sattach, sstat, scontrol).

The supervisor knows its tasks and what they write, and answers even without a controller.
"""

from __future__ import annotations

import os

from roadstead.engines import local
from roadstead.errors import EngineError, RoadsteadError
from roadstead.host import paths, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNKNOWN = "Could not get job step info: Invalid job id specified"


def connect(job: int, step: int) -> wire.Connection:
    """A connection to the step's supervisor.  Raises RoadsteadError where there is none."""
    runtime = paths.runtime_directory(os.environ)
    try:
        return wire.connect(f"{runtime}/steps/{_latest(runtime, job, step)}/ctl.sock")
    except FileNotFoundError:
        pass  # no such step, or none yet
    except ConnectionRefusedError:
        raise RoadsteadError(UNKNOWN) from None
    except OSError as error:
        raise EngineError(f"StepId={job}.{step}: {error.strerror}") from None
    if local.is_running(os.environ):
        steps = local.ask({"op": "query", "what": "steps", "job_id": job})["steps"]
        if any(each["step_id"] == step for each in steps):
            raise RoadsteadError(
                f"StepId={job}.{step} has not started, or is just ending", hint="try again"
            )
    raise RoadsteadError(UNKNOWN)


def _latest(runtime: str, job: int, step: int) -> str:
    """The name of the step's directory; a requeued job's batch step has one for each run."""
    name = f"{job}.{step}"
    runs = [0]
    for each in os.listdir(f"{runtime}/steps"):
        again = each[len(name) + 1 :]
        if each.startswith(f"{name}.") and again.isdecimal():
            runs.append(int(again))
    return f"{name}.{max(runs)}" if max(runs) else name


def ask(job: int, step: int, request: dict[str, Any]) -> dict[str, Any]:
    """One request to the step's supervisor, one answer.  Raises RoadsteadError."""
    connection = connect(job, step)
    try:
        connection.send(request)
        answer = local.receive(connection)
    except (BrokenPipeError, ConnectionResetError):
        answer = None
    finally:
        connection.close()
    if answer is None:
        raise RoadsteadError(UNKNOWN)
    return answer
