"""One suite of what containers do, over both engines: the local one, and a Slurm of three nodes.

A case is a line of bash and all that it may say: the exit code, standard output (lines sorted, as
tasks answer in any order), and a pattern that is in standard error.  ``$B`` is a bundle, ``$P`` one
with the host's pids, ``$I`` an image.  DIFFERENCES is where a cluster is another thing than one
machine, each with the reason; one that does not differ any more fails as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.account import Account
from tests.support.components import program
from tests.support.places import KINDS, RELEASE, Place, place
from tests.support.product import Product
from tests.support.skips import require

pytestmark = pytest.mark.container


# A plugin of each kind of hook, in the working directory, and the plugstack.conf that names it.
PLUGIN = """cat >greet.py <<'END'
from roadstead.plugins import Option, S_TASK_EXIT_STATUS, SpankError
def check(value, remote):
    if not value:
        raise SpankError("no name")
OPTIONS = [Option("greet", "say hello to", "name", callback=check)]
def note(args, text):
    with open(args[0], "a") as file:
        file.write(text + "\\n")
def task_init(spank, args):
    if spank.option_getopt("greet") == "nobody":
        raise ValueError("nobody to greet")
    spank.setenv("GREETING", "hello, " + spank.option_getopt("greet"))
def bundle_ready(spank, args, config):
    config["process"]["env"].append("EDITED=yes")
def container_created(spank, args, state):
    note(args, "container_created")
def task_exit(spank, args):
    note(args, "exit %d" % spank.get_item(S_TASK_EXIT_STATUS))
END
echo "required greet.py $PWD/told" >plugstack.conf
export ROADSTEAD_PLUGSTACK_CONF=$PWD/plugstack.conf
"""


class Case(NamedTuple):
    """A line and what comes of it."""

    line: str
    out: str = ""
    code: int = 0
    err: str = ""


# A hook makes one container a second later than the other, and each a file.
LATE = r"""mkdir hooks made
printf '#!/bin/sh\nmkdir %s/first || sleep 1\nmktemp %s/made/XXXXXX\n' $PWD $PWD >hook
chmod 755 hook
printf '{"version": "1.0.0", "hook": {"path": "%s/hook"}, "when": {"always": true},
"stages": ["createRuntime"]}' $PWD >hooks/late.json
LATE="--container-hooks-dir=$PWD/hooks --container-mounts=$PWD/made:/made"
"""


# Three tasks on one node, and what each says when all are there.
SHARED = "srun -N1 -n3 --container-per=node --container $B"
MEET = "touch /dev/shm/$SLURM_PROCID; until [ $(ls /dev/shm | wc -l) = 3 ]; do sleep 0.05; done"


CASES: dict[str, Case] = {
    # The Containers Guide's forms of request.
    "guide: batch": Case(
        "batch --container $B --wrap 'sh -c \"cat /etc/*rel*\"'", f"{RELEASE}|exit 0:0"
    ),
    "guide: batch, step 0": Case(
        "batch --wrap \"srun --container $B sh -c 'cat /etc/*rel*'\"", f"{RELEASE}|exit 0:0"
    ),
    "guide: interactive": Case("salloc -Q --container $B sh -c 'cat /etc/*rel*'", RELEASE),
    "guide: interactive, step 0": Case(
        "salloc -Q srun --container $B sh -c 'cat /etc/*rel*'", RELEASE
    ),
    "guide: job with step 0": Case("srun --container $B sh -c 'cat /etc/*rel*'", RELEASE),
    "guide: job with step 1": Case(
        "srun srun --overlap --container $B sh -c 'cat /etc/*rel*; echo step $SLURM_STEP_ID'",
        f"{RELEASE}|step 1",
    ),
    "SRUN_CONTAINER": Case("SRUN_CONTAINER=$B srun cat /etc/os-release", RELEASE),
    "SALLOC_CONTAINER": Case("SALLOC_CONTAINER=$B salloc -Q cat /etc/os-release", RELEASE),
    "SBATCH_CONTAINER": Case(
        "SBATCH_CONTAINER=$B batch --wrap 'cat /etc/os-release'", f"{RELEASE}|exit 0:0"
    ),
    "directives": Case(
        """printf '#!/bin/sh
