"""Plugins: the example of the documentation, every point, and plugins that misbehave."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import waiting
from tests.support.engine import Engine

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"
MakeBundle = Callable[..., Path]


def install(
    engine: Engine, text: str, line: str = "required plug.py", name: str = "plug.py"
) -> Path:
    folder = engine.base / "config" / "roadstead"
    if not folder.exists():
        engine.account.mkdir(folder)
    engine.account.write(folder / name, text)
    engine.account.write(folder / "plugstack.conf", f"{line}\n")
    return folder


def example() -> str:
    found = re.search(r"<!-- example -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_example_does_what_the_documentation_shows(
    engine: Engine, make_bundle: MakeBundle
) -> None:
    install(engine, example(), "optional greet.py ahoy", "greet.py")
    said = engine.run(["srun", "--greet=Ada", "sh", "-c", "echo $GREETING"])
    assert (said.stdout, said.stderr, said.returncode) == ("ahoy, Ada\n", "", 0)
    assert "[greet] say hello to NAME" in engine.run(["srun", "--help"]).stdout
    wrong = engine.run(["srun", "--greet=4", "true"])
    assert wrong.stderr == "srun: error: plugin greet: --greet: '4' is not a name\n"
    bundle = make_bundle()
    inside = engine.run(
        ["srun", "-v", "-n2", "-O", f"--container={bundle}", "--greet=Eve", "sh", "-c",
         "echo $GREETED_BY $GREETING; exit 3"]
    )  # fmt: skip
    assert sorted(inside.stdout.splitlines()) == ["0 ahoy, Eve", "1 ahoy, Eve"]
    assert inside.returncode == 3
    assert len(re.findall(r"plugin greet: container \S+ is there, pid \d+", inside.stderr)) == 2
    assert inside.stderr.count("somebody was rude: wait status 768") == 2
    # Of a script's steps, by the script's own lines.
    script = "#!/bin/sh\n#SBATCH --greet=Bob -o out\necho $GREETING\nsrun sh -c 'echo $GREETING'\n"
    engine.account.write(engine.work / "job", script)
    assert engine.run(["sbatch", "-W", "job"]).check()
    assert (engine.work / "out").read_text() == "ahoy, Bob\nahoy, Bob\n"


EVERY = """
import json, os
from roadstead import plugins
from roadstead.plugins import Option, POINTS
OPTIONS = [Option("mark", "a mark", "text"), Option("flag", "a flag")]
LOG = os.environ.get("PLUGIN_LOG") or "@LOG@"

def note(point, spank, **more):
    known = {}
    for name in dir(plugins):
        if name.startswith("S_") and name != "S_JOB_ENV":
            try:
                known[name] = spank.get_item(name)
            except plugins.SpankError as error:
                known[name] = error.code
    with open(LOG, "a") as file:
        file.write(json.dumps({"point": point, "context": spank.context, "items": known,
            "mark": spank.option_getopt("mark"), "flag": spank.option_getopt("flag"), **more,
        }) + "\\n")

def point(name):
    def called(spank, args, *given):
        note(name, spank, args=args, given=list(given))
    return called

for name in POINTS:
    globals()[name] = point(name)

def job_prolog(spank, args):
    colour = os.environ["SPANK_COLOUR"] + " " + spank.job_control_getenv("COLOUR")
    note("job_prolog", spank, args=args, given=[], colour=colour)

def job_epilog(spank, args):
    colour = spank.getenv("SPANK_COLOUR") + " " + spank.job_control_getenv("COLOUR")
    note("job_epilog", spank, args=args, given=[], colour=colour)

def init(spank, args):
    note("init", spank, args=args, given=[])
    spank.option_register(Option("extra", "registered in init"))

def init_post_opt(spank, args):
    note("init_post_opt", spank, args=args, given=[])
    if not spank.remote():
        spank.job_control_setenv("COLOUR", "blue")
        spank.asked["job-name"] = "renamed"

def user_init(spank, args):
    note("user_init", spank, args=args, given=[])
    spank.setenv("FROM_PLUGIN", "yes")
    spank.unsetenv("NOT_WANTED")

def task_init(spank, args):
    note("task_init", spank, args=args, given=[])
    spank.prepend_task_argv("env", "PREPENDED=1")

def container_resolve(spank, args, reference):
    note("container_resolve", spank, args=args, given=[reference])
    return reference.replace("NAMED", "bundle")
