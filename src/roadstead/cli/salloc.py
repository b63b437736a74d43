"""salloc: hold an allocation while a command runs in it.

Without a container the command (or the user's shell) runs here, with the allocation's variables, as
Slurm's does.  With ``--container`` it is the job's interactive step and runs inside: that is what
the Containers Guide shows for ``salloc --container … bash -c …``, and what Slurm itself does for an
interactive shell only.
"""

from __future__ import annotations

import os
import select
import sys

from roadstead.cli import attend, options, report
from roadstead.engines import choice, local
from roadstead.errors import EngineError, RequestError, RoadsteadError
from roadstead.host import child, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from roadstead.cli.daemons import Daemons
    from roadstead.host.wire import Connection

COMMAND = "salloc"


def main(argv: list[str] | None = None) -> int:
    """Run salloc with ``argv`` (without the program's name); its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    attend.open_standard_streams()
    try:
        if choice.is_slurm(os.environ):
            from roadstead.cli import cluster

            return cluster.main(COMMAND, argv)
        plugged = attend.plugins(COMMAND, argv)
        asked, operands = options.gather(COMMAND, argv, os.environ)
        others: list[dict[str, str]] = []
        if operands[:1] == [":"]:
            from roadstead.cli import components

            lines, operands = components.lines(COMMAND, argv)
            asked, *others = components.gather(COMMAND, lines, os.environ)
        if report.informational(COMMAND, asked):
            return 0
        if plugged is not None:
            plugged.settle([(each, operands) for each in (asked, *others)])
        code = _allocate(asked, others, operands)
        if plugged is not None:
            plugged.end()
        return code
    except RoadsteadError as error:
        return report.fail(COMMAND, error)
    except KeyboardInterrupt:
        return report.INTERRUPTED


def _allocate(asked: dict[str, str], others: list[dict[str, str]], operands: list[str]) -> int:
    quiet = "quiet" in asked
    wanted = _daemons(asked)
    report.explain(COMMAND, asked)
    message = attend.base_message(COMMAND, "allocate", asked, operands)
    attend.add_components(COMMAND, message, [(each, operands) for each in others])
    signal_fd = signals.watch([signals.SIGINT, *signals.FORWARDED])
    connection = local.request(message, environ=os.environ)
    granted = _until_granted(connection, signal_fd, quiet)
    if granted is None:
        return 1
    job_id = granted["job_id"]
    if "no-shell" in asked:
        connection.send({"op": "keep"})
        local.receive(connection)
        return 0
    code = 1
    if wanted is not None:
        wanted.enter({**message["env"], **granted["env"]})
    try:
        if wanted is not None:
            wanted.start()
            granted["env"] |= wanted.variables
            wanted.mount(asked)
        if asked.get("container") or asked.get("container-name"):
            code = _interactive_step(message, operands, granted)
        else:
            env = {**message["env"], **granted["env"]}
            code = _local_command(connection, signal_fd, asked, operands, env)
    finally:
        if wanted is not None:
            wanted.stop()
        _say(quiet, f"Relinquishing job allocation {job_id}")
        _release(connection, code)
    return code


def _daemons(asked: dict[str, str]) -> Daemons | None:
    """Those that are to be there while the command runs; nothing of them is started."""
    if not attend.wants_daemons(asked):
        return None
    from roadstead.cli import daemons

    if "no-shell" in asked:
        raise RequestError(
            "--dockerd and --no-shell contradict each other: nothing is run", hint="leave one out"
        )
    return daemons.Daemons(daemons.of(asked, os.environ))


def _say(quiet: bool, sentence: str) -> None:
    if not quiet:
        report.write_line(f"{COMMAND}: {sentence}")


def _until_granted(connection: Connection, signal_fd: int, quiet: bool) -> dict[str, Any] | None:
    """Sleep until the allocation is granted; None when a signal ended the wait."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    poll.register(signal_fd, select.POLLIN)
    job_id = 0
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if signal_fd in ready:
            _say(quiet, f"Job allocation {job_id} has been revoked.")
            return None
        answer = local.receive(connection)
        if answer is None:
            local.connect(os.environ).close()  # as in attend.py: who ends what has begun
            raise EngineError(
                "the controller ended before the allocation was granted", hint="submit it again"
            )
        if answer["event"] == "pending":
            job_id = answer["job_id"]
            _say(quiet, f"Pending job allocation {job_id}")
            _say(quiet, f"job {job_id} queued and waiting for resources")
        elif answer["event"] == "granted":
            if job_id:
                _say(quiet, f"job {job_id} has been allocated resources")
            _say(quiet, f"Granted job allocation {answer['job_id']}")
            return answer


def _release(connection: Connection, code: int) -> None:
    """Give the allocation back, and wait until it is: the next command may need its CPUs."""
    try:
        connection.send({"op": "release", "code": code})
        while local.receive(connection) is not None:
            continue
    except (BrokenPipeError, ConnectionResetError, RoadsteadError):
        pass
    connection.close()


def _interactive_step(
    allocation: dict[str, Any], operands: list[str], granted: dict[str, Any]
) -> int:
    """Run the command in the container, as the job's step; what the container is stays as it was
    resolved for the allocation."""
    asked: dict[str, str] = allocation["options"]
    kept = {
        name: value
        for name, value in asked.items()
        if name.startswith(("container", "no-container", "device"))
        or name in ("chdir", "verbose", "quiet", "ntasks")
    }
    shell = os.environ.get("SHELL") or "/bin/sh"
    message = attend.base_message(COMMAND, "run", {}, operands or [shell])
    message["options"] = {**kept, "jobid": str(granted["job_id"])}
    message |= {name: allocation[name] for name in ("image", "edf") if name in allocation}
    message["env"] |= granted["env"]
    message["in_job"] = granted["job_id"]
    message["interactive"] = True
    if os.isatty(0) and os.isatty(1):
        message["terminal"] = attend.terminal_size()
    return attend.Attendance(
        COMMAND, message, verbose=int(asked.get("verbose", "0")), quiet="quiet" in asked
    ).run()


def _local_command(
    connection: Connection,
    signal_fd: int,
    asked: dict[str, str],
    operands: list[str],
    env: dict[str, str],
) -> int:
    """Run the command here; end with it.  When the allocation is taken away the command is told
    so by a signal if --kill-command says which (salloc(1)); else it may go on without."""
    revoked = signals.number(asked["kill-command"] or "TERM") if "kill-command" in asked else 0
    argv = operands or [os.environ.get("SHELL") or "/bin/sh"]
    signals.ignore([signals.SIGINT, signals.SIGQUIT, signals.SIGTSTP])
    try:
        pid, pidfd = child.start_foreground(argv, env)
    except FileNotFoundError:
        report.write_line(f"{COMMAND}: error: Unable to exec command {argv[0]}: not found")
        return 127
    except OSError as error:
        report.write_line(f"{COMMAND}: error: Unable to exec command {argv[0]}: {error.strerror}")
        return 126
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(connection.fileno(), select.POLLIN)
    poll.register(signal_fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if pidfd in ready:
            return child.reap(pid)
        if signal_fd in ready:
            for signo in os.read(signal_fd, 256):
                child.signal(pidfd, signo)
            continue
        answer = local.receive(connection)
        if answer is None or answer["event"] == "revoked":
            poll.unregister(connection.fileno())
            if answer is not None:
                report.write_line(f"{COMMAND}: Job allocation {answer['job_id']} has been revoked.")
                if revoked:
                    child.signal(pidfd, revoked)
        elif answer["event"] == "notice":
            report.write_line(f"{COMMAND}: {answer['sentence']}")
