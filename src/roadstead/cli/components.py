"""The components of a heterogeneous job on a command line: ``sbatch A : B script``.

Between the colons each component has options of its own.  What one does not say is as the component
before it has it, except how many tasks, nodes and CPUs it needs and which nodes: these begin anew
(seen: 22.05).  A script separates its components by ``#SBATCH hetjob``; the command line's first
ones go over the script's first ones.

srun's components have commands too; one without is run by the command of the next.  In the
allocation of a heterogeneous job the variables that stand for srun's options have a value for each
component, as in SLURM_NTASKS_HET_GROUP_1.
"""

from __future__ import annotations

from roadstead.cli import options
from roadstead.cli.script import Directive
from roadstead.errors import RequestError, RoadsteadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Final

SEPARATOR: Final = ":"
SIZE: Final = "SLURM_HET_SIZE"
_GROUP: Final = "_HET_GROUP_"
_DIRECTIVES: Final = ("hetjob", "packjob")
_MOST: Final = 128  # slurm.h: MAX_HET_JOB_COMPS

# What begins anew with each component.
_OWN: Final = frozenset(
    (
        *("constraint", "cores-per-socket", "cpus-per-gpu", "cpus-per-task", "distribution"),
        *("exact", "exclusive", "extra-node-info", "gpus", "gpus-per-node", "gpus-per-socket"),
        *("gpus-per-task", "gres", "het-group", "mincpus", "nodefile", "nodelist", "nodes"),
        *("ntasks", "ntasks-per-core", "ntasks-per-node", "ntasks-per-socket"),
        *("ntasks-per-tres", "partition", "relative", "sockets-per-node", "threads-per-core"),
    )
)
# Of the job as a whole, whichever component says it.
_WHOLE: Final = (
    *("array", "begin", "deadline", "dependency", "hold", "immediate", "kill-on-invalid-dep"),
    *("no-requeue", "no-shell", "parsable", "quiet", "requeue", "test-only", "verbose", "wait"),
    "wrap",
)
# Of a step as a whole, which is one: the first component says it.
_OF_STEP: Final = (
    *("chdir", "error", "input", "jobid", "kill-on-bad-exit", "label", "mpi", "multi-prog"),
    *("open-mode", "output", "pty", "unbuffered"),
)


def lines(command: str, argv: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """The options of each component of an sbatch or salloc command line, and the operands."""
    found: list[list[str]] = []
    rest = list(argv)
    while True:
        _, operands = options.parse(command, rest)
        found.append(rest[: len(rest) - len(operands)])
        if operands[:1] != [SEPARATOR]:
            return _counted(found), operands
        rest = operands[1:]


def of_script(directives: Iterable[Directive]) -> list[list[Directive]]:
    """A script's directives, by component."""
    found: list[list[Directive]] = [[]]
    for each in directives:
        if each.argv[0] in _DIRECTIVES:
            found.append([])
        else:
            found[-1].append(each)
    return _counted(found)


def _counted(found: list[list[str]] | list[list[Directive]]) -> list[list]:  # type: ignore[type-arg]
    if len(found) > _MOST:
        raise RequestError(f"a heterogeneous job has at most {_MOST} components")
    return found


def gather(
    command: str,
    argvs: Sequence[Sequence[str]],
    environ: Mapping[str, str],
    directives: Sequence[Sequence[Directive]] = ((),),
    groups: Sequence[int] = (),
) -> list[dict[str, str]]:
    """What each component asks for: as many as the command line or the script has, the longer.
    ``groups``: which components of the job that we are in they are for."""
    found: list[dict[str, str]] = []
    for at in range(max(len(argvs), len(directives))):
        argv = argvs[at] if at < len(argvs) else ()
        lent = directives[at] if at < len(directives) else ()
        seen = environment(environ, groups[at]) if groups else environ
        if not found:
            asked, _ = options.gather(command, argv, seen, lent)
            if asked.keys() & {"help", "usage", "version"}:
                return [asked]
            found.append(asked)
            continue
        before = {name: value for name, value in found[-1].items() if name not in _OWN}
        usual, _ = options.gather(command, (), seen)
        usual = {name: value for name, value in usual.items() if name in _OWN}
        own, _ = options.gather(command, argv, {}, lent)
        repeated = argv is argvs[0]  # a component that is for several groups
        wrong = [name for name in own if name in _OF_STEP and command == "srun"]
        if wrong and not repeated:
            raise RequestError(
                f"--{wrong[0]} is for all components of a step",
                hint="give it before the first colon",
            )
        found[0] |= {name: value for name, value in own.items() if name in _WHOLE}
        found.append(options.layered((usual, before, own)))
    return found


def commands(
    command: str, argv: Sequence[str], environ: Mapping[str, str]
) -> list[tuple[dict[str, str], list[str]]]:
    """The components of an srun command line, each with its options and its command; one that is
    for several components of the job that we are in (--het-group=0,1) is several."""
    argvs: list[Sequence[str]] = []
    programs: list[list[str]] = []
    rest = list(argv)
    while True:
        _, operands = options.parse(command, rest)
        argvs.append(rest[: len(rest) - len(operands)])
        if SEPARATOR not in operands:
            programs.append(operands)
            break
        end = operands.index(SEPARATOR)
        programs.append(operands[:end])
        rest = operands[end + 1 :]
    _counted([list(each) for each in argvs])
    if not programs[-1] and len(programs) > 1:
        raise RoadsteadError("No command given to execute", hint="srun [options] command : …")
    for at in reversed(range(len(programs) - 1)):
        programs[at] = programs[at] or programs[at + 1]
    if SIZE not in environ:
        return list(zip(gather(command, argvs, environ), programs, strict=True))
    wanted = [
        (group, at)
        for at, each in enumerate(argvs)
        for group in _groups(dict(options.parse(command, each)[0]).get("het-group"), at)
    ]
    groups = [group for group, _ in wanted]
    asked = gather(command, [argvs[at] for _, at in wanted], environ, groups=groups)
    if len(wanted) > 1:
        for each, group in zip(asked, groups, strict=False):
            each["het-group"] = str(group)
    return [(each, programs[at]) for each, (_, at) in zip(asked, wanted, strict=False)]


def _groups(text: str | None, at: int) -> list[int]:
    """The numbers of --het-group; without it a component of the step is for that of the job that
    has its place.  Raises UsageError."""
    from roadstead.core import hostlist

    if text is None:
        return [at]
    try:
        words = [word[1:] for word in hostlist.expand(f"x[{text}]")]
    except RoadsteadError:
        words = []
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise RequestError(f"Invalid --het-group value: {text}", hint="numbers, as in 0,1 or 0-2")
    return [int(word) for word in words]


def environment(environ: Mapping[str, str], group: int) -> dict[str, str]:
    """The variables as one component of the job that we are in sees them."""
    varied = {name.partition(_GROUP)[0] for name in environ if _GROUP in name}
    varied -= {"SLURM_JOB_ID", "SLURM_JOBID"}
    seen = {name: value for name, value in environ.items() if name not in varied}
    for name in varied:
        value = environ.get(f"{name}{_GROUP}{group}")
        if value is not None:
            seen[name] = value
    return seen