"""


def test_every_point_is_called_in_its_order(engine: Engine, make_bundle: MakeBundle) -> None:
    log = engine.work / "log"
    folder = install(engine, EVERY.replace("@LOG@", f"{log}"), "include stack.d/*.conf")
    engine.account.mkdir(folder / "stack.d")
    line = 'required ../plug.py one "two words" # note\n'
    engine.account.write(folder / "stack.d" / "a.conf", line)
    bundle = make_bundle(engine.work / "bundle")
    said = engine.run(
        ["srun", "--mark=x", "--flag", "--extra", "--container", f"{bundle.parent}/NAMED",
         "sh", "-c", "echo $FROM_PLUGIN$NOT_WANTED $PREPENDED $SLURM_JOB_NAME"],
        env={"NOT_WANTED": "here"},
    ).check()  # fmt: skip
    assert said.stdout == "yes 1 renamed\n"
    waiting.eventually(lambda: "job_epilog" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["context"], each["point"]) for each in lines if each["context"] == "local"] == [
        ("local", name)
        for name in ("init", "init_post_opt", "container_resolve", "local_user_init", "exit")
    ]
    assert [each["point"] for each in lines if each["context"] == "remote"] == [
        *("init", "init_post_opt", "user_init", "task_init", "bundle_ready", "task_post_fork"),
        *("container_created", "container_exited", "task_exit", "exit"),
    ]
    assert all(each["args"] == ["one", "two words"] for each in lines)
    by = {(each["context"], each["point"]): each for each in lines}
    late = [each for each in lines if each["point"] not in ("init", "slurmd_init")]
    assert [each["mark"] for each in late] == ["x"] * 15
    assert {each["flag"] for each in late} == {""}
    scripts = [each for each in lines if each["context"] == "job_script"]
    assert [(each["point"], each["colour"]) for each in scripts] == [
        ("job_prolog", "blue blue"), ("job_epilog", "blue blue")
    ]  # fmt: skip
    assert lines[-1]["point"] == "job_epilog"
    assert [each["point"] for each in lines if each["context"] == "slurmd"] == ["slurmd_init"]
    engine.stop().check()
    waiting.eventually(lambda: "slurmd_exit" in log.read_text())
    numbered = by["local", "local_user_init"]["items"]
    created = by["remote", "container_created"]
    assert numbered["S_JOB_ID"] == created["items"]["S_JOB_ID"] == 1
    assert numbered["S_JOB_STEPID"] == created["items"]["S_JOB_STEPID"] == 0
    assert created["items"]["S_TASK_PID"] == created["given"][0]["pid"] > 1
    assert created["given"][0]["status"] == "created"
    assert by["remote", "task_exit"]["items"]["S_TASK_EXIT_STATUS"] == 0
    assert by["remote", "init"]["items"]["S_TASK_ID"] == "ESPANK_NOT_TASK"
    # Before local_user_init has returned nothing of the step is there.
    order = [(each["context"], each["point"]) for each in lines]
    assert order.index(("local", "local_user_init")) < order.index(("remote", "init"))


_ENDED = "has ended the process it ran in"
_SLEEPS = "import time\ndef user_init(s, a):\n  while s.remote(): time.sleep(9)"
_RAISE = "raise RuntimeError('no')"
MISTAKES = [
    ("def init(s, a): raise ValueError('none left')", "plugin plug: init: ValueError: none left"),
    ("def init(s, a): return -1", "plugin plug: init: returned -1"),
    ("def init_post_opt(s, a): s.get_item('S_NOTHING')", "S_NOTHING: no such item"),
    ("def task_init(s, a): 1 / 0", "plugin plug: task_init: ZeroDivisionError"),
    ("import os\ndef user_init(s, a): os._exit(3)", f"plugin plug: begin: {_ENDED}"),
    ("import os\ndef task_init(s, a): os._exit(0)", f"plugin plug: task_init: {_ENDED}"),
    (_SLEEPS, "not returned in 1 seconds"),
    ("def local_user_init(s, a): raise OSError('no')", "local_user_init: OSError: no"),
    ("def exit(s, a):\n  if s.remote(): raise OSError('late')", "plugin plug: exit: OSError: late"),
    (f"def task_post_fork(s, a): {_RAISE}", "plugin plug: task_post_fork: RuntimeError: no"),
    (f"def container_created(s, a, c): {_RAISE}", "container_created: RuntimeError: no"),
    (f"def bundle_ready(s, a, c): c['x'] = 1; {_RAISE}", "bundle_ready: RuntimeError: no"),
    ("def container_exited(s, a, n): raise OSError(n)", "container_exited: OSError: 0"),
    ("import nothing", "plugin plug: ModuleNotFoundError: No module named 'nothing'"),
    ("def (", "plugin plug: SyntaxError"),
    ("def task_init_privileged(s, a): 0", "nothing here has privileges"),
    (
        "from roadstead.plugins import Option\nOPTIONS = [Option('ntasks', 'x')]",
        "plugin plug: --ntasks is an option that is there already",
    ),
]


def test_a_required_plugin_that_fails_fails_the_step_and_an_optional_one_warns(
    engine: Engine, make_bundle: MakeBundle
) -> None:
    argv = ["srun", f"--container={make_bundle()}", "true"]
    env = {"ROADSTEAD_PLUGIN_TIMEOUT": "1"}
    for code, words in MISTAKES:
        install(engine, code)
        said = engine.run(argv, env=env)
        assert said.returncode == 1, (code, said)
        assert words in said.stderr, code
        assert "error: " in said.stderr, code
        assert "Traceback" not in said.stderr, code
        if "OPTIONS" in code:
            continue  # whose option it is cannot be doubted, optional or not
        install(engine, code, "optional plug.py")
        said = engine.run(argv, env=env)
        assert said.returncode == 0, (code, said)
        assert words in said.stderr, code
        assert "warning: " in said.stderr, code


ONCE = """
import os, time
def write(text):
    with open("@LOG@", "a") as file:
        file.write(text + "\\n")
