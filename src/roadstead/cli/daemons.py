"""--dockerd and --podman-service: a daemon on each node of the job, for as long as it is wanted.

The daemon is kept by a step of its own (daemons/keeper.py), one task a node, that shares the job's
CPUs.  Whoever wants it (srun, salloc, a batch script) holds the other end of the keepers' standard
input: when that is closed, however, they end, and with the job's end in any case.  What waits for a
daemon starts when all of them have said that they are ready.

All of this is made of srun's own options, so it is the same on both engines.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from roadstead.cli import containers, options
from roadstead.core.jsonform import compact_json, from_json
from roadstead.daemons.kinds import KINDS
from roadstead.daemons.model import Seed, Wanted
from roadstead.engines.slurm import agent, real, rewrite
from roadstead.engines.slurm.script import quoted
from roadstead.errors import LaunchError, RequestError, UsageError
from roadstead.host import files, fork, process
from roadstead.images.reference import TRANSPORTS, parse

if TYPE_CHECKING:
    from typing import Any, NoReturn

IMAGES: Final = "dockerd-image"
_MARKER: Final = "# roadstead: the script\n"
_READY: Final = "ready "
_STEP_DIRECTORY: Final = "ROADSTEAD_STEP_DIR"
# Of srun's options those that say how many tasks run where: the allocation has them, and the step.
_OF_BOTH: Final = ("cpus-per-task", "nodes", "ntasks", "ntasks-per-node", "quiet", "verbose")


def of(asked: dict[str, str], environ: Mapping[str, str]) -> list[Wanted]:
    """The daemons that the options ask for, which are taken out of them.  Raises RoadsteadError."""
    found = [option for option in KINDS if asked.pop(option, None) is not None]
    images = asked.pop(IMAGES, "")
    if images and not found:
        raise RequestError(f"--{IMAGES} needs --dockerd or --podman-service", hint="add --dockerd")
    seeds = tuple(_seed(text, environ) for text in images.split(",") if text)
    return [Wanted(option=option, token=os.urandom(4).hex(), seeds=seeds) for option in found]


def _seed(text: str, environ: Mapping[str, str]) -> Seed:
    """``[NAME=]REFERENCE``: an image of the store, which is put there if it is not."""
    name, equals, reference = text.partition("=")
    if not equals or "/" in name or name.partition(":")[0] in TRANSPORTS:
        name, reference = "", text
    cwd = os.getcwd()
    asked = {"container": reference}
    image = containers.prepare(f"--{IMAGES}", asked, cwd, environ).get("image")
    if image is None:
        raise RequestError(
            f"--{IMAGES}={text}: not an image",
            hint="an image's reference, or the path of a root file system",
        )
    return Seed(name=name or _name(reference, cwd), digest=image["digest"], store=image["store"])


def _name(reference: str, cwd: str) -> str:
    """What a daemon would call the image: its own name, or that of the file."""
    found = parse(reference, cwd)
    if found.name:
        name = found.name.removeprefix("docker.io/library/").removeprefix("docker.io/")
        return f"{name}:{found.tag or 'latest'}"
    base = os.path.basename(found.path).partition(".")[0].lower()
    plain = "".join(each if each.isalnum() or each in "_-" else "-" for each in base).strip("-_")
    if not plain or not plain.isascii():
        raise UsageError(f"--{IMAGES}={reference}: it needs a name", hint=f"--{IMAGES}=NAME=PATH")
    return f"{plain}:{found.tag or 'latest'}"


class Daemons:
    """The daemons of a job, in progress."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = wanted
        self._environ: Mapping[str, str] = {}
        self._keepers: list[tuple[process.Child, int, int]] = []
        self.variables: dict[str, str] = {}
        self.sockets: list[str] = []

    def enter(self, environ: Mapping[str, str]) -> None:
        """Know the variables of the allocation that they are for."""
        self._environ = environ

    def start(self) -> None:
        """Bring them up.  Raises LaunchError where one has not come up, and then none is left."""
        try:
            for wanted in self._wanted:
                self._start(wanted)
        except BaseException:
            self.stop()
            raise

    def _start(self, wanted: Wanted) -> None:
        argv, number = _step(wanted, self._environ)
        lifeline, ours = os.pipe2(os.O_CLOEXEC)
        said, theirs = os.pipe2(os.O_CLOEXEC)
        complaints = os.memfd_create("roadstead-daemon", os.MFD_CLOEXEC)
        env = {name: value for name, value in self._environ.items() if "CONTAINER" not in name}
        child = process.spawn(argv, env=env, stdio=(lifeline, theirs, complaints))
        os.close(lifeline)
        os.close(theirs)
        self._keepers.append((child, ours, said))
        addresses = set()
        with open(said, encoding="utf-8", closefd=False) as lines:
            for line in lines:
                if line.startswith(_READY):
                    addresses.add(line.removeprefix(_READY).strip())
                    number -= 1
                if not number:
                    break
        if number:
            child.reap()
            text = os.pread(complaints, 1 << 16, 0).decode(errors="replace")
            os.close(complaints)
            raise LaunchError(_why(wanted, text))
        os.close(complaints)
        if len(addresses) > 1:
            raise LaunchError(f"--{wanted.option}: its address is not the same on all nodes")
        (address,) = addresses
        self.sockets.append(address.removeprefix("unix://"))
        self.variables |= dict.fromkeys(KINDS[wanted.option].variables, address)

    def mount(self, asked: dict[str, str]) -> None:
        """Show the sockets to a step in a container, where they are on the node."""
        if not any(name in asked for name in ("container", "container-image", "container-name")):
            return
        given = [asked["container-mounts"]] if asked.get("container-mounts") else []
        mounts = [f"{each}:{each}" for each in self.sockets]
        asked["container-mounts"] = ",".join([*given, *mounts])

    def stop(self) -> None:
        """Have them end, and wait until all that they had is gone."""
        for child, ours, said in self._keepers:
            os.close(ours)
            os.close(said)
            if child.status is None:
                child.reap()
        self._keepers.clear()

    def leave_to_job(self) -> None:
        """Let what this process becomes, and all that it starts, hold the keepers' lines."""
        for _, ours, _ in self._keepers:
            os.set_inheritable(ours, True)


