"""The option table against what Slurm 22.05 takes, and the merging of where options come from."""

from __future__ import annotations

import pytest

from roadstead.cli import option, options, options_accounting, options_launch, options_queries
from roadstead.cli.getopt_long import NO_ARG, OPTIONAL, REQUIRED, Grammar
from roadstead.cli.option import COMMANDS, LIST, Option
from roadstead.cli.options import gather, parse, variables, without_effect
from roadstead.cli.script import Directive
from roadstead.errors import RequestError, UsageError

# What the commands of Slurm 22.05.8 were seen to take: ":" with a value, "::" with an attached one.
# (One exception: --overlap is documented as a flag, and there it swallows an attached value.)
LAUNCH = """
account: acctg-freq: bb: bbf: begin: chdir: cluster-constraint: cluster: clusters: comment:
constraint: container: context: contiguous core-spec: cores-per-socket: cpu-freq: cpus-per-gpu:
cpus-per-task: deadline: delay-boot: dependency: distribution: exclude: exclusive::
extra-node-info: gid: gpu-bind: gpu-freq: gpus: gpus-per-node: gpus-per-socket: gpus-per-task: gres:
gres-flags: help hint: hold job-name: licenses: mail-type: mail-user: mcs-label: mem: mem-bind:
mem-per-cpu: mem-per-gpu: mincpus: network: nice:: no-kill:: nodefile: nodelist: nodes: ntasks:
ntasks-per-core: ntasks-per-gpu: ntasks-per-node: ntasks-per-socket: ntasks-per-tres: overcommit
oversubscribe partition: power: prefer: priority: profile: qos: quiet reboot reservation: signal:
sockets-per-node: spread-job switches: tasks-per-node: thread-spec: threads-per-core: time:
time-min: tmp: uid: usage use-min-nodes verbose version wckey:
"""
SLURM_22_05 = {
    "srun": f"""{LAUNCH} accel-bind: bcast:: bcast-exclude: compress:: cpu-bind: cpu_bind:
        debugger-test disable-status epilog: error: exact export: het-group: immediate:: input:
        interactive jobid: kill-on-bad-exit:: label mpi: msg-timeout: multi-prog no-allocate
        open-mode: output: overlap pack-group: preserve-env prolog: propagate:: pty
        quit-on-interrupt relative: resv-ports:: send-libs:: slurmd-debug: task-epilog:
        task-prolog: test-only threads: unbuffered wait: whole x11::""",
    "sbatch": f"""{LAUNCH} array: batch: error: export: export-file: get-user-env:: ignore-pbs
        input: kill-on-invalid-dep: no-requeue open-mode: output: parsable propagate:: requeue
        test-only wait wait-all-nodes: wrap:""",
    "salloc": f"""{LAUNCH} bell get-user-env:: immediate:: kill-command:: no-bell no-shell
        wait-all-nodes: x11::""",
    "squeue": """accounts: all array array-unique cluster: clusters: Format: format: federation help
        hide iterate: jobs:: json licenses: local long me name: noconvert node: nodes: nodelist:
        noheader partitions: priority qos: reservation: sibling sort: start states: steps:: usage
        user: users: verbose version yaml""",
    "scancel": """account: batch cluster: clusters: ctld full help hurry interactive jobname: me
        name: nodelist: partition: qos: quiet reservation: sibling: signal: state: usage user:
        verbose version wckey:""",
    "sinfo": """all cluster: clusters: dead exact federation Format: format: help hide iterate: json
        list-reasons local long noconvert Node nodes: noheader partition: reservation responding
        sort: states: summarize usage verbose version yaml""",
    "scontrol": """all cluster: clusters: details federation future help hide local oneliner quiet
        sibling uid: usage verbose version""",
    "sattach": """error-filter: help input-filter: label layout output-filter: pty quiet usage
        verbose version""",
    "sbcast": """compress:: exclude: fanout: force help jobid: preserve send-libs:: size: timeout:
        usage verbose version""",
    "sacct": """account: accounts: allclusters allocations allusers associations: batch-script brief
        cluster: clusters: completion constraints: delimiter: duplicates endtime: env-vars
        federation file: flags: format: gid: group: help helpformat jobs: json local long name:
        ncpus: nnodes: noconvert nodelist: noheader parsable parsable2 partition: qos: starttime:
        state: timelimit-max: timelimit-min: truncate uid: units: usage user: verbose version
        wckeys: whole-hetjob: yaml""",
    "sstat": """allsteps fields: format: help helpformat jobs: noconvert noheader parsable parsable2
        pidformat usage verbose version""",
    "sprio": """cluster: clusters: federation format: help jobs:: local long noheader norm
        partition: sibling sort: usage user: users: verbose version weights""",
    "sshare": """Users accounts: all cluster: clusters: format: help helpformat long noheader
        parsable parsable2 partition usage users: verbose version""",
    # As its manual has them: without a database it looks at none.
    "sreport": """all_clusters cluster: clusters: federation help immediate local noheader parsable
        parsable2 quiet time: tres: usage verbose version""",
    "sacctmgr": """associations help immediate noheader oneliner parsable parsable2 quiet readonly
        usage verbose version""",
    "sdiag": """all cluster: clusters: help reset sort-by-id sort-by-time sort-by-time2 usage
        version""",
}
SLURM_LETTERS = {
    "srun": "b:c:d:e:hi:klm:n:o:p:q:r:st:uvw:x:A:B:C:D:EF:G:HIJ:KL:M:N:OQS:T:VW:XZ",
    "sbatch": "a:b:c:d:e:hi:km:n:o:p:q:st:vw:x:A:B:C:D:F:G:HJ:L:M:N:OQS:VW",
    "salloc": "b:c:d:hkm:n:p:q:st:vw:x:A:B:C:D:F:G:HIJ:KL:M:N:OQS:V",
    "squeue": "ahi:jln:o:p:q:rst:u:vw:A:L:M:O:PR:S:V",
    "scancel": "bfin:p:q:s:t:u:vw:A:HM:QR:V",
    "sinfo": "adehi:ln:o:p:rst:vM:NO:RS:TV",
    "scontrol": "adhou:vFM:QV",
    "sattach": "hluvQV",
    "sbcast": "fj:ps:t:vCF:V",
    # Slurm's own has a "t" as well, which does nothing but end it.
    "sacct": "aA:bBcC:DeE:f:F:g:hi:I:j:k:K:lLM:nN:o:pPq:r:s:S:Tu:UvVW:x:X",
    "sstat": "aehij:no:pvPV",
    "sprio": "hjlno:p:u:vwM:S:V",
    # "q" and "t" are there as well, and do nothing.
    "sshare": "aehlmno:pu:vA:M:PUV",
    "sreport": "ahiM:npPQt:T:vV",
    "sacctmgr": "hinoprsvPQV",
    "sdiag": "ahirtM:TV",
}
OUR_OWN = {
    "container-env-policy", "container-hooks", "container-hooks-dir", "container-id",
    "container-network", "container-per", "container-publish", "container-readonly",
    "container-sync", "container-system", "container-writable", "partition", "states", "users",
    "dockerd", "dockerd-image", "podman-service",
    "image", "volume",  # Shifter's
    # Pyxis's and the Container Engine's
    "container-entrypoint", "container-entrypoint-log", "container-env", "container-image",
    "container-mount-home", "container-mounts", "container-name", "container-remap-root",
    "container-save", "container-stage", "container-workdir", "device", "dry-run", "environment",
    "no-container-entrypoint", "no-container-mount-home", "no-container-remap-root",
}  # fmt: skip
KINDS = {"": NO_ARG, ":": REQUIRED, "::": OPTIONAL}