def job_prolog(spank, args):
    time.sleep(0.3)
    write("prolog")
def task_init(spank, args):
    write("task")
def job_epilog(spank, args):
    write("epilog")
"""


def test_a_jobs_prolog_comes_once_and_first_and_its_epilog_once_and_last(engine: Engine) -> None:
    log = engine.work / "log"
    install(engine, ONCE.replace("@LOG@", f"{log}"))
    script = "#!/bin/sh\n#SBATCH -n2 -O\nfor n in 1 2 3; do srun -n1 --overlap true & done; wait\n"
    engine.account.write(engine.work / "job", script)
    engine.run(["sbatch", "-W", "job"]).check()
    assert log.read_text().split() == ["prolog", *["task"] * 4, "epilog"]
    assert not list(engine.state.glob("roadstead/*/named/*"))


def test_a_job_whose_controller_is_killed_at_its_end_has_its_epilog_all_the_same(
    engine: Engine,
) -> None:
    log = engine.work / "log"
    install(engine, ONCE.replace("@LOG@", f"{log}").replace("time.sleep(0.3)", ""))
    waits = engine.popen(["srun", "sh", "-c", "touch up; sleep 2"], stdout=-1, stderr=-1)
    waiting.eventually((engine.work / "up").exists)
    time.sleep(0.5)  # srun is to hear of it first
    for each in engine.processes():
        if Path(f"/proc/{each.pid}/comm").read_text().strip() == "roadstead-ctl":
            os.kill(each.pid, signal.SIGKILL)
    assert engine.finish(waits).returncode == 0
    waiting.eventually(lambda: "epilog" in log.read_text())
    assert log.read_text().split() == ["prolog", "task", "epilog"]


def test_a_plugin_that_hangs_does_not_keep_a_step_from_being_cancelled(engine: Engine) -> None:
    install(engine, _SLEEPS)
    waits = engine.popen(["srun", "true"], stderr=-1, stdout=-1)
    waiting.eventually(lambda: engine.run(["squeue", "-hs"]).stdout.strip())
    begun = time.monotonic()
    engine.run(["scancel", "1"]).check()
    engine.finish(waits)
    assert waits.returncode == 143
    assert time.monotonic() - begun < 15


def test_nothing_of_plugins_outlasts_the_step_even_if_its_supervisor_is_killed(
    engine: Engine,
) -> None:
    code = (
        "import subprocess, os\n"
        "def user_init(s, a):\n"
        "  subprocess.Popen(['sleep', '987'], start_new_session=True)\n"
        "  subprocess.run(['sh', '-c', 'sleep 986 & sleep 985 &'])\n"
    )
    install(engine, code)
    engine.run(["srun", "true"]).check()
    assert not [each for each in engine.processes() if "98" in str(each) and "sleep" in str(each)]
    waits = engine.popen(["srun", "sleep", "77"], stderr=-1, stdout=-1)
    claims = waiting.eventually(lambda: list(engine.runtime.glob("roadstead/steps/*/claim.json")))
    waiting.eventually(lambda: "R" in engine.run(["squeue", "-ho", "%t"]).stdout)
    os.kill(json.loads(claims[0].read_text())["pid"], signal.SIGKILL)
    engine.finish(waits)
    assert waits.returncode == 125  # and the fixture looks for what is left


@pytest.mark.parametrize("what", ["plug.py", "plugstack.conf"])
def test_files_that_others_can_write_to_are_refused(engine: Engine, what: str) -> None:
    folder = install(engine, "")
    (folder / what).chmod(0o666)
    said = engine.run(["srun", "true"])
    assert said.returncode == 1
    assert f"{folder / what}: others can write to it" in said.stderr
    (folder / what).chmod(0o600)
    folder.chmod(0o777)
    said = engine.run(["srun", "true"])
    folder.chmod(0o700)
    assert said.returncode == 1
    assert "everybody may rename" in said.stderr


def test_where_there_is_no_plugstack_nothing_of_plugins_is_imported(engine: Engine) -> None:
    engine.run(["srun", "true"]).check()
    engine.run(["srun", "true"], env={"ROADSTEAD_PLUGSTACK_CONF": "none"}).check()
    said = engine.run(["srun", "true"], env={"ROADSTEAD_PLUGSTACK_CONF": "/nowhere"})
    assert said.stderr.startswith("srun: error: ROADSTEAD_PLUGSTACK_CONF=/nowhere: no such file")