def _why(wanted: Wanted, text: str) -> str:
    lines = [line for line in text.splitlines() if line]
    own = [line for line in lines if line.startswith("roadstead: error: ")]
    said = own or lines
    reason = said[0].removeprefix("roadstead: error: ") if said else "it has ended"
    return reason if reason.startswith("--") else f"--{wanted.option}: {reason}"


def _step(wanted: Wanted, environ: Mapping[str, str]) -> tuple[list[str], int]:
    """The srun that starts the keepers, and how many of them there are: one a node.  The local
    engine's nodes are one machine."""
    from roadstead.core.names import CLUSTER

    local = environ.get("SLURM_CLUSTER_NAME") == CLUSTER
    number = 1 if local else int(environ.get("SLURM_JOB_NUM_NODES") or 1)
    words = [
        f"--jobid={environ['SLURM_JOB_ID']}",
        "--overlap",
        "--quiet",
        f"--nodes={number}",
        f"--ntasks={number}",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
        "--mpi=none",
        "--kill-on-bad-exit=1",
        f"--job-name={KINDS[wanted.option].name}",
        *([] if local else ["--mem=0", "--cpu-bind=none"]),
    ]
    told = json.dumps(compact_json(wanted))
    return [*_program("cli.srun"), *words, *agent.command(), "daemon", told], number


def _program(module: str) -> list[str]:
    """What executes ``main`` of a module of ours."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path.insert(0, {package!r}); "
        f"from roadstead.{module} import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-IS", "-c", code]


def around_srun(argv: list[str], asked: dict[str, str], run: Callable[[], int]) -> int:
    """srun with daemons around it; its exit code."""
    if not (os.environ.get("SLURM_JOB_ID") or "jobid" in asked):
        allocate(argv)
    environ = dict(os.environ)
    environ["SLURM_JOB_ID"] = asked.get("jobid") or environ["SLURM_JOB_ID"]
    daemons = Daemons(of(asked, environ))
    daemons.enter(environ)
    daemons.start()
    try:
        os.environ.update(daemons.variables)
        daemons.mount(asked)
        return run()
    finally:
        daemons.stop()


# -- srun without an allocation ------------------------------------------------------------------


def allocate(argv: list[str]) -> NoReturn:
    """srun outside of a job: become salloc, for an allocation with the daemons and srun in it."""
    pairs, operands = options.parse("srun", argv)
    if not operands:
        raise UsageError("No command given to execute", hint="srun [options] command …")
    known = {row.name: row for row in options.rows("salloc")}
    outer, inner = ["--quiet"], []
    for name, value in pairs:
        row = next(row for row in options.rows("srun") if row.name == name)
        word = f"--{name}={value}" if row.arg and (value or row.arg == 1) else f"--{name}"
        ours = name in KINDS or name == IMAGES
        if ours or (name in known and not options.is_about_containers(name)):
            outer.append(word)
        if not ours and (name not in known or name in _OF_BOTH or word not in outer):
            inner.append(word)
    if not any(name == "job-name" for name, _ in pairs):
        outer.append(f"--job-name={os.path.basename(operands[0])}")
    inside = [*_program("cli.srun"), *inner, *operands]
    fork.replace_process([*_program("cli.salloc"), *outer, *inside])


# -- batch scripts -------------------------------------------------------------------------------


def script(wanted: Sequence[Wanted], text: str, directives: Sequence[str] = ()) -> str:
    """A batch script that brings the daemons up and becomes the one that it is given;
    ``directives`` are what its #SBATCH lines are to say."""
    import shlex

    command = shlex.join([*_program("cli.daemons"), "batch", _told(wanted)])
    lines = "".join(f"#SBATCH {each}\n" for each in directives)
    return f'#!/bin/sh\n{lines}exec {command} "$0" "$@"\n{_MARKER}{text}'


