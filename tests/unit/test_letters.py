"""Letters about jobs: who is told of what, when."""

from __future__ import annotations

from typing import Any

import pytest

from roadstead.core import effects as do
from roadstead.core import mail
from roadstead.core.model import BATCH_STEP, Mail
from roadstead.errors import RequestError, UsageError
from tests.unit.test_reactor import World

SCRIPT = "#!/bin/sh\n"


class Post(World):
    """A World that keeps the subjects of letters."""

    def __init__(self) -> None:
        super().__init__()
        self.subjects: list[str] = []

    def _perform(self, effect: do.Effect) -> None:
        super()._perform(effect)
        if isinstance(effect, do.Mail):
            self.subjects.append(effect.subject.removeprefix("Slurm "))

    def submit_for(self, types: str, **options: str) -> int:
        asked = {"mail-type": types, "job-name": "x", **options}
        told = self.heard(self.say("submit", script=SCRIPT, options=asked, mailer="/sendmail"))
        return int(told[0]["job_id"])


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, None),
        ({"mail-type": "NONE", "mail-user": "a"}, None),
        ({"mail-type": "end,Fail,END"}, Mail(types=("END", "FAIL"), user="me", program="/p")),
        ({"mail-type": "TIME_LIMIT_80", "mail-user": "a@b"},
         Mail(types=("TIME_LIMIT_80",), user="a@b", program="/p")),
        ({"mail-type": "SOON"}, UsageError),
        ({"mail-type": "END", "mail-user": "a\nBcc: b"}, RequestError),
    ],
)  # fmt: skip
def test_what_is_asked_for(options: dict[str, str], found: Any) -> None:
    if isinstance(found, type):
        with pytest.raises(found):
            mail.parse(options, "/p", "me")
    else:
        assert mail.parse(options, "/p", "me") == found
    assert mail.parse({"mail-type": "ALL"}, "", "me") is None


@pytest.mark.parametrize(
    ("types", "code", "subjects"),
    [
        (
            "ALL",
            0,
            ["Began, Queued time 00:00:00", "Ended, Run time 00:00:05, COMPLETED, ExitCode 0"],
        ),
        (
            "ALL",
            3,
            ["Began, Queued time 00:00:00", "Failed, Run time 00:00:05, FAILED, ExitCode 3"],
        ),
        ("END", 3, ["Ended, Run time 00:00:05, FAILED, ExitCode 3"]),
        ("FAIL", 0, []),
    ],
)
def test_beginnings_and_ends(post: Post, types: str, code: int, subjects: list[str]) -> None:
    job_id = post.submit_for(types)
    post.at += 5
    post.ended((job_id, BATCH_STEP), code)
    assert post.subjects == [f"Job_id=1 Name=x {words}" for words in subjects]


def test_an_array_is_one_thing_unless_its_elements_are_asked_for(post: Post) -> None:
    first = post.submit_for("BEGIN,END", array="1-2")
    post.ended((first, BATCH_STEP), 1)
    post.ended((first + 1, BATCH_STEP), 0)
    assert post.subjects == [
        "Array Summary Job_id=1_* (1) Name=x Began",
        "Array Summary Job_id=1_* (1) Name=x Ended, FAILED, ExitCode [0-1]",
    ]
    post.subjects.clear()
    second = post.submit_for("END,ARRAY_TASKS", array="7")
    post.ended((second, BATCH_STEP), 0)
    assert post.subjects == [
        "Array Task Job_id=3_7 (3) Name=x Ended, Run time 00:00:00, COMPLETED, ExitCode 0"
    ]


def test_time_limits_and_requeues(post: Post) -> None:
    job_id = post.submit_for("TIME_LIMIT_80,TIME_LIMIT,REQUEUE", time="10")
    assert post.timers["mail80", job_id, -1] == post.at + 480
    post.due(("mail80", job_id, -1))
    assert post.control("requeue", job_id) == []
    post.ended((job_id, BATCH_STEP), 143, "cancelled")
    assert post.timers["mail80", job_id, -1] == post.at + 480, "it has begun again"
    post.due(("limit", job_id, -1))
    assert ("mail80", job_id, -1) not in post.timers
    assert [words.partition("Name=x ")[2] for words in post.subjects] == [
        "Reached 80% of time limit", "Requeued", "Reached time limit",
    ]  # fmt: skip


def test_a_dependency_that_is_never_met(post: Post) -> None:
    before = post.submit()
    post.submit_for("INVALID_DEPEND", dependency=f"afternotok:{before}",
                    **{"kill-on-invalid-dep": "yes"})  # fmt: skip
    post.ended((before, BATCH_STEP))
    assert post.subjects == ["Job_id=2 Name=x Invalid dependency"]