#SBATCH -n2 --container=%s -J "a b"
cat /etc/os-release; echo "$SLURM_NTASKS $SLURM_JOB_NAME $1"; exit 3
' $B >job.sh; batch job.sh 'x y'""",
        f"{RELEASE}|2 a b x y|exit 3:0",
    ),
    "script from a pipe": Case(
        "printf '#!/bin/sh\\ncat /etc/os-release\\n' | batch --container $B",
        f"{RELEASE}|exit 0:0",
    ),
    "a job's container is not its steps'": Case(
        "batch -n2 --wrap 'srun -n1 test ! -e /trap.sh && srun -n1 --container $B ls /trap.sh'",
        "/trap.sh|exit 0:0",
    ),
    "image": Case("srun -N2 --container $I cat /etc/os-release", f"{RELEASE}|{RELEASE}"),
    # Those that are there have their own suites (test_systems.py, test_systems_slurm.py).
    "system that is not there": Case(
        "srun -n1 --container-system=none --container $B true",
        code=125,
        err="--container-system=none: no such container system",
    ),
    # Plugins and networks.
    "plugin": Case(
        PLUGIN + "srun -n2 --greet=Ada --container $B sh -c 'echo $GREETING $EDITED'; cat told",
        "container_created|container_created|exit 0|exit 0|hello, Ada yes|hello, Ada yes",
    ),
    "plugin of a container that tasks share": Case(
        PLUGIN + "srun -N1 -n2 --container-per=node --greet=Ada --container $B sh -c "
        "'echo $GREETING'; cat told",
        "container_created|exit 0|exit 0|hello, Ada|hello, Ada",
    ),
    "plugin of a batch script": Case(
        PLUGIN + "batch --wrap 'echo $GREETING' --greet Eve --container $B", "hello, Eve|exit 0:0"
    ),
    "required plugin that fails": Case(
        PLUGIN + "srun --greet=nobody --container $B true",
        code=1,
        err="plugin greet: task_init: ValueError: nobody to greet",
    ),
    "plugin refuses its option": Case(
        PLUGIN + "srun --greet= --container $B true", code=1, err="plugin greet: --greet: no name"
    ),
    "network none": Case(
        "srun --container $B --container-network=none sh -c 'tail -n+3 /proc/net/dev | wc -l'", "1"
    ),
    "network host": Case(
        "srun -n1 --container $B --container-network=host sh -c 'grep -c task0 /etc/hosts'", "1"
    ),
    "network private, a port of the host": Case(
        "srun -n1 --container $B --container-publish=0:80 sh -c '[ $ROADSTEAD_PORT_80 -gt 1023 ]'"
    ),
    # How it ends.
    "exit 0": Case("srun --container $B true"),
    "exit 1": Case("srun --container $B false", code=1, err="task 0: Exited with exit code 1"),
    "exit 255": Case("srun --container $B sh -c 'exit 255'", code=255),
    "exit of the worst": Case("srun -n3 --container $B sh -c 'exit $SLURM_PROCID'", code=2),
    "signal": Case(
        "srun --container $P sh -c 'kill -SEGV $$'",
        code=139,
        err="task 0: Exited with exit code 139",
    ),
    "no such command": Case(
        "srun --container $B nosuch", code=127, err="nosuch: not found in the container"
    ),
    "not executable": Case("srun --container $B /etc/not-executable", code=126, err="executable"),
    "no such bundle": Case("srun --container /nosuch true", code=1, err="/nosuch does not exist"),
    "no runtime": Case(
        "ROADSTEAD_RUNTIME=nosuch srun --container $B true", code=125, err="nosuch: no such program"
    ),
    "batch exit": Case("batch --container $B --wrap 'echo said; exit 7'", "exit 7:0|said"),
    "one fails, all end": Case(
        "srun -n3 -K1 --container $B sh -c 'test $SLURM_PROCID = 1 && exit 9; sleep 60'", code=143
    ),
    # The environment.
    "variables": Case(
        "MINE=1 srun -N3 --container $B sh -c "
        "'echo $SLURM_PROCID $SLURM_NODEID $SLURMD_NODENAME $SLURM_NTASKS $SLURM_LOCALID $MINE'",
        "0 0 n1 3 0 1|1 1 n2 3 0 1|2 2 n3 3 0 1",
    ),
    "SLURM_CONTAINER": Case("srun --container $B sh -c 'test $SLURM_CONTAINER = '$B", ""),
    "--export=NONE": Case(
        "MINE=1 srun --export=NONE --container $B sh -c 'echo ${MINE-none} $SLURM_PROCID'", "none 0"
    ),
    "--export=LIST": Case(
        "MINE=1 srun --export=MINE,YOURS=2 --container $B sh -c 'echo $MINE $YOURS'", "1 2"
    ),
    "clean": Case(
        "MINE=1 srun --container-env-policy=clean --container $B sh -c 'echo ${MINE-none}'", "none"
    ),
    "nothing of ours": Case("srun --container $B env | grep -c ROADSTEAD_REQUEST", "0", code=1),
    # Bytes.
    "input": Case("echo typed | srun --container $B cat", "typed"),
    "much output": Case("srun --container $B head -c 3000000 /dev/zero | wc -c", "3000000"),
    "streams apart": Case(
        "srun --container $B sh -c 'echo out; echo error >&2'", "out", err="^error$"
    ),
    "--label": Case("srun -n3 -l --container $B sh -c 'echo x'", "0: x|1: x|2: x"),
    "files": Case(
        "srun -n2 -o 'o-%t' -e e --container $B sh -c 'echo $SLURM_PROCID; echo e >&2'; cat o-? e",
        "0|1|e|e",
    ),
    "input from a file": Case("echo x >in; srun -n2 -i in --container $B cat", "x|x"),
    "terminal": Case(
        "script -qec 'srun --pty --container $B sh -c \"test -t 0 && test -t 1 && echo is one\"' "
        # Without what it types, and without progress that was shown before.
        "/dev/null </dev/null | tr -d '\\r\\0\\004\\b^@D' | sed 's/.*\x1b\\[K//'",
        "is one",
    ),
    # Signals.
    "a signal comes once": Case(
        """srun --container-mounts $PWD:/w --container $P sh /trap.sh /w/end >said 2>&1 &
said said ready
scancel -s USR1 $(running); said said usr1; touch end; wait $!""",
        code=1,
    ),
    "to the batch script": Case(
        """job=$(sbatch --parsable -o said --container-mounts $PWD:/w --container $B \
--wrap 'exec sh /trap.sh /w/end')
said said ready; scancel --batch -s USR1 $job; said said usr1; touch end; gone $job
cat said; scontrol show job $job | grep -o 'ExitCode=[0-9]*:[0-9]*'""",
        "ExitCode=1:0|ready|usr1",
    ),
    "to all of the batch job": Case(
        """job=$(sbatch --parsable -o said --container-mounts $PWD:/w --container $B \
--wrap 'exec sh /trap.sh /w/end')
said said ready; scancel --full -s USR1 $job; said said usr1; touch end; gone $job
grep -v defined said; scontrol show job $job | grep -o 'ExitCode=[0-9]*:[0-9]*'""",
        "ExitCode=1:0|ready|usr1",
    ),
    "cancelled, deaf": Case(
        """srun --container $B sh -c 'echo ready; exec sleep 60' >said & said said ready
scancel $(running); wait $!""",
        code=143,
    ),
    "cancelled, it says how it ends": Case(
        """job=$(sbatch --parsable -o said --container $B --wrap 'exec sh /trap.sh /nothing')
said said ready; scancel $job; gone $job; grep term said
scontrol show job $job | grep -o 'JobState=[A-Z]*'""",
        "JobState=CANCELLED|term",
    ),
    # Several tasks.
    "tasks of a node": Case(
        "srun -N1 -n3 --container $B sh -c 'echo $$ $SLURM_PROCID $SLURM_LOCALID'",
        "1 0 0|1 1 1|1 2 2",
    ),
    "programs": Case(
        """printf '0 echo first %%t\\n1-2 sh -c "echo $SLURM_PROCID %%o"\\n' >mp
srun -n3 --container $B --multi-prog mp""",
        "1 0|2 1|first 0",
    ),
    "heterogeneous": Case(
        "srun -Q -n1 --container $B sh -c 'echo A $SLURM_PROCID' "
        ": -n2 --container $B sh -c 'echo B $SLURM_PROCID'",
        "A 0|B 1|B 2",
    ),
    "heterogeneous script": Case(
        "batch -n1 --container $B : -n1 --wrap 'echo $SLURM_HET_SIZE; cat /etc/os-release'",
        f"2|{RELEASE}|exit 0:0|exit 0:0",
    ),
    # Arrays.
    "array": Case(
        """job=$(sbatch --parsable -o 'a-%a' --array=1,3 --container $B \
--wrap 'echo $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT; cat /etc/os-release')
gone $job; cat a-*""",
        f"1 of 2|3 of 2|{RELEASE}|{RELEASE}",
    ),
    # The container.
    "--chdir": Case("srun --chdir=/etc --container $B pwd", "/etc"),
    "--container-workdir": Case("srun --container-workdir=/tmp --container $B pwd", "/tmp"),
    "--container-mounts": Case(
        "echo x >f; srun --container-mounts=$PWD/f:/mnt/f --container $B cat /mnt/f", "x"
    ),
    "--container-readonly": Case(
        "srun --container-readonly --container $B sh -c 'echo x >/x'", code=1, err="[Rr]ead-only"
    ),
    "--container-writable=private": Case(
        """srun --container-writable=private --container $B sh -c 'echo x >/etc/own; cat /etc/own'
ls $B/rootfs/etc""",
        "group|not-executable|os-release|passwd|x",
    ),
    "images are not written to": Case(
        """srun --container $I sh -c 'echo x >/etc/own; cat /etc/own'
srun --container $I ls /etc/own""",
        "x",
        code=1,
        err="/etc/own",
    ),
    "--container-save": Case(
        """srun -n1 --container $I --container-save=s.tar sh -c 'echo x >/etc/own; exit 3'
srun -n1 --container oci-archive:s.tar cat /etc/own; ls -A""",
        "x|s.tar",
        err="task 0: Exited with exit code 3",
    ),
    "--container-save, where it cannot be": Case(
        "srun -n1 --container $I --container-save=none/s.tar echo x",
        code=1,
        err="there is no directory [^;]*/none; make it first",
    ),
    "--container-save of several tasks": Case(
        "srun -n2 --container $I --container-save=s.tar true"
    ),
    "--container-save of a step that is cancelled": Case(
        """srun -n1 --container $I --container-save=s.tar \
sh -c 'echo ready; exec sleep 60' >said & said said ready
scancel $(running); wait $!; ls -A""",
        "said",
    ),
    "--container-name": Case(
        "srun -n1 --container $I --container-name=c sh -c 'echo x >/own; cat /own'", "x"
    ),
    "--container-sync": Case(
        LATE + "srun -n2 --container-sync $LATE --container $B sh -c 'ls /made | wc -l'", "2|2"
    ),
    "--container-sync, cancelled while one is waited for": Case(
        LATE.replace("sleep 1", "exec sleep 60")
        + """srun -n2 --container-sync $LATE --container $B echo ran & until ls made | grep -q .
do sleep 0.1; done; scancel $(running); wait $!""",
        code=143,
        err=r"\A(?s:(?!.*has no container))",
    ),
    # So that the first of these can fail: what comes without.
    "no --container-sync": Case(
        LATE + "srun -n2 $LATE --container $B sh -c 'ls /made | wc -l'", "1|2"
    ),
    "--container-sync, and one that cannot start": Case(
        """printf '0 sh -c "echo ran"\n1 nosuch-here\n' >programs
srun -n2 --container-sync --multi-prog --container $B programs""",
        code=127,
        err="nosuch-here: not found",
    ),
    "--container-sync of a part of the job": Case(
        "salloc -Q -n4 srun -n2 --container-sync --container $B echo x", "x|x"
    ),
    "--container-sync of several components": Case(
        "srun -n1 --container-sync --container $B echo x : -n1 --container $B echo y", "x|y"
    ),
    "--container-sync of one that is alone": Case(
        "srun -n1 --container-sync --container $B echo x", "x"
    ),
    "--container-per=node": Case(
        "srun -N1 -n2 --container-per=node --container $B sh -c 'test -d /proc/1 && echo x'", "x|x"
    ),
    "--container-per=node: memory, processes and a layer in common": Case(
        f"{SHARED} --container-writable=private sh -c 'touch /w$SLURM_PROCID; {MEET}; ls -d /w*;"
        " readlink /proc/self/ns/pid; sleep 0.2' | sort -u | sed s/pid:.*/one/",
        "/w0|/w1|/w2|one",
    ),
    "--container-per=node: a port that is published": Case(
        "srun -N1 -n2 --container-per=node --container-publish=0:80 --container $B sh -c "
        "'test $ROADSTEAD_PORT_80 -gt 0 && echo told'",
        "told|told",
    ),
    "--container-per=node: an exit each": Case(
        f"{SHARED} sh -c 'exit $((SLURM_PROCID + 3))'",
        code=5,
        err=r"(?s:(?=.*task 0: Exited with exit code 3)(?=.*task 1: .* 4)(?=.*task 2: .* 5))",
    ),
    "--container-per=node: a signal is for all, and comes once": Case(
        f"""{SHARED} sh -c 'trap "echo usr1" USR1; {MEET}; echo up
for i in 1 2 3 4 5 6; do sleep 0.2; done' >said &
said said up; scancel -s USR1 $(running); wait $!; cat said""",
        "up|up|up|usr1|usr1|usr1",
    ),
    "--container-per=node, cancelled": Case(
        f"{SHARED} sh -c '{MEET}; echo up; exec sleep 60' >said & said said up; "
        "scancel $(running); wait $!",
        code=143,
    ),
    "--container-per=node, and one that cannot start": Case(
        """printf '0,1 echo ran\n2 nosuch-here\n' >programs
srun -N1 -n3 --container-per=node --multi-prog --container $B programs""",
        code=127,
        err="nosuch-here: not found in the container",
    ),
    "--container-per=node with --container-sync": Case(
        f"{SHARED} --container-sync sh -c '{MEET}; echo x'", "x|x|x"
    ),
    "--container-per=node of a batch script": Case(
        "batch --container $B --container-per=node --wrap true | grep -o 'for the .*\\|exit .*'",
        "for the tasks of a step, not for a batch script|exit 1:0",
    ),
    "--dry-run": Case(
        "srun --dry-run --container $B nosuch-here", code=127, err="nosuch-here: not"
    ),
    "who one is": Case("srun --container $B id -u", "0"),
    "its own pids": Case("srun --container $B sh -c 'echo $$'", "1"),
    # Mistakes.
    "a wrong mount": Case(
        "srun --container-mounts=bad --container $B true", code=255, err="'bad': the source"
    ),
    "a detail without a container": Case(
        "srun --container-readonly true", code=1, err="--container-readonly needs --container"
    ),
    "a bad directive": Case(
        "printf '#!/bin/sh\\n#SBATCH --container=%s --nosuch\\n' $B | sbatch",
        code=255,
        err="unrecognized option '--nosuch'",
    ),
}

