"""Variables in the values of an Environment Definition File: ${NAME}, ${NAME:-default}, $${NAME}.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from roadstead.errors import UsageError


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with each variable's value; "$$" is a "$".  Raises UsageError for a variable that is
    not set and has no default, and for a brace that is not closed."""
    found: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        found.append(text[at:dollar])
        after = text[dollar + 1 : dollar + 2]
        if after == "$":
            found.append("$")
            at = dollar + 2
        elif after == "{":
            end = text.find("}", dollar)
            if end < 0:
                raise UsageError(f"{text!r}: ${{ without }}", hint="write $${ for a literal ${")
            found.append(_value(text[dollar + 2 : end], variables))
            at = end + 1
        else:
            found.append("$")
            at = dollar + 1
    return "".join([*found, text[at:]])


def _value(expression: str, variables: Mapping[str, str]) -> str:
    name, colon, default = expression.partition(":-")
    if name in variables and (variables[name] or not colon):
        return variables[name]
    if colon:
        return default
    raise UsageError(
        f"${{{name}}}: the variable is not set", hint=f"set it, or write ${{{name}:-}}"
    )
