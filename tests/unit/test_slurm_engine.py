"""The Slurm engine's pure parts: which engine, whose options, and how a request travels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roadstead.agent import request
from roadstead.cli import options
from roadstead.cli import script as scripts
from roadstead.engines import choice
from roadstead.engines.slurm import carried, real, rewrite, script
from roadstead.errors import EngineError, RequestError, UsageError

OURS = options.is_about_containers
AGENT = ["/py", "-IS", "/agent"]


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """A host with a slurm.conf and, behind our own srun on PATH, Slurm's."""
    program(tmp_path / "ours" / "srun", "#!/usr/bin/python3\nfrom roadstead.cli.srun import main\n")
    program(tmp_path / "slurm" / "srun", "\x7fELF")
    (tmp_path / "slurm.conf").touch()
    return {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}/ours:{tmp_path}/slurm",
        "SLURM_CONF": str(tmp_path / "slurm.conf"),
    }


def test_a_real_slurm_is_chosen(site: dict[str, str]) -> None:
    chosen, why = choice.engine(site)
    assert chosen == "slurm"
    assert site["SLURM_CONF"] in why
    assert real.find("srun", site).endswith("/slurm/srun")


CHOICES = [
    ({"SLURM_CONF": "/nowhere"}, "local", "no slurm.conf"),
    ({"PATH": "/nowhere"}, "local", "no srun of Slurm's"),
    ({"ROADSTEAD_ENGINE": "local"}, "local", "ROADSTEAD_ENGINE=local"),
    ({"SLURM_CONF": "/nowhere", "ROADSTEAD_ENGINE": "slurm"}, "slurm", "ROADSTEAD_ENGINE=slurm"),
    ({"SLURM_CLUSTER_NAME": "local", "SLURM_JOB_ID": "7"}, "local", "inside job 7"),
    ({"SLURM_CLUSTER_NAME": "big", "SLURM_JOB_ID": "7"}, "slurm", "slurm.conf"),
    ({"SLURM_CONF": "", "SLURM_CONF_SERVER": "head"}, "slurm", "SLURM_CONF_SERVER=head"),
]


@pytest.mark.parametrize(("more", "chosen", "why"), CHOICES)
def test_what_chooses(site: dict[str, str], more: dict[str, str], chosen: str, why: str) -> None:
    found, said = choice.engine({**site, **more})
    assert found == chosen
    assert why in said


def test_roadstead_conf_chooses(site: dict[str, str], tmp_path: Path) -> None:
    conf = tmp_path / "roadstead.conf"
    conf.write_text("# Engine=slurm\nKillWait=3\nengine = Local # for now\n")
    assert choice.engine({**site, "ROADSTEAD_CONF": str(conf)}) == (
        "local",
        f"Engine=local in {conf}",
    )
    conf.write_text("Engine=pbs\n")
    with pytest.raises(EngineError, match="Engine=pbs: no such engine"):
        choice.engine({**site, "ROADSTEAD_CONF": str(conf)})


def component(
    command: str, argv: list[str], env: dict[str, str] | None = None
) -> rewrite.Component:
    pairs, operands = options.parse(command, argv)
    return rewrite.Component(pairs, options.of_containers(command, pairs, env or {}), operands)


SRUN = [
    ("-N2 -l --container=B app -x", "--nodes=2 --label --job-name=app {0} app -x"),
    ("--container B --exclusive -J me /opt/app", "--exclusive --job-name=me {0} /opt/app"),
    ("--container=B -c 2 --gpus=1 app", "--cpus-per-task=2 --gpus=1 --job-name=app {0} app"),
    (
        "--container-image=i --container-mounts=/a:/b -vv a",
        "--verbose --verbose --job-name=a {0} a",
    ),
    ("--container=B --multi-prog f", "--job-name=f {0} f"),
    ("-n1 --container=B a : -n2 b", "--ntasks=1 --job-name=a {0} a : --ntasks=2 b"),
]


@pytest.mark.parametrize(("line", "wanted"), SRUN)
def test_srun_is_rewritten(line: str, wanted: str) -> None:
    words = line.split()
    parts: list[list[str]] = [[]]
    for word in words:
        if word == ":":
            parts.append([])
        else:
            parts[-1].append(word)
    made = rewrite.srun([component("srun", each) for each in parts], OURS, [AGENT] * len(parts), {})
    assert " ".join(made) == wanted.format("/py -IS /agent task 0")


def test_options_that_only_slurm_knows_are_passed_on() -> None:
    argv = ["--spank-x=a b", "--container=B", "app"]
    pairs, operands = options.parse("srun", argv, lenient=True)
    each = rewrite.Component(pairs, options.of_containers("srun", pairs, {}), operands)
    assert rewrite.srun([each], OURS, [AGENT], {})[0] == "--spank-x=a b"
    with pytest.raises(UsageError, match="unrecognized option '--spank-x'"):
        options.parse("srun", ["--spank-x", "a", "--container=B", "app"], lenient=True)