# Where a cluster is another thing than one machine: what comes there, and why.
_REFUSED = Case("", code=1, err="with a container on a Slurm cluster: .*; leave it out, or use the")
DIFFERENCES: dict[str, tuple[Case, str]] = {
    "--container-name": (
        _REFUSED._replace(line=CASES["--container-name"].line),
        "Slurm tells nobody on the nodes when a job ends, and the container would stay",
    ),
    "--container-per=node, and one that cannot start": (
        CASES["--container-per=node, and one that cannot start"]._replace(out="ran|ran"),
        "each task has an agent of its own there, which looks for its program",
    ),
    "--container-sync of several components": (
        CASES["--container-sync of several components"]._replace(
            out="", code=1, err="--container-sync is for a step of one component on a Slurm cluster"
        ),
        "the tasks of a component are not told how many the others have",
    ),
    "--dry-run": (
        _REFUSED._replace(line=CASES["--dry-run"].line),
        "what would run is decided on nodes, by agents",
    ),
    "--container-save of several tasks": (
        CASES["--container-save of several tasks"]._replace(
            code=1, err="--container-save on a Slurm cluster is for a step of one task; .* add -n1"
        ),
        "each task has a container of its own there, and may be on another node",
    ),
    "signal": (
        CASES["signal"]._replace(err="task 0: Segmentation fault"),
        "an agent has no runtime that waits, and sees the signal itself; what the local engine has "
        "of crun's run is 128 + its number",
    ),
}

