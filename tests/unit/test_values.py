"""Times, amounts, counts and signals as Slurm 22.05 reads and prints them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core import values
from roadstead.errors import RequestError, UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 300),
        ("5:30", 330),
        ("0:120", 120),
        ("1:02:03", 3723),
        ("84:00:00", 302400),
        ("2-0", 172800),
        ("2-3", 183600),
        ("2-3:04", 183840),
        ("2-3:04:05", 183845),
        ("0", None),
        ("0:00", None),
        ("UNLIMITED", None),
        ("infinite", None),
        ("-1", None),
    ],
)
def test_time_limits(text: str, seconds: int | None) -> None:
    assert values.time_limit(text) == seconds


@pytest.mark.parametrize("text", ["", "5x", "1:2:3:4", "-5", "1-", "-", "1--2", "1.5", "٣", " 5"])
def test_what_is_no_time_is_refused_in_slurms_words(text: str) -> None:
    with pytest.raises(UsageError, match=r"^Invalid --time specification$"):
        values.time_limit(text)


@given(st.integers(1, 10**7))
@settings(max_examples=50)
def test_a_time_that_was_printed_is_read_as_the_same(seconds: int) -> None:
    assert values.time_limit(values.format_time(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (None, "UNLIMITED", "UNLIMITED"),
        (5, "00:00:05", "0:05"),
        (720, "00:12:00", "12:00"),
        (3600, "01:00:00", "1:00:00"),
        (86400 + 61, "1-00:01:01", "1-00:01:01"),
    ],
)
def test_times_as_scontrol_and_squeue_print_them(
    seconds: int | None, long: str, short: str
) -> None:
    assert (values.format_time(seconds), values.format_time_short(seconds)) == (long, short)


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("100", 100),
        ("2G", 2048),
        ("477M", 477),
        ("200MB", 200),
        ("100000K", 98),
        ("1k", 1),
        ("1t", 1 << 20),
        ("0", 0),
    ],
)
def test_memory(text: str, mebibytes: int) -> None:
    assert values.memory(text) == mebibytes


@pytest.mark.parametrize("text", ["", "1x", "G", "1.5G", "-1", "1GG", "B", "10B"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^Invalid --mem-per-cpu specification$"):
        values.memory(text, "--mem-per-cpu")


@pytest.mark.parametrize(("text", "nodes"), [("1", (1, 1)), ("1-4", (1, 4)), ("2k", (2048, 2048))])
def test_node_counts(text: str, nodes: tuple[int, int]) -> None:
    assert values.node_count(text) == nodes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x", '"x" is not a valid node count'),
        ("1-x", '"1-x" is not a valid node count'),
        ("2-1", "Maximum node count 1 is less than minimum node count 2"),
    ],
)
def test_bad_node_counts(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        values.node_count(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("text", ["0", "x", "-3", "2k", "", "99999999999"])
def test_bad_counts(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        values.count(text, "--ntasks")
    assert str(caught.value) == f'Invalid numeric value "{text}" for --ntasks.'


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("usr1", 10), ("64", 64)]
)
def test_signals(text: str, number: int) -> None:
    assert values.signal_number(text) == number


@pytest.mark.parametrize("text", ["FOO", "0", "65", "", "SIG"])
def test_unknown_signals(text: str) -> None:
    with pytest.raises(RequestError, match=f"^Unknown job signal: {text}$"):
        values.signal_number(text)


def test_signal_names() -> None:
    assert [values.signal_name(n) for n in (6, 9, 17, 40)] == ["ABRT", "KILL", "CHLD", "40"]
