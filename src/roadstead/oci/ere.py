r"""POSIX extended regular expressions, as ``EnvExclude`` takes them, by way of Python's ``re``.

Slurm compiles them with regcomp(3) and looks for a match anywhere in ``NAME=value``.  Whether there
is a match does not depend on leftmost-longest or leftmost-first, so ``re`` gives the same answer
once the spelling is translated: ``[[:alpha:]]`` and its eleven sisters become ranges (ASCII, as in
the C locale), a backslash inside brackets is an ordinary character, ``$`` is the very end, ``.``
matches a newline too.

What the two read differently, and what POSIX leaves undefined, is refused and not guessed:
``a+?`` (lazy there, nested here), ``(?``, back references, ``[[.x.]]``, ``[[=x=]]``, ``\d``,
``\<``.  ``\w \W \s \S \b \B`` are glibc's too and mean the same.
"""

from __future__ import annotations

import re

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\v\f\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}

_TOKEN = re.compile(
    r"""
    (?P<set>
        \[ (?P<not>\^?)
        (?P<items> \]? (?: \[(?P<kind>[:.=]).*?(?P=kind)\] | (?!\[[:.=])[^]] )* )
        \] )
  | (?P<escape> \\ .? )
  | (?P<repeat> [*+?] | \{ (?: \d+ (?: ,\d* )? | ,\d+ ) \} )
  | (?P<odd> \(\? | [\[{] )
  | (?P<anchor> [\^$] )
  | (?P<plain> [().|] )
  | (?P<text> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_ITEM = re.compile(
    r"\[(?P<kind>[:.=])(?P<name>.*?)(?P=kind)\]|(?P<low>.)(?:-(?P<high>(?!\[[:.=]).))?", re.DOTALL
)


def compile_ere(expression: str) -> re.Pattern[str]:
    """Compile a POSIX ERE, to be used with ``search``.  ValueError says what is wrong with it."""
    try:
        return re.compile(translate(expression), re.DOTALL | re.ASCII)
    except re.error as failure:
        raise ValueError(f"not a regular expression: {failure.msg}") from None


def translate(expression: str) -> str:
    """The same expression in Python's spelling."""
    translated: list[str] = []
    after_repeat = False
    for token in _TOKEN.finditer(expression):
        kind, text = token.lastgroup, token.group()
        if kind == "set":
            translated.append(f"[{token['not']}{_items(token['items'])}]")
        elif kind == "escape":
            translated.append(_escape(text))
        elif kind == "anchor":
            translated.append(r"\A" if text == "^" else r"\Z")
        elif kind == "odd":
            raise ValueError(f"{text} does not start anything that POSIX defines")
        elif kind == "text":
            translated.append(re.escape(text))
        elif kind == "repeat" and after_repeat:
            raise ValueError(f"{text} after another repetition: put the first in parentheses")
        else:
            translated.append(text)
        after_repeat = kind == "repeat"
    return "".join(translated)


def _items(items: str) -> str:
    return "".join(_item(item) for item in _ITEM.finditer(items))


def _item(item: re.Match[str]) -> str:
    if item["kind"] is None:
        high = item["high"]
        return re.escape(item["low"]) + ("" if high is None else f"-{re.escape(high)}")
    if item["kind"] == ":" and item["name"] in _CLASSES:
        return _CLASSES[item["name"]]
    raise ValueError(f"{item.group()} is not one of " + " ".join(f"[:{n}:]" for n in _CLASSES))


def _escape(text: str) -> str:
    letter = text[1:]
    if letter and letter in "wWsSbB":
        return text
    if not letter or letter.isalnum() or letter in "<>`'":
        raise ValueError(f"{text} is not defined by POSIX")
    return re.escape(letter)