# Places whose nodes lack something, and what cannot be tried there.
_NO_COMMANDS = "it calls our srun on a node, which has none"
_OUTPUT = "Slurm's nodes write the job's output, and have not the submitter's directory"
_SOURCE = "it mounts the submitter's directory"
_PLUGINS = "plugins are files of the site's, on each node"
_OF_STEPS = dict.fromkeys(
    ("guide: batch, step 0", "guide: job with step 1", "a job's container is not its steps'"),
    _NO_COMMANDS,
)
LACKING: dict[str, dict[str, str]] = {
    "slurm bare": _OF_STEPS,
    "slurm apart": {
        **_OF_STEPS,
        "array": _OUTPUT,
        "cancelled, it says how it ends": _OUTPUT,
        "files": _OUTPUT,
        "to all of the batch job": _OUTPUT,
        "to the batch script": _OUTPUT,
        "--container-mounts": _SOURCE,
        "--container-save": _OUTPUT,
        "--container-sync": _SOURCE,
        "--container-sync, cancelled while one is waited for": _SOURCE,
        "no --container-sync": _SOURCE,
        "--container-save of a step that is cancelled": _OUTPUT,
        "a signal comes once": _SOURCE,
        "plugin": _PLUGINS,
        "plugin of a container that tasks share": _PLUGINS,
        "plugin of a batch script": _PLUGINS,
        "required plugin that fails": _PLUGINS,
    },
}
LINES = sorted(CASES)
# What may be another thing for root: no user namespace, other mounts and ids; the rest is a user's.
AS_ROOT = (
    *("guide: batch", "guide: job with step 0", "image", "exit of the worst", "signal"),
    *("no runtime", "variables", "input", "terminal", "to the batch script", "cancelled, deaf"),
    *("tasks of a node", "array", "--container-mounts", "--container-readonly", "who one is"),
    *("--container-writable=private", "images are not written to", "its own pids", "plugin"),
    *("network none", "network host", "network private, a port of the host", "--chdir"),
    "--container-per=node: memory, processes and a layer in common",
)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param != "local":
        require("root", "slurm", "address", "crun")
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def here(kind: str, account: Account, product: Product, shims: Path) -> Iterator[Place]:
    require("busybox", "runc")
    lacking = kind in LACKING
    if lacking and account.uid == 0:
        pytest.skip("the same for root")
    with place(kind, account, shims, product.library if lacking else None) as made:
        yield made