def rows(command: str) -> list[Option]:
    return options.rows(command)


ROWS = (*options_launch.ROWS, *options_queries.ROWS, *options_accounting.ROWS)


@pytest.mark.parametrize("command", COMMANDS)
def test_takes_every_option_of_slurm(command: str) -> None:
    known = {name: row for row in rows(command) for name in (row.name, *row.aliases.split())}
    theirs = {word.rstrip(":"): word for word in SLURM_22_05[command].split()}
    kinds = {name: KINDS[word[len(name) :]] for name, word in theirs.items()}
    assert {name: known[name].arg for name in kinds} == kinds
    assert set(known) - set(kinds) <= OUR_OWN


@pytest.mark.parametrize("command", COMMANDS)
def test_takes_the_letters_of_slurm(command: str) -> None:
    theirs = SLURM_LETTERS[command]
    valued = {theirs[at - 1] for at, char in enumerate(theirs) if char == ":"}
    ours = {row.short: row.arg == REQUIRED for row in rows(command) if row.short}
    assert ours == {letter: letter in valued for letter in theirs if letter != ":"}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_two_rows_share_a_spelling(command: str) -> None:
    names = [name for row in rows(command) for name in (row.name, *row.aliases.split())]
    letters = [row.short for row in rows(command) if row.short]
    assert len(names) == len(set(names))
    assert len(letters) == len(set(letters))


