"""Lines survive any way of cutting a stream into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.step import lines
from roadstead.step.lines import Lines, Verbatim

streams = st.lists(st.binary(max_size=6) | st.sampled_from([b"\n", b"a\nb", b"\r\n", b"\0\n"]))


def through(shape: Lines | Verbatim, chunks: list[bytes]) -> bytes:
    return b"".join([*map(shape.feed, chunks), shape.end()])


@given(streams)
@settings(max_examples=200)
@pytest.mark.long
def test_no_byte_is_lost_or_moved(chunks: list[bytes]) -> None:
    assert through(Lines(), chunks) == b"".join(chunks)
    assert through(Verbatim(), chunks) == b"".join(chunks)


@given(streams)
@settings(max_examples=200)
@pytest.mark.long
def test_labels_do_not_depend_on_the_chunks(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    whole = data if data.endswith(b"\n") or not data else data + b"\n"
    expected = b"".join(b"1: " + line + b"\n" for line in whole.split(b"\n")[:-1])
    assert through(Lines(b"1: "), chunks) == expected


@given(streams)
@settings(max_examples=100)
def test_only_whole_lines_come_out(chunks: list[bytes]) -> None:
    shape = Lines()
    for chunk in chunks:
        out = shape.feed(chunk)
        assert not out or out.endswith(b"\n")


def test_a_line_that_is_too_long_is_cut() -> None:
    chunk = b"x" * (lines.LONGEST // 2 + 1)
    shape = Lines(b"0: ")
    assert shape.feed(chunk) == b""
    assert shape.feed(chunk) == b"0: " + chunk * 2 + b"\n"
    assert shape.kept == 0
    assert shape.end() == b""