def test_every_difference_is_about_a_case() -> None:
    assert {*DIFFERENCES, *AS_ROOT, *(name for each in LACKING.values() for name in each)} <= set(
        CASES
    )
    assert all(CASES[name][1:] != case[1:] for name, (case, _) in DIFFERENCES.items())


@pytest.mark.parametrize("name", LINES)
def test_the_same_line(here: Place, name: str) -> None:
    if here.engine.account.uid == 0 and name not in AS_ROOT:
        pytest.skip("the same for root")
    if reason := LACKING.get(here.kind, {}).get(name):
        pytest.skip(reason)
    case = CASES[name]
    if here.kind != "local" and name in DIFFERENCES:
        case = DIFFERENCES[name][0]
    if name == "terminal" and program("script") is None:
        require("script")
    done = here.run(case.line)
    assert done.returncode == case.code, str(done)
    wanted = sorted(filter(None, case.out.split("|")))
    assert sorted(done.stdout.splitlines()) == wanted, str(done)
    assert re.search(case.err, done.stderr, re.MULTILINE), str(done)


def test_nothing_is_left(here: Place) -> None:
    """After all of the above; and after what is killed at work."""
    line = """srun -n3 --container $B sh -c 'echo ready; exec sleep 60' >said &
until test "$(grep -c ready said)" = 3; do sleep 0.05; done
scancel -s KILL $(step); wait $!"""
    assert here.run(line).returncode == 137
    assert here.left() == []