def _told(wanted: Sequence[Wanted]) -> str:
    return json.dumps([compact_json(each) for each in wanted])


def main(argv: list[str]) -> int:
    """In a job: ``batch TOLD SCRIPT ARGUMENT…``, as ``script`` has it, or ``around TOLD COMMAND…``;
    the exit code, where it does not become the script."""
    verb, told, *words = argv
    found: Any = json.loads(told)
    daemons = Daemons([from_json(Wanted, each) for each in found])
    daemons.enter(dict(os.environ))
    try:
        daemons.start()
    except LaunchError as error:
        who = "slurmstepd" if verb == "batch" else "salloc"
        os.write(2, f"{who}: error: {error}{'; ' + error.hint if error.hint else ''}\n".encode())
        return error.exit_code
    os.environ.update(daemons.variables)
    if verb == "batch":
        daemons.leave_to_job()
        _become(*words)
    try:
        return _run(words)
    finally:
        daemons.stop()


def _run(words: list[str]) -> int:
    """Run a command on our terminal; its exit code."""
    from roadstead.host import child, signals

    signals.ignore([signals.SIGINT, signals.SIGQUIT])
    try:
        pid, pidfd = child.start_foreground(words, os.environ)
    except OSError as error:
        os.write(2, f"roadstead: error: cannot execute {words[0]}: {error.strerror}\n".encode())
        return 127
    os.close(pidfd)
    return child.reap(pid)


def _become(path: str, *arguments: str) -> NoReturn:
    """Become the user's batch script."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        text = file.read().partition(f"\n{_MARKER}")[2]
    step = os.environ.get(_STEP_DIRECTORY, "")
    if step:
        place = f"{step}/spool/script"
        files.write_atomically(place, text, mode=0o700)
    else:
        place = _in_memory(text)
    fork.replace_process([place, *arguments])
    raise AssertionError("unreachable")


def _in_memory(text: str) -> str:
    fd = os.memfd_create("slurm_script", 0)
    with open(fd, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    return f"/proc/self/fd/{fd}"


# -- on a Slurm cluster ----------------------------------------------------------------------------


def is_named(name: str) -> bool:
    """Whether an option is about daemons."""
    return name in KINDS or name == IMAGES


def on_cluster(command: str, argv: list[str], environ: Mapping[str, str]) -> int:
    """srun or salloc with daemons; the exit code, where it does not become Slurm's own."""
    pairs, operands = options.parse(command, argv)
    if command == "srun" and not environ.get("SLURM_JOB_ID"):
        allocate(argv)
    wanted = of({name: value for name, value in pairs if is_named(name)}, environ)
    rest = rewrite.words(pairs, is_named)
    if command == "salloc":
        contained = next((name for name, _ in pairs if options.is_about_containers(name)), "")
        if contained:
            raise RequestError(
                f"--dockerd and --{contained}: the command of salloc is to run on the node",
                hint=f"leave out --{contained}, and call srun --{contained} in it",
            )
        shell = [environ.get("SHELL") or "/bin/sh"]
        around = [*_program("cli.daemons"), "around", _told(wanted), *(operands or shell)]
        real.become("salloc", [*rest, *around], environ)
    daemons = Daemons(wanted)
    daemons.enter(environ)
    daemons.start()
    try:
        os.environ.update(daemons.variables)
        return _run([*_program("cli.srun"), *rest, *operands])
    finally:
        daemons.stop()


def batch_on_cluster(
    pairs: Sequence[tuple[str, str]],
    directives: Sequence[Sequence[tuple[str, str]]],
    text: str,
    environ: Mapping[str, str],
) -> str:
    """The script that Slurm's sbatch takes in place of one with daemons.  ``pairs`` are the options
    of the command line, ``directives`` those of each #SBATCH line."""
    every = [*(pair for line in directives for pair in line), *pairs]
    wanted = of({name: value for name, value in every if is_named(name)}, environ)
    lines = [
        " ".join(quoted(word) for word in rewrite.words(line, is_named)) for line in directives
    ]
    return script(wanted, text, [line for line in lines if line])