def test_a_row_is_complete() -> None:
    for row in ROWS:
        named = f"--{row.name} of {row.commands:#x}"
        treatment, colon, reason = row.treatment.partition(":")
        assert treatment in ("honoured", "no-op", "refused"), named
        assert bool(colon) == bool(reason) == (treatment != "honoured"), named
        assert not (row.help and treatment != "honoured"), f"{named}: help shows the reason"
        assert bool(row.metavar) == bool(row.help and row.arg), named


def test_an_optional_value_binds_only_when_attached() -> None:
    assert parse("srun", ["--exclusive", "hostname"]) == ([("exclusive", "")], ["hostname"])
    assert parse("srun", ["-I", "10"]) == ([("immediate", "")], ["10"])
    assert parse("srun", ["-I10", "true"]) == ([("immediate", "10")], ["true"])


def test_the_first_operand_ends_the_options_of_a_launch() -> None:
    assert parse("srun", ["-vn4", "sh", "-c", "--", "x"])[1] == ["sh", "-c", "--", "x"]
    assert parse("srun", ["--", "-n", "true"]) == ([], ["-n", "true"])


def test_options_may_follow_the_operands_of_a_query() -> None:
    pairs, rest = parse("scontrol", ["show", "job", "-o", "7", "--", "-d"])
    assert (pairs, rest) == ([("oneliner", "")], ["show", "job", "7", "-d"])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--bogus=1"], "unrecognized option '--bogus=1'"),
        (["-n"], "option requires an argument -- 'n'"),
        (["--ntasks"], "option '--ntasks' requires an argument"),
        (["--verb=3"], "option '--verbose' doesn't allow an argument"),
        (["-vy"], "invalid option -- 'y'"),
        (["--open=a", "--ex"], "option '--ex' is ambiguous; possibilities: '--exclude' "
         "'--exclusive' '--extra-node-info' '--export' '--exact'"),
    ],
)  # fmt: skip
def test_errors_are_worded_as_in_glibc(argv: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse("srun", argv)
    assert str(caught.value) == sentence
    assert caught.value.hint == 'Try "srun --help" for more information'


def test_flags_are_1_and_counted_flags_count() -> None:
    asked, rest = gather("srun", ["-vv", "--label", "-v", "-n2", "-n", "3", "true", "-v"], {})
    assert asked == {"verbose": "3", "label": "1", "ntasks": "3"}
    assert rest == ["true", "-v"]


def test_a_list_option_collects_its_values() -> None:
    row = Option("mount", "", REQUIRED, option.SRUN, repeat=LIST)
    grammar = Grammar("srun", [row], in_order=True)
    assert options._level(grammar, [("mount", "a"), ("mount", "b,c")]) == {"mount": "a,b,c"}


@pytest.mark.parametrize(
    ("command", "environ", "asked"),
    [
        ("srun", {"SLURM_NTASKS": "2", "SLURM_NPROCS": "9"}, {"ntasks": "2"}),
        ("srun", {"SLURM_NPROCS": "9"}, {"ntasks": "9"}),
        ("srun", {"SRUN_CONTAINER": "/b", "SLURM_CONTAINER": "/a"}, {"container": "/b"}),
        ("srun", {"SLURM_CONTAINER": "/a"}, {}),
        ("srun", {"SLURM_CPUS_PER_TASK": "4"}, {}),
        ("srun", {"SRUN_CPUS_PER_TASK": "4"}, {"cpus-per-task": "4"}),
        ("srun", {"SLURM_EXPORT_ENV": "ALL", "SRUN_EXPORT_ENV": "NONE"}, {"export": "NONE"}),
        ("srun", {"SLURM_STDOUTMODE": "o", "SLURM_STDINMODE": "i"}, {"output": "o", "input": "i"}),
        ("srun", {"SLURM_JOB_NAME": "j"}, {"job-name": "j"}),
        ("srun", {"SLURM_JOB_NAME": "j", "SLURM_JOB_ID": "7"}, {"jobid": "7"}),
        ("srun", {"SLURM_EXCLUSIVE": ""}, {"exclusive": ""}),
        ("srun", {"SLURM_LABELIO": ""}, {"label": "1"}),
        ("srun", {"SLURM_LABELIO": "yes", "SLURM_UNBUFFEREDIO": "0"}, {"label": "1"}),
        ("srun", {"SLURM_LABELIO": "no", "SLURM_DEBUG": "2"}, {"verbose": "2"}),
        ("srun", {"SBATCH_TIMELIMIT": "5", "SALLOC_TIMELIMIT": "5"}, {}),
        ("sbatch", {"SBATCH_TIMELIMIT": "5", "SLURM_TIMELIMIT": "6"}, {"time": "5"}),
        ("sbatch", {"SBATCH_WAIT": "1", "SBATCH_OUTPUT": "o"}, {"wait": "1", "output": "o"}),
        ("sbatch", {"SLURM_NTASKS": "3", "SLURM_JOB_ID": "7"}, {}),
        ("salloc", {"SALLOC_KILL_CMD": "TERM"}, {"kill-command": "TERM"}),
        ("squeue", {"SQUEUE_FORMAT": "%i", "SQUEUE_NAMES": "a"}, {"format": "%i", "name": "a"}),
        ("scancel", {"SCANCEL_VERBOSE": "1", "SCANCEL_NAME": "x"}, {"verbose": "1", "name": "x"}),
        ("sinfo", {"SINFO_ALL": "1", "SQUEUE_FORMAT": "%i"}, {"all": "1"}),
    ],
)
def test_variables_stand_for_options(
    command: str, environ: dict[str, str], asked: dict[str, str]
) -> None:
    assert gather(command, [], environ)[0] == asked


def test_the_command_line_is_over_the_environment_over_the_script() -> None:
    script = [Directive(2, ["-t1", "-ofrom-script"]), Directive(3, ["-pscript", "--comment=s"])]
    environ = {"SBATCH_TIMELIMIT": "2", "SBATCH_PARTITION": "environment"}
    asked, rest = gather("sbatch", ["-t3", "job.sh", "-t4"], environ, script)
    assert asked == {
        "time": "3", "partition": "environment", "output": "from-script", "comment": "s"
    }  # fmt: skip
    assert rest == ["job.sh", "-t4"]


def test_a_stronger_level_takes_the_rivals_of_a_weaker_one_away() -> None:
    job = {"SLURM_MEM_PER_NODE": "4G", "SLURM_JOB_ID": "7"}
    assert gather("srun", ["--mem-per-cpu=1G"], job)[0] == {"mem-per-cpu": "1G", "jobid": "7"}
    assert gather("squeue", ["-Ojobid"], {"SQUEUE_FORMAT": "%i"})[0] == {"Format": "jobid"}
    asked, _ = gather("srun", ["--mem=1", "--mem-per-cpu=1"], {})
    assert asked == {"mem": "1", "mem-per-cpu": "1"}  # one level: the request decides


def test_what_is_refused_says_why_and_where_it_came_from() -> None:
    reason = "the local engine has no burst buffers"
    with pytest.raises(RequestError, match=f"^--bb: {reason}$"):
        gather("srun", ["--bb=x"], {})
    where = r"^SLURM_BURST_BUFFER in the environment \(--bb\)"
    with pytest.raises(RequestError, match=f"{where}: {reason}"):
        gather("srun", [], {"SLURM_BURST_BUFFER": "x"})
    with pytest.raises(RequestError, match=f"^--bb: {reason}: line 4 of the batch script$"):
        gather("sbatch", [], {}, [Directive(4, ["--bb", "x"])])
    assert gather("sbatch", [], {"SBATCH_REQUEUE": "0"})[0] == {}


@pytest.mark.parametrize(
    ("argv", "error", "sentence"),
    [
        (["--bogus"], UsageError, "unrecognized option '--bogus'"),
        (["-n2", "stray", "-N1"], RequestError, "invalid directive found in batch script: stray"),
    ],
)
def test_an_error_in_a_directive_names_its_line(
    argv: list[str], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=f"^{sentence}: line 9 of the batch script$"):
        gather("sbatch", [], {}, [Directive(1, ["-n1"]), Directive(9, argv)])


def test_a_script_cannot_ask_for_help() -> None:
    assert gather("sbatch", [], {}, [Directive(2, ["-hV", "--wrap=x", "-n1"])])[0] == {
        "ntasks": "1"
    }


def test_help_is_given_whatever_else_is_wrong() -> None:
    asked, _ = gather("srun", ["--bb=x", "-V", "--help"], {"SLURM_BURST_BUFFER": "x"})
    assert asked == {"version": "1"}


def test_without_effect_names_what_does_nothing() -> None:
    asked, _ = gather("srun", ["-Aproject", "-n1", "--contiguous"], {})
    assert without_effect("srun", asked) == [
        ("contiguous", "all nodes are this machine"),
    ]


def test_variables_are_listed_the_strongest_first() -> None:
    names = Grammar("srun", rows("srun"), in_order=True).names
    assert variables("srun", names["nodes"]) == ["SLURM_JOB_NUM_NODES", "SLURM_NNODES"]
    assert variables("sbatch", names["nodes"]) == []
    assert variables("salloc", names["container-id"]) == ["SALLOC_CONTAINER_ID"]
