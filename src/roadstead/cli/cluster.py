"""srun, sbatch and salloc where a real Slurm is: what is ours is taken out, the rest is Slurm's.

A command line that asks for no container becomes Slurm's own command as it is.  One that does is
checked here, where the user sees what is wrong; images are resolved, and then it becomes Slurm's
command too, with an agent in front of the program (engines/slurm/rewrite.py).
"""

from __future__ import annotations

import os

from roadstead.agent import request
from roadstead.cli import attend, options, report
from roadstead.cli.getopt_long import REQUIRED
from roadstead.engines.slurm import comment, native, real, records, rewrite, stage
from roadstead.errors import EngineError, RequestError, RoadsteadError, UsageError
from roadstead.host import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from roadstead.cli.plugged import Plugged
    from roadstead.cli.script import Directive
    from roadstead.engines.slurm.rewrite import Component

_SEPARATOR = ":"
_INFORMATION = ("help", "usage", "version")
_HELP = ("-h", "--help", "--usage")
_DAEMONS = ("dockerd", "podman-service", "dockerd-image")


def main(command: str, argv: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run a command on the cluster; its exit code, where it does not become Slurm's own."""
    return report.run(command, lambda: _launch(command, argv, environ))


def _launch(command: str, argv: list[str], environ: Mapping[str, str]) -> int:
    plugged = attend.plugins(command, argv)
    if any(word in _HELP for word in argv):
        code = _help(command, argv, environ)
        if code is not None:
            return code
    if command == "sbatch":
        return _sbatch(argv, environ, plugged)
    if _may_ask_for_daemons(argv):
        from roadstead.cli import daemons

        if any(daemons.is_named(name) for name, _ in options.parse(command, argv)[0]):
            return daemons.on_cluster(command, argv, environ)
    if plugged is None and not options.may_ask_for_containers(command, argv, environ):
        real.become(command, argv, environ)
    components = _components(command, argv, environ)
    if plugged is not None and not _is_informational(components):
        plugged.settle_elsewhere([(each.asked, each.operands) for each in components])
    if not any(each.contained for each in components) or _is_informational(components):
        real.become(command, argv, environ)
    conf = environ.get("SLURM_CONF", "")
    if conf and not os.path.isfile(conf):
        raise EngineError(
            f"SLURM_CONF={conf}: no such file",
            hint="unset it, or name the cluster's slurm.conf; ROADSTEAD_ENGINE=local needs none",
        )
    if command == "srun" and all(
        native.is_for_slurm(each.asked, environ) for each in components if each.contained
    ):
        real.become(command, native.argv(components), environ)
    parts = [
        _part(command, dict(each.pairs), each.asked, each.operands, environ)
        if each.contained
        else {}
        for each in components
    ]
    if command == "salloc" or "SLURM_JOB_ID" not in environ:
        for each, part in zip(components, parts, strict=True):
            named = dict(each.pairs)
            reference = part["options"].get("container", "") if part else ""
            each.pairs = [*each.pairs, *comment.pairs(reference, named, environ)]
    become = _become_srun if command == "srun" else _become_salloc
    return become(components, parts, environ)


def _help(command: str, argv: list[str], environ: Mapping[str, str]) -> int | None:
    """Print Slurm's own help and, below it, what is ours; the exit code.  None where it is not this
    command's that is asked for (``srun ls --help``)."""
    try:
        asked = [name for name, _ in options.parse(command, argv, lenient=True)[0]]
    except UsageError:  # a plugin's option, perhaps: Slurm's command knows
        return None
    if "help" not in asked and "usage" not in asked:
        return None
    from roadstead.cli import help
    from roadstead.host import program

    path = real.must_find(command, environ)
    status, output, said = program.answer([path, *argv], only=dict(environ))
    report.write_out(output.decode("utf-8", "surrogateescape"))
    for line in said:
        report.write_line(line)
    if status == 0:
        report.write_out(help.on_cluster(command, usage="help" not in asked))
    return status


def _components(command: str, argv: list[str], environ: Mapping[str, str]) -> list[Component]:
    """The command line, component by component.  A component without a command has that of the
    next; an sbatch or salloc has one for all."""
    found: list[Component] = []
    rest = argv
    while True:
        pairs, operands = options.parse(command, rest, lenient=True)
        asked = options.of_containers(command, pairs, environ)
        separated = command == "srun" or operands[:1] == [_SEPARATOR]
        if not separated or _SEPARATOR not in operands:
            found.append(rewrite.Component(pairs, asked, operands))
            break
        end = operands.index(_SEPARATOR)
        found.append(rewrite.Component(pairs, asked, operands[:end]))
        rest = operands[end + 1 :]
    for at in reversed(range(len(found) - 1)):
        found[at].operands = found[at].operands or found[at + 1].operands
    return found


def _is_informational(components: Sequence[Component]) -> bool:
    return any(name in _INFORMATION for each in components for name, _ in each.pairs)


def _part(
    command: str,
    given: Mapping[str, str],
    asked: Mapping[str, str],
    operands: Sequence[str],
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """What a component asks of its container, with what only this host knows.

    Raises RoadsteadError for a request that makes no sense, or an image that is not to be had.
    """
    rewrite.check(asked, list(given.items()))
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        raise RoadsteadError(
            "the current directory does not exist any more", hint="cd to one that does"
        ) from None
    if command == "srun" and not operands:
        raise RoadsteadError("No command given to execute", hint="srun [options] command …")
    wanted = dict(asked)
    for name in ("chdir", "verbose"):
        if name in given:
            wanted[name] = given[name] or "1"
    more = attend.settle(command, wanted, cwd)
    _check_is_there(wanted, asked, more)
    part: dict[str, Any] = {
        "options": wanted, "cwd": cwd, "records": records.place(environ), **more
    }  # fmt: skip
    if wanted.keys() - {"container", "chdir", "verbose"}:
        # What costs nothing to be right is not looked at; what can be wrong is, before a job is.
        from roadstead.core import container

        container.of({**more}, wanted, cwd, cwd)
    if "pty" in given:
        part["terminal"] = True
    if "multi-prog" in given:
        part["programs"] = _programs(operands)
    return part


def _check_is_there(
    wanted: Mapping[str, str], asked: Mapping[str, str], found: Mapping[str, Any]
) -> None:
    """Raise RequestError for a bundle that is not here: a slip as a rule, which each task, of each
    job of an array, would say otherwise."""
    path = wanted.get("container", "")
    if not path.startswith("/") or "image" in found or wanted.get("container-stage") == "none":
        return
    if "container-system" not in wanted and not os.path.lexists(path):
        hint = "name the directory that holds config.json"
        if "://" in asked.get("container", ""):
            hint = "a reference to a registry begins with docker://"
        raise RequestError(
            f"container bundle {path} does not exist",
            hint=f"{hint}; where only the nodes have it, add --container-stage=none",
        )


def _programs(operands: Sequence[str]) -> dict[str, str]:
    try:
        with open(operands[0], encoding="utf-8", errors="surrogateescape") as file:
            return {"text": file.read(), "source": operands[0]}
    except OSError as error:
        raise RoadsteadError(
            f"Could not open multi_prog config file {operands[0]}: {error.strerror}"
        ) from None


def _become_srun(
    components: Sequence[Component], parts: list[dict[str, Any]], environ: Mapping[str, str]
) -> NoReturn:
    try:
        ready = _ready(components, parts, environ)
    except stage.Allocate:
        _allocate(components, environ)
    for each, its in zip(components, ready, strict=True):
        if each.contained and its.elsewhere and "chdir" not in dict(each.pairs):
            each.pairs = [*each.pairs, ("chdir", "/")]  # the agent knows where it is meant to be
    agents = [each.agent for each in ready]
    _meet(components, parts, environ)
    _share(components, parts)
    argv = rewrite.srun(components, options.is_about_containers, agents, environ)
    told = wire.dumps(request.whole(parts))
    real.become("srun", argv, rewrite.environment(environ, told))


def _meet(
    components: Sequence[Component], parts: list[dict[str, Any]], environ: Mapping[str, str]
) -> None:
    """Where the step's tasks are to wait for each other, have a place for that."""
    if not any("container-sync" in each.asked for each in components):
        return
    if len(components) > 1:
        raise RequestError(
            "--container-sync is for a step of one component on a Slurm cluster",
            hint="leave it out, or start one step a component",
        )
    if not _is_lone(components):
        from roadstead.engines.slurm import meeting

        parts[0]["meeting"] = meeting.begin(environ)


def _share(components: Sequence[Component], parts: list[dict[str, Any]]) -> None:
    """Where the tasks of a node share a container, have them know each other by a token."""
    for each, part in zip(components, parts, strict=True):
        if each.asked.get("container-per") == "node":
            part["token"] = os.urandom(32).hex()


def _ready(
    components: Sequence[Component], parts: list[dict[str, Any]], environ: Mapping[str, str]
) -> list[stage.Ready]:
    """Have all that is needed on the nodes; of each component what it is started by.  Raises
    Allocate."""
    given = dict(components[0].pairs)
    named: list[str] = []
    if "nodelist" in given and "/" not in given["nodelist"]:
        from roadstead.core import hostlist

        named = hostlist.expand(given["nodelist"])
    shown = _Shown()
    try:
        groups = [dict(each.pairs).get("het-group", "") for each in components]
        jobs = stage.jobs(len(parts), groups, environ)
        if len(jobs) == 1:
            ready = stage.ready(
                parts, environ, nodelist=named, lone=_is_lone(components), progress=shown
            )
            return [ready] * len(parts)
        return [
            stage.ready([part], its, progress=shown) if part else stage.Ready(())
            for part, its in zip(parts, jobs, strict=True)
        ]
    finally:
        shown.end()


def _is_lone(components: Sequence[Component]) -> bool:
    """Whether the command line asks for one task, on whichever node."""
    given = dict(components[0].pairs)
    several = ("ntasks-per-node", "nodefile", "nodelist", "multi-prog", "array")
    return (
        len(components) == 1
        and given.get("nodes", "1") == "1"
        and given.get("ntasks", "1") == "1"
        and not any(name in given for name in several)
    )


class _Shown:
    """How far it is, on a terminal: a line that is made when there is something to say."""

    def __init__(self) -> None:
        self._line: Any = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._line is None:
            import sys

            from roadstead.cli import progress

            self._line = progress.Line(sys.stderr)
        self._line(what, done, total)

    def end(self) -> None:
        if self._line is not None:
            self._line.__exit__()


def _allocate(components: Sequence[Component], environ: Mapping[str, str]) -> NoReturn:
    """Become an salloc that starts this very srun in its allocation: there nodes can be looked at,
    and sent to, before the first task."""
    known = {row.name for row in options.rows("salloc")}
    argv: list[str] = []
    inner: list[str] = []
    for at, each in enumerate(components):
        argv += [_SEPARATOR] if at else ["--quiet"]
        argv += rewrite.words(
            [pair for pair in each.pairs if pair[0] in known], options.is_about_containers
        )
        if "job-name" not in dict(each.pairs) and "SLURM_JOB_NAME" not in environ:
            argv.append(f"--job-name={rewrite.name_of(each.operands[0])}")
        inner += [_SEPARATOR] if at else []
        inner += rewrite.words(each.pairs, lambda name: name in rewrite.OF_THE_JOB)
        inner += each.operands
    real.become("salloc", [*argv, *ourselves("srun"), *inner], environ, called="srun")


def ourselves(command: str) -> list[str]:
    """What starts a command of ours, of this very installation."""
    import sys

    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    start = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        f"from roadstead.__main__ import {command}; sys.exit({command}())"
    )
    return [sys.executable, "-IS", "-c", start, package]


def _become_salloc(
    components: Sequence[Component], parts: list[dict[str, Any]], environ: Mapping[str, str]
) -> NoReturn:
    command = components[-1].operands or [environ.get("SHELL") or "/bin/sh"]
    terminal = os.isatty(0) and os.isatty(1)
    if any(name == "no-shell" for each in components for name, _ in each.pairs):
        raise RequestError(
            "--container and --no-shell contradict each other: nothing is run", hint="leave one out"
        )
    try:
        agent = _ready(components, parts, environ)[0].agent
        srun = real.must_find("srun", environ)
        step = rewrite.interactive([srun], agent, command, terminal=terminal)
        told = wire.dumps(request.whole(parts))
    except stage.Allocate:  # the step looks at its nodes
        asked = rewrite.words(list(components[0].asked.items()), lambda name: False)
        start = [*ourselves("srun"), *asked]
        step, told = rewrite.interactive(start, [], command, terminal=terminal), ""
    argv = rewrite.salloc(components, options.is_about_containers, step)
    real.become("salloc", argv, rewrite.environment(environ, told))


# -- sbatch ----------------------------------------------------------------------------------------


def _sbatch(argv: list[str], environ: Mapping[str, str], plugged: Plugged | None) -> int:
    from roadstead.cli import script as scripts

    components = _components("sbatch", argv, environ)
    operands = components[-1].operands
    given = dict(components[0].pairs)
    given |= {name: value for each in components for name, value in each.pairs if name == "wrap"}
    if _is_informational(components):
        real.become("sbatch", argv, environ)
    if "wrap" in given and operands:
        raise UsageError(
            "Script arguments not permitted with --wrap option",
            hint='put them into the command: --wrap "command arguments"',
        )
    text = scripts.wrap(given["wrap"]) if "wrap" in given else _text(operands)
    found: list[Directive] = []
    asks = any(each.contained for each in components)
    daemons = _may_ask_for_daemons(argv)
    if _is_manifest(text, given):
        _submit_pod(argv, text, operands, environ)
    if "wrap" not in given and (asks or daemons or _may_ask(text)):
        found = scripts.directives(text)
    lent = [options.parse("sbatch", each.argv)[0] for each in found]
    if any(name in _DAEMONS for line in (*lent, components[0].pairs) for name, _ in line):
        _submit_with_daemons(components[0].pairs, lent, text, operands, environ)
    first = _of_first_component(found)
    asked = options.of_containers("sbatch", components[0].pairs, environ, first)
    if plugged is not None:
        plugged.settle_elsewhere([(asked, operands)])
    if not asked:
        if "wrap" not in given and not operands:
            _type_again(text)
        real.become("sbatch", argv, environ)
    if len(components) == 1 and native.is_for_slurm(asked, environ):
        if "wrap" not in given and not operands:
            _type_again(text)
        for_slurm = rewrite.Component(components[0].pairs, asked, operands)
        real.become("sbatch", native.argv([for_slurm]), environ)
    part = _part("sbatch", _all_given(first, given), asked, operands, environ)
    start = stage.for_batch(part, environ)
    named = [name for line in (*lent, *(each.pairs for each in components)) for name, _ in line]
    components[0].pairs = [
        *components[0].pairs,
        *comment.pairs(part["options"].get("container", ""), named, environ),
    ]
    _submit(components, found, text, start, wire.dumps(request.whole([part])), environ)


def _may_ask(text: str) -> bool:
    """Whether a line of the script could name a container, or a daemon."""
    lines = [line.split() for line in text.split("\n") if line.startswith("#SBATCH")]
    return any(
        options.may_ask_for_containers("sbatch", words, {}) or _may_ask_for_daemons(words)
        for words in lines
    )


def _may_ask_for_daemons(words: Sequence[str]) -> bool:
    return any(word.startswith(("--dock", "--podman")) for word in words)


def _is_manifest(text: str, given: Mapping[str, str]) -> bool:
    """Whether that is a pod's, and no script: what sbatch of Slurm would refuse."""
    return "wrap" not in given and not text.startswith("#!") and "apiVersion" in text[:65536]


def _submit_pod(
    argv: list[str], text: str, operands: Sequence[str], environ: Mapping[str, str]
) -> NoReturn:
    """Become sbatch, with a script that runs the pod (pod.py)."""
    from roadstead.cli import pod

    asked, made = pod.batch(argv, text, list(operands) or ["sbatch"], environ)
    kinds = {row.name: row.arg for row in options.rows("sbatch")}
    words = [
        f"--{name}={value}" if kinds[name] and (value or kinds[name] == REQUIRED) else f"--{name}"
        for name, value in asked.items()
    ]
    real.become("sbatch", [*words, f"/dev/fd/{_memory(made)}"], environ)


def _submit_with_daemons(
    pairs: Sequence[tuple[str, str]],
    directives: Sequence[Sequence[tuple[str, str]]],
    text: str,
    operands: Sequence[str],
    environ: Mapping[str, str],
) -> NoReturn:
    """Become sbatch, with a script that brings daemons up first (daemons.py)."""
    from roadstead.cli import daemons

    made = daemons.batch_on_cluster(pairs, directives, text, environ)
    argv = rewrite.words([pair for pair in pairs if pair[0] != "wrap"], daemons.is_named)
    every = [name for line in (*directives, pairs) for name, _ in line]
    if "job-name" not in every and "SBATCH_JOB_NAME" not in environ:
        name = "wrap" if "wrap" in every else rewrite.name_of(operands[0]) if operands else "sbatch"
        argv.append(f"--job-name={name}")
    real.become("sbatch", [*argv, f"/dev/fd/{_memory(made)}", *operands[1:]], environ)


def _all_given(directives: Sequence[Directive], given: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in directives:
        found.update(_parse_directive(each)[0])
    return {**found, **given}


def _of_first_component(directives: Sequence[Directive]) -> list[Directive]:
    """The batch script runs in the first component of a heterogeneous job."""
    first: list[Directive] = []
    for each in directives:
        if each.argv[0] in ("hetjob", "packjob"):
            break
        first.append(each)
    return first


def _submit(
    components: Sequence[Component],
    directives: Sequence[Directive],
    text: str,
    start: str,
    told: str,
    environ: Mapping[str, str],
) -> NoReturn:
    """Become sbatch, with the made script on a descriptor: nothing is left on disk."""
    from roadstead.engines.slurm import script

    operands = components[-1].operands
    made = script.made(
        [
            each.argv[0] if each.argv[0] in ("hetjob", "packjob") else _parse_directive(each)[0]
            for each in directives
        ],
        options.is_about_containers,
        start,
        told,
        text,
    )
    argv: list[str] = []
    for at, each in enumerate(components):
        argv += [_SEPARATOR] if at else []
        argv += rewrite.words(
            [pair for pair in each.pairs if pair[0] != "wrap"], options.is_about_containers
        )
    given = [name for each in components for name, _ in each.pairs]
    named = any("job-name" in dict(_parse_directive(d)[0]) for d in directives)
    if "job-name" not in given and not named and "SBATCH_JOB_NAME" not in environ:
        wrapped = "wrap" in given
        name = "wrap" if wrapped else rewrite.name_of(operands[0]) if operands else "sbatch"
        argv.append(f"--job-name={name}")
    fd = _memory(made)
    argv += [f"/dev/fd/{fd}", *operands[1:]]
    real.become("sbatch", argv, rewrite.environment(environ))


def _text(operands: Sequence[str]) -> str:
    """The script, as it is: Slurm's sbatch says what is wrong with one that is none of ours."""
    name = operands[0] if operands else "/dev/stdin"
    try:
        with open(name if operands else 0, "rb", closefd=bool(operands)) as file:
            return file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise RoadsteadError(f"Unable to open file {name}: {error.strerror}") from None


def _parse_directive(directive: Directive) -> tuple[list[tuple[str, str]], list[str]]:
    return options.parse("sbatch", directive.argv, lenient=True)


def _memory(text: str) -> int:
    """A descriptor that is read from the beginning, and that a program inherits."""
    fd = os.memfd_create("roadstead-script", 0)
    with open(fd, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _type_again(text: str) -> None:
    """Put back what was read of standard input."""
    fd = _memory(text)
    os.dup2(fd, 0)
    os.close(fd)
