"""POSIX expressions in Python's spelling, with libc's own regcomp(3) as the judge."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roadstead.oci.ere import _CLASSES, compile_ere

LIBC = ctypes.CDLL(None)
REG_EXTENDED = 1


def libc_finds(expression: str, text: str) -> bool:
    """What Slurm does: regcomp(3), then regexec(3)."""
    compiled = ctypes.create_string_buffer(512)
    assert LIBC.regcomp(compiled, expression.encode(), REG_EXTENDED) == 0
    try:
        return bool(LIBC.regexec(compiled, text.encode(), 0, None, 0) == 0)
    finally:
        LIBC.regfree(compiled)


@pytest.mark.parametrize(
    ("expression", "matching", "other"),
    [
        ("^SLURM_", "SLURM_X=1", "MY_SLURM_X=1"),
        ("=secret$", "A=secret", "A=secret\n"),
        ("A=.B", "A=\nB", "A=B"),
        (r"a\.b", "a.b", "axb"),
        ("[]a]", "]", "b"),
        ("[^]a]", "b", "]"),
        (r"[\d]", "\\", "1"),
        ("[a-c-]", "-", "d"),
        ("[--/]", ".", "0"),
        ("[[]", "[", "x"),
        ("x{2}", "xx", "x"),
        ("^x{1,2}$", "xx", "xxx"),
        ("^x{2,}$", "xxxx", "x"),
        ("^(a|b)+$", "abba", "abc"),
        (r"^\{$", "{", "\\{"),
        ("]", "]", "["),
        ("}", "}", "{"),
        (r"^\w+$", "a_1", "a-1"),
        ("é", "café", "cafe"),
        *[
            (f"^[[:{name}:]]$", *pair)
            for name, pair in {
                "alnum": "a-", "alpha": "Z1", "blank": "\tx", "cntrl": "\x7f ", "digit": "5a",
                "graph": "! ", "lower": "zZ", "print": " \t", "punct": "`a", "space": "\va",
                "upper": "Aa", "xdigit": "Fg",
            }.items()
        ],
    ],
)  # fmt: skip
def test_an_expression_finds_what_libc_finds(expression, matching, other):
    found = compile_ere(expression)
    assert (bool(found.search(matching)), bool(found.search(other))) == (True, False)
    assert (libc_finds(expression, matching), libc_finds(expression, other)) == (True, False)


def test_letters_are_those_of_the_c_locale():
    assert not compile_ere(r"[[:alpha:]]|\w|\b").search("é")


@pytest.mark.parametrize("name", sorted(_CLASSES))
def test_a_class_holds_the_same_characters_as_in_libc(name):
    everything = [chr(code) for code in range(1, 128)]
    ours = compile_ere(f"[[:{name}:]]")
    is_ = getattr(LIBC, f"is{name}")
    assert [c for c in everything if ours.search(c)] == [c for c in everything if is_(ord(c))]


CHARACTERS = "ab=_-.^]\\"
LITERAL = st.sampled_from(["a", "b", "=", "_", "-", ".", r"\.", r"\\", r"\^", r"\]"])
SET = st.builds(
    lambda negated, first, rest: f"[{negated}{first}{rest}]",
    st.sampled_from(["", "^"]),
    st.sampled_from(["]", "a", "[:alpha:]", "[:punct:]", "a-b", "\\"]),
    st.sampled_from(["", "b", "_", "[:digit:]", ".", "-"]),
)
EXPRESSION = st.recursive(
    LITERAL | SET,
    lambda inner: (
        st.builds("({})".format, inner)
        | st.builds("({}|{})".format, inner, inner)
        | st.builds("{}{}".format, inner, inner)
        | st.builds(
            "({}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{0,1}", "{1,}"])
        )
    ),
    max_leaves=4,
)


@given(EXPRESSION, st.sampled_from(["{}", "^{}", "{}$", "^({})$"]), st.text(CHARACTERS, max_size=4))
@settings(max_examples=60, deadline=None)
@example("[]\\-_]", "^{}$", "^")
def test_any_expression_finds_what_libc_finds(expression, anchored, text):
    expression = anchored.format(expression)
    assert bool(compile_ere(expression).search(text)) == libc_finds(expression, text)


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("(", "not a regular expression"),
        ("*a", "not a regular expression: nothing to repeat"),
        ("[z-a]", "not a regular expression: bad character range"),
        ("(?:a)", r"\(\? does not start anything"),
        ("a{", r"\{ does not start anything"),
        ("a{x}", r"\{ does not start anything"),
        ("[abc", r"\[ does not start anything"),
        ("[[:alpha:]", r"\[ does not start anything"),
        ("a+?", r"\? after another repetition"),
        ("a{2}+", r"\+ after another repetition"),
        (r"\d", r"\\d is not defined by POSIX"),
        (r"(a)\1", r"\\1 is not defined by POSIX"),
        (r"\<a", r"\\< is not defined by POSIX"),
        ("a\\", r"\\ is not defined by POSIX"),
        ("[[:word:]]", r"\[:word:\] is not one of \[:alnum:\]"),
        ("[[.a.]]", r"\[\.a\.\] is not one of"),
        ("[[=a=]]", r"\[=a=\] is not one of"),
    ],
)
def test_what_posix_does_not_define_is_refused(expression, sentence):
    with pytest.raises(ValueError, match=sentence):
        compile_ere(expression)
