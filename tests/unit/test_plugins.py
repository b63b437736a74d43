"""plugstack.conf, and what a plugin may ask and change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from roadstead import plugins
from roadstead.errors import ConfigError
from roadstead.plugins import Option, Spank, SpankError, stack


def write(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return f"{folder}/plugstack.conf"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("required a.py", ("{}/a.py", True, ())),
        ("optional /x/a.py one two", ("/x/a.py", False, ("one", "two"))),
        ("  required  pkg.mod  'a b' \"c\" # d", ("pkg.mod", True, ("a b", "c"))),
        ("required sub/plugin", ("{}/sub/plugin", True, ())),
    ],
)
def test_a_line(tmp_path: Path, line: str, expected: tuple[str, bool, tuple[str, ...]]) -> None:
    path = write(tmp_path, plugstack_conf=f"# a remark\n\n{line}\n")
    (found,) = stack.read(path)
    plugin, required, args = expected
    assert (found.plugin, found.required, found.args) == (plugin.format(tmp_path), required, args)
    assert (found.path, found.line) == (path, 3)


def test_included_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        plugstack_conf="required first.py\ninclude *.inc none/*\nrequired last.py\n",
        b_inc="optional b.py",
        a_inc="optional a.py\n",
    )
    names = [os.path.basename(each.plugin) for each in stack.read(path)]
    assert names == ["first.py", "a.py", "b.py", "last.py"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("needed a.py", "plugstack.conf:1: not a line of a plugstack.conf: needed a.py"),
        ("\nrequired", "plugstack.conf:2: not a line"),
        ("required 'a", "plugstack.conf:1: no closing quotation"),
        ("include plugstack.conf", "includes itself"),
        ("required none.py", "none.py: No such file"),
        ("required nowhere.to.be.found", "no module of this name is installed"),
        ("required bad.py", "plugstack.conf:1: plugin bad: ZeroDivisionError: division by zero ("),
        ("required wrong.py", "plugin wrong: OPTIONS is not a list of Option"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, plugstack_conf=text, bad_py="1 / 0", wrong_py="OPTIONS = [1]")
    with pytest.raises(ConfigError) as caught:
        stack.load(path, lambda sentence: None)
    assert words in str(caught.value)
    assert "site-packages" not in str(caught.value)


def spank(**more: Any) -> Spank:
    known: dict[str, Any] = {
        "context": plugins.REMOTE,
        "items": {"S_JOB_ID": 7, "S_JOB_LOCAL_TO_GLOBAL_ID": {"0": 4}},
        "env": {"A": "1"},
        "control": {"C": "3"},
        "given": {"x": ""},
        "say": lambda sentence: None,
    }
    return Spank(**{**known, **more})


def test_items() -> None:
    asked = spank()
    assert asked.get_item(plugins.S_JOB_ID) == 7
    assert asked.get_item(plugins.S_JOB_LOCAL_TO_GLOBAL_ID, 0) == 4
    assert asked.get_item(plugins.S_JOB_ENV) == {"A": "1"}
    for name, key, code in (
        ("S_JOB_LOCAL_TO_GLOBAL_ID", (1,), plugins.ESPANK_NOEXIST),
        ("S_TASK_PID", (), plugins.ESPANK_NOT_TASK),
        ("S_JOB_ARRAY_ID", (), plugins.ESPANK_NOT_AVAIL),
        ("S_NOTHING", (), plugins.ESPANK_BAD_ARG),
        ("SpankError", (), plugins.ESPANK_BAD_ARG),
    ):
        with pytest.raises(SpankError) as caught:
            asked.get_item(name, *key)
        assert caught.value.code == code, name


def test_variables_and_where_they_can_be_changed() -> None:
    asked = spank()
    asked.setenv("B", "2")
    asked.unsetenv("NOT_THERE")
    assert asked.getenv("B") == "2"
    assert asked.option_getopt("x") == ""
    assert asked.option_getopt("y") is None
    for refused, code in (
        (lambda: asked.setenv("A", "2", overwrite=False), plugins.ESPANK_ENV_EXISTS),
        (lambda: asked.setenv("A=B", "2"), plugins.ESPANK_BAD_ARG),
        (lambda: asked.getenv("Z"), plugins.ESPANK_ENV_NOEXIST),
        (lambda: asked.job_control_setenv("A", "2"), plugins.ESPANK_NOT_LOCAL),
        (lambda: asked.prepend_task_argv("nice"), plugins.ESPANK_NOT_TASK),
        (lambda: asked.option_register(Option("o", "")), plugins.ESPANK_NOT_AVAIL),
        (lambda: asked.asked, plugins.ESPANK_NOT_LOCAL),
        (lambda: Option("not a name", ""), plugins.ESPANK_BAD_ARG),
    ):
        with pytest.raises(SpankError) as caught:
            refused()
        assert caught.value.code == code


def test_variables_of_the_prolog_travel_in_the_environment() -> None:
    env = {"SLURM_SPANK__PLUGSTACK": "/x", "SLURM_SPANK_OLD": "1"}
    asked = spank(context=plugins.LOCAL, control=stack.Control(env))
    asked.job_control_setenv("NEW", "2")
    asked.job_control_unsetenv("OLD")
    assert env == {"SLURM_SPANK__PLUGSTACK": "/x", "SLURM_SPANK_NEW": "2"}
    with pytest.raises(SpankError):
        asked.job_control_setenv("_PLUGSTACK", "/y")
