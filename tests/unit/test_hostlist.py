"""Host lists: expansion, folding, and that they undo each other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.core.hostlist import expand, fold
from roadstead.errors import RequestError

NAMES = st.builds("".join, st.tuples(st.sampled_from("ab"), st.text("a.-019", max_size=4)))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("vm", ["vm"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("n[08-10],login", ["n08", "n09", "n10", "login"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("n[1-2]-ib", ["n1-ib", "n2-ib"]),
        ("1,2", ["1", "2"]),
        ("", []),
    ],
)
def test_expand(text: str, hosts: list[str]) -> None:
    assert expand(text) == hosts


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (["n1", "n2", "n3", "n7"], "n[1-3,7]"),
        (["n08", "n09", "n10"], "n[08-10]"),
        (["n9", "n10"], "n[9-10]"),
        (["n1", "n01"], "n[1,01]"),
        (["a1", "b2"], "a1,b2"),
        (["vm"], "vm"),
        (["1", "2"], "[1-2]"),
    ],
)
def test_fold(hosts: list[str], text: str) -> None:
    assert fold(hosts) == text


@given(st.lists(NAMES, max_size=8))
@settings(max_examples=60)
def test_expand_undoes_fold(hosts: list[str]) -> None:
    assert expand(fold(hosts)) == hosts


@pytest.mark.parametrize("text", ["n[1-", "n1]", "n[[1]]", "n[a]", "n[3-1]", "n[]", "n[0-99999]"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="Invalid hostlist"):
        expand(text)
