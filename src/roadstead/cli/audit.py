"""roadstead audit: what of ours is left that no step needs any more, and with --clean its removal.

Without --clean nothing is changed: no controller is started to stay, as one that starts cleans up
by itself.  With it the controller comes first: it ends what the journal says has begun and whose
supervisor is gone; only then are steps without a supervisor nobody's.

The exit code is 0 when nothing is left in the end, else 1.
"""

from __future__ import annotations

import os

from roadstead.cli import report
from roadstead.engines import local
from roadstead.errors import EngineError, RoadsteadError, UsageError
from roadstead.host import paths, process, wire
from roadstead.step import audit

_PATIENCE_MS = 3000  # with a spawner or a spare supervisor whose controller has ended
_OPTIONS = ("--clean", "--json")


def main(operands: list[str]) -> int:
    """Run ``roadstead audit`` with its operands.  Raises RoadsteadError."""
    wrong = [word for word in operands if word not in _OPTIONS]
    if wrong:
        raise UsageError(
            f"audit does not know {' '.join(wrong)}", hint="roadstead audit [--clean] [--json]"
        )
    clean, environ = "--clean" in operands, dict(os.environ)
    state, runtime = paths.state_directory(environ), paths.runtime_directory(environ)
    if not os.path.isdir(state):
        return _report([], {}, operands)  # never used, so there is nothing
    try:
        left = _left(state, runtime, environ, clean=clean)
        failed = dict(audit.remove(left)) if clean else {}
    except OSError as error:
        raise RoadsteadError(f"cannot look at {error.filename}: {error.strerror}") from None
    return _report(left, failed, operands)


def _left(state: str, runtime: str, environ: dict[str, str], *, clean: bool) -> list[audit.Thing]:
    before = audit.look(state, runtime, environ)
    if stuck := _stuck(before, environ):
        if not clean:
            return stuck  # they hold the lock of the journal that tells what else is left
        audit.remove(stuck)
    if clean:
        local.ask({"op": "ping"}, environ)
        _settle(before, environ)
    controller, live = local.live_steps(environ)
    if not clean and not controller:  # the next one will find that these have no supervisor
        live = [directory for directory in live if directory not in before.directories]
    after = audit.look(state, runtime, environ)
    found = audit.compare(before, live, after, controller=controller)
    return sorted({*stuck, *found})


def _stuck(seen: audit.Seen, environ: dict[str, str]) -> list[audit.Thing]:
    """Spawners and spare supervisors that have outlived their controller; it has ended them as a
    rule, in the moment in which they have launched what it asked for."""
    if local.is_running(environ):
        return []
    idle = [thing for thing in seen.things if thing.kind == "engine process"]
    return [thing for thing in idle if not process.ends_within(thing.pid, _PATIENCE_MS)]


def _settle(seen: audit.Seen, environ: dict[str, str]) -> None:
    """Wait for the controller to end the steps whose supervisors were killed."""
    _, live = local.live_steps(environ)
    for directory in seen.directories - seen.supervised:
        if directory in live:
            job, _, step = os.path.basename(directory).partition(".")
            _wait({"op": "wait", "job_id": int(job), "step_id": int(step)}, environ)


def _wait(request: dict[str, object], environ: dict[str, str]) -> None:
    """Hear the controller out until it says that the step has ended."""
    connection = local.request(request, environ=environ)
    try:
        while (answer := local.receive(connection)) and answer["event"] != "exit":
            pass
    except EngineError:
        raise
    except RoadsteadError:
        return  # it is not known any more: it has ended
    finally:
        connection.close()


def _report(left: list[audit.Thing], failed: dict[audit.Thing, str], operands: list[str]) -> int:
    clean = "--clean" in operands
    if "--json" in operands:
        rows = [
            {
                "kind": thing.kind,
                "what": thing.what,
                "step": os.path.basename(thing.step) if "/" in thing.step else "",
                "removed": clean and thing not in failed,
                "error": failed.get(thing, ""),
            }
            for thing in left
        ]
        report.write_out(f"{wire.dumps({'left': rows})}\n")
    else:
        for thing in left:
            said = f"not removed: {failed[thing]}" if thing in failed else "removed"
            of = f" of step {os.path.basename(thing.step)}" if "/" in thing.step else ""
            report.write_out(f"{thing.kind} {thing.what}{of}{f': {said}' if clean else ''}\n")
        if not left:
            report.write_out("nothing is left behind\n")
        elif not clean:
            report.write_line("roadstead audit --clean removes it")
    return int(bool(failed if clean else left))