def test_a_jobs_name_is_not_its_steps() -> None:
    each = component("srun", ["--container=B", "app"])
    named = {"SLURM_JOB_NAME": "mine"}
    assert "--job-name=app" not in rewrite.srun([each], OURS, [AGENT], named)
    assert "--job-name=app" in rewrite.srun([each], OURS, [AGENT], {**named, "SLURM_JOB_ID": "1"})


REFUSED = ["--container-name=x", "--dry-run", "--bcast=/tmp/x"]


@pytest.mark.parametrize("option", REFUSED)
def test_what_cannot_be_had_is_refused(option: str) -> None:
    each = component("srun", ["--container=B", option, "app"])
    with pytest.raises(RequestError, match="with a container on a Slurm cluster"):
        rewrite.check(each.asked, each.pairs)


ASKING = [
    ("srun -N2 hostname", {}, False),
    ("srun --constraint=x --chdir=/ hostname", {}, False),
    ("srun --contai=B hostname", {}, True),
    ("srun --environment=e hostname", {}, True),
    ("srun hostname", {"SRUN_CONTAINER": "B"}, True),
    ("srun hostname", {"PYXIS_CONTAINER_IMAGE": "B"}, True),
    ("sbatch job.sh", {"SRUN_CONTAINER": "B"}, False),
]


@pytest.mark.parametrize(("line", "env", "may"), ASKING)
def test_who_may_ask_for_a_container(line: str, env: dict[str, str], may: bool) -> None:
    command, *argv = line.split()
    assert options.may_ask_for_containers(command, argv, env) is may


def test_the_environment_asks_too() -> None:
    each = component("srun", ["app"], {"SRUN_CONTAINER": "B", "SRUN_CONTAINER_READONLY": "1"})
    assert each.asked == {"container": "B", "container-readonly": "1"}
    assert not component("srun", ["app"], {"SRUN_CONTAINER_READONLY": "1"}).contained


def test_a_script_asks_too() -> None:
    directives = scripts.directives("#!/bin/sh\n#SBATCH -J x --container=B -n 2\n#SBATCH -t 1\n")
    assert options.of_containers("sbatch", [], {}, directives) == {"container": "B"}
    given = [("container", "C"), ("time", "2")]
    assert options.of_containers("sbatch", given, {}, directives) == {"container": "C"}


def test_slurm_takes_no_container_for_its_own() -> None:
    env = {"SRUN_CONTAINER": "B", "SLURM_CONTAINER": "B", "SLURM_CONTAINER_ID": "x", "HOME": "/"}
    made = rewrite.environment(env, "{}")
    assert made == {"HOME": "/", request.VARIABLE: "{}"}


SCRIPT = """#!/bin/bash
#SBATCH -n2 --container=B
#SBATCH --comment="a b#c" -t 9
echo "$0" 'x'
# roadstead: {"no":1}
"""


def test_a_batch_script_comes_back_as_it_was() -> None:
    pairs = [options.parse("sbatch", each.argv)[0] for each in scripts.directives(SCRIPT)]
    start = carried.in_place(["/p y", "it's"])
    made = script.made([*pairs, "hetjob"], OURS, start, '{"v":1}', SCRIPT)
    head, _, _ = made.partition("exec ")
    assert head.splitlines()[2:] == [
        "#SBATCH --ntasks=2",
        '#SBATCH "--comment=a b#c" --time=9',
        "#SBATCH hetjob",
    ]
    # Slurm's reader of such lines and ours agree (tests/unit/test_script.py).
    assert scripts.split(head.splitlines()[3][7:], 1) == ["--comment=a b#c", "--time=9"]
    assert "exec '/p y' 'it'\\''s' batch \"$0\" \"$@\"" in made
    assert request.taken_apart(made) == ('{"v":1}', SCRIPT)


@pytest.mark.parametrize("text", ["", "#!/bin/sh\n", SCRIPT])
def test_any_other_script_is_refused(text: str) -> None:
    with pytest.raises(EngineError):
        request.taken_apart(text)


@pytest.mark.parametrize("told", [None, {}, {"v": 1}, {"v": 1, "components": []}, {"v": 2}, []])
def test_what_is_no_request_is_refused(told: object) -> None:
    with pytest.raises(EngineError):
        request.component(told, 0)


def test_ours_are_told_from_slurms(tmp_path: Path) -> None:
    program(tmp_path / "a" / "srun", "#!/bin/sh\nexec roadstead srun\n")
    site = program(tmp_path / "b" / "srun", "#!/bin/sh\nexec /opt/slurm/bin/srun\n")
    (tmp_path / "c" / "srun").mkdir(parents=True)
    path = os.pathsep.join(str(tmp_path / each) for each in "acb")
    assert real.find("srun", {"PATH": path}) == str(site)
    with pytest.raises(EngineError, match="Slurm's own srun is not on PATH"):
        real.must_find("srun", {"PATH": str(tmp_path / "a")})
