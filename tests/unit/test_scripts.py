"""What a task's prolog prints, and limits that go to tasks."""

from __future__ import annotations

import resource
from collections.abc import Mapping

import pytest

from roadstead.core import request
from roadstead.errors import RequestError
from roadstead.host import process
from roadstead.oci import config
from roadstead.step import scripts

SOFT = {"NOFILE": 5, "CORE": -1}


def test_a_prologs_lines() -> None:
    env = {"HOME": "/h", "A": "a"}
    text = "export A=b c\nexport =x\nexport Z\nunset HOME\nunset B\nprint a  b\n junk \nprint\n"
    assert scripts.apply(text, env) == "a  b\n\n"
    assert env == {"A": "b c"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, SOFT),
        ({"propagate": ""}, SOFT),
        ({"propagate": "ALL"}, SOFT),
        ({"propagate": "none"}, {}),
        ({"propagate": "CORE,AS"}, {"CORE": -1}),
        ({"propagate": "RLIMIT_NOFILE"}, {"NOFILE": 5}),
    ],
)
def test_which_limits_are_propagated(options: dict[str, str], found: Mapping[str, int]) -> None:
    assert request.propagated(options, SOFT) == found


def test_no_such_limit() -> None:
    with pytest.raises(RequestError, match="--propagate=SPEED is not valid"):
        request.propagated({"propagate": "SPEED"}, SOFT)


@pytest.mark.parametrize(
    ("one", "other", "lower"), [(1, 2, 1), (-1, 2, 2), (3, -1, 3), (-1, -1, -1)]
)
def test_the_lower_of_two_limits(one: int, other: int, lower: int) -> None:
    assert process.lower(one, other) == lower


def test_limits_have_the_systems_numbers() -> None:
    assert scripts.limits(SOFT) == {resource.RLIMIT_NOFILE: 5, resource.RLIMIT_CORE: -1}


def test_a_container_gets_them_where_its_bundle_says_nothing() -> None:
    said = {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}
    written = {"rlimits": [said]}
    change = config.Change(
        rootfs="/", args=("x",), env={},
        limits={"RLIMIT_NOFILE": 100, "RLIMIT_CORE": -1, "RLIMIT_CPU": -1},
        propagated={"RLIMIT_NOFILE": 500, "RLIMIT_CORE": 7, "RLIMIT_CPU": 9, "RLIMIT_AS": -1},
    )  # fmt: skip
    config._propagate(written, change)
    none = (1 << 64) - 1
    assert written["rlimits"] == [
        said,
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100},
        {"type": "RLIMIT_CPU", "soft": 9, "hard": none},
        {"type": "RLIMIT_AS", "soft": none, "hard": none},
    ]
