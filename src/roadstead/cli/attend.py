"""Attending a step that the engine runs for this command: srun, and salloc's interactive step.

The task has our own standard streams, so there is nothing to carry: we sleep in poll(2) until the
controller sends a message, a signal arrives, or, when our standard input is a terminal, a line is
typed.  A terminal is the one thing the tasks never get: it is read here, where the shell's job
control reaches us (a background srun that reads it is stopped, like any program).

The exit code is the step's: the program's own, 128 + signal, 127, 126 or 125 (docs/exit-codes.md).
"""

from __future__ import annotations

import os
import select
import time

from roadstead.cli import report
from roadstead.engines import local
from roadstead.errors import EngineError, RequestError, RoadsteadError, UsageError
from roadstead.host import paths, signals, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from roadstead.cli.plugged import Plugged
    from roadstead.host.wire import Connection

_CHUNK = 65536
# What slurmstepd says in Slurm; scripts look for these lines.
_SLURMSTEPD = ("error: ***", "error: StepId=", "error: Exceeded job memory limit")


class Attendance:
    """One step, from the request to its exit code."""

    def __init__(self, command: str, message: dict[str, Any], *, verbose: int, quiet: bool) -> None:
        self.command = command
        self.message = message
        self.verbose = verbose
        self.quiet = quiet
        self.quit_on_interrupt = False  # the first Ctrl-C ends the step
        self.pass_on_interrupt = False  # the first Ctrl-C goes to the tasks
        self._connection: Connection | None = None
        self._job = 0
        self._step = -1
        self._pending = False
        self._started = False
        self._interrupts: list[float] = []
        self._early: list[int] = []
        self._resized = False  # since the request, which told the terminal's size
        self._input = -1  # the write end of the pipe that carries typed lines
        self._typed = b""  # what it has not taken yet
        self._old_mode: list[Any] | None = None
        self._said: set[str] = set()  # sentences about the end that were there before it
        self.plugged: Plugged | None = None  # plugins that want to know the step before it starts
        self._waiting_step: Connection | None = None  # what its supervisor waits at

    @property
    def variables(self) -> dict[str, str]:
        """What tells which step it was."""
        return {
            "SLURM_JOB_ID": str(self._job),
            "SLURM_JOBID": str(self._job),
            "SLURM_STEP_ID": str(self._step),
            "SLURM_STEPID": str(self._step),
        }

    def run(self) -> int:
        """Send the request, attend the step, return its exit code.  Raises RoadsteadError."""
        pty = self.message.get("terminal") is not None
        fds = self._streams(pty)
        signal_fd = signals.watch(
            [signals.SIGINT, *signals.FORWARDED, *([signals.SIGWINCH] if pty else [])]
        )
        if self.plugged is not None:
            self._waiting_step, theirs = wire.pair()
            fds = (*fds, theirs.detach())
        self._connection = local.request(self.message, fds, environ=os.environ)
        for fd in fds:
            if fd > 2:
                os.close(fd)
        return self._attend_on_terminal(signal_fd) if pty else self._attend(signal_fd)

    def _attend_on_terminal(self, signal_fd: int) -> int:
        from roadstead.cli import terminal  # termios: 1 ms that only --pty needs

        self._old_mode = terminal.make_raw(0)
        try:
            return self._attend(signal_fd)
        finally:
            terminal.restore(0, self._old_mode)
            self._old_mode = None

    def _streams(self, pty: bool) -> tuple[int, ...]:
        """What the task gets as 0, 1 and 2."""
        if pty or not os.isatty(0) or "input" in self.message["options"]:
            return 0, 1, 2
        read, self._input = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._input, False)  # a task that does not read must not keep us
        return read, 1, 2

    def _attend(self, signal_fd: int) -> int:
        poll = select.poll()
        assert self._connection is not None
        poll.register(self._connection.fileno(), select.POLLIN)
        poll.register(signal_fd, select.POLLIN)
        if self._input >= 0:
            poll.register(0, select.POLLIN)
        if self._waiting_step is not None:
            poll.register(self._waiting_step.fileno(), select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if self._waiting_step is not None and fd == self._waiting_step.fileno():
                    poll.unregister(fd)
                    self._let_go(self._waiting_step)
                elif fd == signal_fd:
                    for signo in os.read(signal_fd, 256):
                        self._on_signal(signo)
                elif fd in (0, self._input) and self._input >= 0:
                    self._carry_input(poll)
                elif fd == self._connection.fileno():
                    answer = self._receive()
                    if answer is None:
                        poll.unregister(fd)
                        self._reconnect()
                        poll.register(self._connection.fileno(), select.POLLIN)
                        continue
                    code = self._on_answer(answer)
                    if code is not None:
                        return code

    def _let_go(self, step: Connection) -> None:
        """The step has its numbers, and waits for our plugins."""
        assert self.plugged is not None
        received = step.receive()
        self._waiting_step = None
        if received is not None:
            try:
                self.plugged.numbered(received[0]["job_id"], received[0]["step_id"])
                answer: dict[str, Any] = {"go": True}
            except RoadsteadError as error:
                answer = {"failed": str(error), "hint": error.hint}
            self._tell(step, answer)
        step.close()

    def _receive(self) -> dict[str, Any] | None:
        assert self._connection is not None
        return local.receive(self._connection)

    def _reconnect(self) -> None:
        """The controller has gone: the next one knows how the step ends, or has ended."""
        assert self._connection is not None
        self._connection.close()
        if not self._started:
            # What it may have begun meanwhile is ended by the next controller, and by none other.
            local.connect(os.environ).close()
            raise EngineError(
                "the controller ended before the job had started", hint="submit it again"
            )
        message = {"op": "wait", "job_id": self._job, "step_id": self._step}
        self._connection = local.request(message, environ=os.environ)

    def _carry_input(self, poll: Any) -> None:
        """Pass on what was typed; the end of it, or of the task's interest, ends the pipe.

        What the pipe does not take is kept, and until it does nothing more is read.
        """
        waited = bool(self._typed)
        try:
            self._typed = self._typed or os.read(0, _CHUNK)
            done = os.write(self._input, self._typed) if self._typed else -1
        except BlockingIOError:
            done = 0
        except OSError:  # nobody reads any more, or the terminal has gone
            done = -1
        self._typed = self._typed[done:] if done >= 0 else b""
        if done >= 0 and bool(self._typed) == waited:
            return
        poll.unregister(self._input if waited else 0)
        if done < 0:
            os.close(self._input)
            self._input = -1
        elif waited:
            poll.register(0, select.POLLIN)
        else:
            poll.register(self._input, select.POLLOUT)

    # -- what the controller says ---------------------------------------------------------------

    def _on_answer(self, answer: dict[str, Any]) -> int | None:
        match answer["event"]:
            case "pending":
                self._job = answer["job_id"]
                self._pending = True
                self._say(f"job {self._job} queued and waiting for resources")
                for signo in self._early:
                    self._give_up(signo)
            case "started":
                self._job, self._step = answer["job_id"], answer["step_id"]
                self._started = True
                if self._pending:
                    self._say(f"job {self._job} has been allocated resources")
                if self._resized:  # what was said before may have met a step that had not begun
                    self._tell_size()
                early, self._early = self._early, []
                for signo in early:
                    self._on_signal(signo)
            case "notice":
                self._on_notice(answer["sentence"])
            case "exit":
                return self._on_exit(answer)
            case "forecast":
                report.say_forecast(self.command, answer)
                return 0
            case _:
                pass  # a newer controller may tell more than we understand
        return None

    def _on_notice(self, sentence: str) -> None:
        if sentence.startswith("cpu-bind="):
            self._write_raw(sentence)
        elif sentence.startswith(_SLURMSTEPD):
            self._write(sentence, "slurmstepd")
            self._said.add(sentence.removeprefix("error: "))
        elif self.verbose or sentence.startswith(("error:", "warning:")):
            self._write(sentence)
        elif sentence.startswith("Job "):
            self._say(sentence)

    def _on_exit(self, answer: dict[str, Any]) -> int:
        tasks = answer.get("record", {}).get("tasks", [])
        node = answer.get("node", "")
        for task in tasks:
            if task["message"] and task["message"] not in self._said:
                self._said.add(task["message"])
                hint = f"; {task['hint']}" if task["hint"] else ""
                who = "slurmstepd" if task.get("reason") == "memory" else ""
                self._write(f"error: {task['message']}{hint}", who)
        groups: dict[str, list[int]] = {}
        for task in tasks:
            if task.get("reason") == "memory" or (task["code"] and not task["message"]):
                groups.setdefault(_ending(task), []).append(task["procid"])
        for words, numbers in groups.items():
            plural = "s" if len(numbers) > 1 else ""
            self._write(f"error: {node}: task{plural} {_ranges(numbers)}: {words}")
        return int(answer["code"])

    def _say(self, sentence: str) -> None:
        if not self.quiet:
            self._write(sentence)

    def _write(self, sentence: str, who: str = "") -> None:
        self._write_raw(f"{who or self.command}: {sentence}")

    def _write_raw(self, line: str) -> None:
        report.write_line(line, "\r\n" if self._old_mode is not None else "\n")

    # -- signals ----------------------------------------------------------------------------------

    def _send(self, message: dict[str, Any]) -> None:
        assert self._connection is not None
        self._tell(self._connection, message)

    @staticmethod
    def _tell(connection: Connection, message: dict[str, Any]) -> None:
        try:
            connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return  # the poll sees it too, and reconnects, or hears how the step has ended

    def _on_signal(self, signo: int) -> None:
        if signo == signals.SIGWINCH:
            self._resized = True
            self._tell_size()
        elif not self._started:
            self._on_early_signal(signo)
        elif signo == signals.SIGINT:
            self._on_interrupt()
        else:
            self._send({"op": "signal", "signal": signo})

    def _tell_size(self) -> None:
        self._send({"op": "resize", **terminal_size()})

    def _on_early_signal(self, signo: int) -> None:
        """Before we know of a start: a job that waits is given up; for one that may be starting
        right now the signal is kept until there is something to send it to."""
        if self._pending or signo in self._early:
            self._give_up(signo)
        self._early.append(signo)

    def _give_up(self, signo: int) -> None:
        if self._job:
            raise RoadsteadError(f"Job allocation {self._job} has been revoked")
        raise RoadsteadError(f"cancelled by signal {signo}")

    def _on_interrupt(self) -> None:
        """Once: say what runs.  Twice within a second: end it.  Thrice: do not wait (srun(1))."""
        now = time.monotonic()
        self._interrupts = [at for at in self._interrupts if now - at < 1.0] + [now]
        name = f"StepId={self._job}.{self._step}"
        if self.pass_on_interrupt and len(self._interrupts) == 1:
            self._send({"op": "signal", "signal": signals.SIGINT})
        elif self.quit_on_interrupt or len(self._interrupts) == 2:
            self._write(f"sending Ctrl-C to {name}")
            self._send({"op": "signal", "signal": signals.SIGINT})
            self._send({"op": "terminate"})
        elif len(self._interrupts) > 2:
            raise RoadsteadError("forcing job termination")
        else:
            self._write("interrupt (one more within 1 sec to abort)")
            self._write(f"{name} is running")


def _ending(task: dict[str, Any]) -> str:
    if task.get("reason") == "memory":
        return "Out Of Memory"
    if task["signal"]:
        return signals.describe(task["signal"])
    return f"Exited with exit code {task['code']}"


def _ranges(numbers: list[int]) -> str:
    """0,1,2,5 → "0-2,5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def wants_daemons(asked: dict[str, str]) -> bool:
    """Whether --dockerd or the like is among the options (cli/daemons.py)."""
    return "dockerd" in asked or "podman-service" in asked or "dockerd-image" in asked


def plugins(command: str, argv: list[str]) -> Plugged | None:
    """The plugins of plugstack.conf, loaded, and their options known; None where there is none."""
    path = paths.plugstack(os.environ)
    if not path:
        return None
    from roadstead.cli.plugged import Plugged

    return Plugged(command, path, verbose="-v" in argv or "--verbose" in argv)


def base_message(
    command: str, op: str, options: dict[str, str], operands: list[str]
) -> dict[str, Any]:
    """What every request for a job or a step carries of this process's surroundings."""
    import pwd

    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        raise RoadsteadError(
            "the current directory does not exist any more", hint="cd to one that does"
        ) from None
    if options.keys() & {"image", "volume"} or (command == "srun" and operands[:1] == ["shifter"]):
        from roadstead.cli import shifter

        operands = shifter.apply(command, options, operands)
    container = settle(command, options, cwd)
    uid = os.getuid()
    user = os.environ.get("USER", "")
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = user or str(uid)
    if "mail-type" in options:
        container["mailer"] = mailer(command)
    job, step = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_STEP_ID", "")
    return {
        "op": op,
        "key": os.urandom(8).hex(),
        "options": options,
        "argv": operands,
        # A variable without a name ("=x") is in nobody's way, and exec(3) of Python refuses it.
        "env": {name: value for name, value in os.environ.items() if name},
        "cwd": cwd,
        "umask": paths.umask(),
        "user": user,
        "gid": os.getgid(),
        "terminal": None,
        "in_job": int(job) if job.isdigit() else None,
        "in_step": int(step) if step.isdigit() else None,
        **container,
    }


def mailer(command: str) -> str:
    """Who takes the letters that --mail-type asks for; a job without one goes on all the same."""
    from roadstead.host import post

    found = post.find(os.environ)
    if not found:
        report.write_line(
            f"{command}: warning: --mail-type: there is no sendmail on this machine: "
            "nobody will be told by mail"
        )
    return found


def add_components(
    command: str, message: dict[str, Any], others: list[tuple[dict[str, str], list[str]]]
) -> None:
    """Add those of a heterogeneous request beside its first one, each with its options and what it
    runs."""
    if others:
        message["components"] = [
            {"options": asked, "argv": argv, **settle(command, asked, message["cwd"])}
            for asked, argv in others
        ]


def settle(command: str, options: dict[str, str], cwd: str) -> dict[str, Any]:
    """Change those of the ``options`` that mean something here and now into what they mean anywhere
    and later; what the message is to say of the container beside them.  Raises RoadsteadError."""
    if given := next((name for name in ("image", "volume") if name in options), ""):
        raise RequestError(
            f"--{given} is for srun, sbatch and salloc, and for a job of one component",
            hint="--container=shifter:NAME says it anywhere",
        )
    if options.keys() & {"begin", "deadline"}:
        from roadstead.cli import moments

        moments.convert(options, "begin", "deadline")
    if "nodefile" in options or "/" in options.get("nodelist", ""):
        _read_hosts(options)
    if "tmp" in options:
        _check_disk(options["tmp"])
    bundle = options.get("container", "")
    if (
        "container-image" in options
        or "environment" in options
        or "sqsh" in options.get("container-mounts", "")
        or (bundle and not os.path.lexists(f"{bundle}/config.json"))
    ):
        from roadstead.cli import containers  # images: what a bundle's path does not need

        return containers.prepare(command, options, cwd, os.environ)
    if bundle:
        options["container"] = os.path.normpath(os.path.join(cwd, bundle))
    return {}


def _read_hosts(options: dict[str, str]) -> None:
    """--nodefile, or a --nodelist that is a path: the names in that file become the nodes."""
    name = "nodefile" if "nodefile" in options else "nodelist"
    path = options.pop(name)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.partition("#")[0] for line in file]
    except OSError as error:
        raise UsageError(f"Invalid --{name} node file", hint=f"{path}: {error.strerror}") from None
    options["nodelist"] = ",".join([word for line in lines for word in line.split()])


def _check_disk(wanted: str) -> None:
    """--tmp: MiB that the file system of temporary files is to have; every node is this machine."""
    from roadstead.core import values

    place = os.environ.get("TMPDIR") or "/tmp"
    found = os.statvfs(place)
    if values.memory(wanted, "--tmp") > found.f_blocks * found.f_frsize >> 20:
        raise RequestError(
            "Requested node configuration is not available",
            hint=f"Temporary disk specification can not be satisfied: {place} is smaller",
        )


def open_standard_streams() -> None:
    """Open what is closed of 0, 1 and 2 on /dev/null: else the next socket would be a task's."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def terminal_size() -> dict[str, int]:
    """The size of the terminal for ``--pty``.  Raises RoadsteadError where there is none."""
    if not (os.isatty(0) and os.isatty(1)):
        raise RoadsteadError(
            "--pty needs a terminal as standard input and output", hint="leave out --pty"
        )
    from roadstead.cli import terminal

    rows, columns = terminal.size(1)
    return {"rows": rows, "columns": columns}
