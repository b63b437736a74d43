"""Filename patterns, as a real Slurm 22.05 expanded them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core.filenames import Names, expand, unique

NAMES = Names(job_id=64, step_id="0", node="vm.example.org", user="root", job_name="nm", task_id=1)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("%%_%A_%a_%J_%j", "%_64_4294967294_64.0_64"),
        ("%4j_%20j_%010j", "0064_0000000064_0000000064"),
        ("%N_%n_%2n", "vm_0_00"),
        ("%s_%3s_%t_%2t", "0_000_1_01"),
        ("%u_%x_%5u", "root_nm_root"),
        ("%q", "%q"),
        ("x%", "x%"),
        ("x%4", "x%4"),
        (r"\%j_%t", "%j_%t"),
        (r"x\\%j", "x%j"),
        ("none", "/dev/null"),
        ("a%99999999999999999999j", "a0000000064"),
    ],
)
def test_expand(pattern: str, name: str) -> None:
    assert expand(pattern, NAMES) == name


def test_a_batch_script_has_a_word_for_a_step() -> None:
    batch = replace(NAMES, step_id="batch", task_id=0)
    assert expand("%J-%s-%4s-%t", batch) == "64-batch-batch-0"


def test_an_array_has_numbers_of_its_own() -> None:
    element = replace(NAMES, array_job_id=60, array_task_id=3)
    assert expand("%A_%a.%j", element) == "60_3.64"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("out.%t", True),
        ("%2n", False),
        ("%N", False),
        ("%3t", True),
        ("%j", False),
        ("%%t", False),
        (r"\%t", False),
    ],
)
def test_unique(pattern: str, expected: bool) -> None:
    assert unique(pattern) is expected


@given(st.text("%0123456789jtnNqx\\/", max_size=12))
@settings(max_examples=60)
def test_unique_patterns_tell_tasks_apart(pattern: str) -> None:
    differ = expand(pattern, NAMES) != expand(pattern, replace(NAMES, task_id=2))
    assert differ is unique(pattern)
