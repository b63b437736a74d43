"""Job arrays: what --array says, who an array is, and how many of it are out."""

from __future__ import annotations

import pytest

from roadstead.core import arrays
from roadstead.core.arrays import Array, Numbers
from roadstead.errors import RequestError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-3", Numbers((0, 1, 2, 3), 1, 0)),
        ("7", Numbers((7,), 1, 0)),
        ("1,3,5-7", Numbers((1, 3, 5, 6, 7), 1, 0)),
        ("0-15:4%2", Numbers((0, 4, 8, 12), 4, 2)),
        ("[2-3]%1", Numbers((2, 3), 1, 1)),
        ("3,1,1-2", Numbers((1, 2, 3), 1, 0)),
        ("1000", Numbers((1000,), 1, 0)),
    ],
)
def test_numbers(text: str, numbers: Numbers) -> None:
    assert arrays.parse(text) == numbers


@pytest.mark.parametrize(
    "text", ["", "x", "3-1", "1001", "0-2:0", "1:2", "0-3%0", "0-3%x", "1,,2", "-1", "0-", "1-3:"]
)
def test_what_is_no_array(text: str) -> None:
    with pytest.raises(RequestError, match=r"^Batch job submission failed: Invalid job array"):
        arrays.parse(text)


def test_who_is_meant() -> None:
    known = {7: Array(0, live={0: 7, 1: 8, 3: 10})}
    assert arrays.members("7", known) == [7, 8, 10]
    assert arrays.members("7_3", known) == [10]
    assert arrays.members("7_[0-2]", known) == [7, 8], "the second has ended"
    assert arrays.members("7_[0,3]", known) == [7, 10]
    assert arrays.members("8", known) == [8]
    assert arrays.members("9_1", known) == []
    for text in ("x", "7_x", "7_[1-", "_1"):
        assert arrays.members(text, known) is None
