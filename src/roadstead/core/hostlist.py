"""Lists of hosts as Slurm writes them: ``n[1-3,7],login`` is n1, n2, n3, n7, login.

``fold(expand(text))`` is the shortest form that keeps order; ``expand(fold(hosts)) == hosts`` for
every list of plain names.  Zero padding is part of a number: n[08-10] is n08, n09, n10.  Only the
last run of digits of a name is folded, as Slurm does.  A range wider than 65,536 hosts is refused,
which is Slurm's own limit.

The commands import this too (scontrol show hostnames), so it imports nothing.
"""

from __future__ import annotations

from roadstead.errors import RequestError

_WIDEST = 65536


def expand(text: str) -> list[str]:
    """The hosts of a list, in order, repetitions kept."""
    hosts: list[str] = []
    for part in split(text):
        hosts.extend(_expand_one(part, text))
    return hosts


def fold(hosts: list[str]) -> str:
    """The list in Slurm's short form."""
    parts: list[str] = []
    index = 0
    while index < len(hosts):
        prefix, digits = _tail(hosts[index])
        group = [digits]
        index += 1
        while digits and index < len(hosts):
            next_prefix, next_digits = _tail(hosts[index])
            if next_prefix != prefix or not next_digits:
                break
            group.append(next_digits)
            index += 1
        parts.append(prefix + (group[0] if len(group) == 1 else f"[{_ranges(group)}]"))
    return ",".join(parts)


def split(text: str) -> list[str]:
    """The parts between the commas that are outside brackets."""
    parts, start, inside = [], 0, False
    for index, char in enumerate(text):
        if char == "[":
            if inside:
                raise _invalid(text)
            inside = True
        elif char == "]":
            if not inside:
                raise _invalid(text)
            inside = False
        elif char == "," and not inside:
            parts.append(text[start:index])
            start = index + 1
    if inside:
        raise _invalid(text)
    parts.append(text[start:])
    return [part for part in parts if part]


def _expand_one(part: str, text: str) -> list[str]:
    prefix, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    inner, _, suffix = rest.partition("]")
    numbers: list[str] = []
    for piece in inner.split(","):
        low, dash, high = piece.partition("-")
        if not dash:
            high = low
        if not _is_number(low) or not _is_number(high) or not 0 <= int(high) - int(low) < _WIDEST:
            raise _invalid(text)
        numbers.extend(str(n).zfill(len(low)) for n in range(int(low), int(high) + 1))
    tails = _expand_one(suffix, text) if suffix else [""]
    return [f"{prefix}{number}{tail}" for number in numbers for tail in tails]


def _tail(host: str) -> tuple[str, str]:
    """A name as what comes before its last digits, and those digits ("" if it ends otherwise)."""
    stem = host.rstrip("0123456789")
    return stem, host[len(stem) :]


def _ranges(numbers: list[str]) -> str:
    """``["1", "2", "3", "7"]`` as ``1-3,7``; a range never mixes widths."""
    pieces: list[str] = []
    start = end = numbers[0]
    for number in numbers[1:]:
        if number == str(int(end) + 1).zfill(len(start)):
            end = number
            continue
        pieces.append(start if start == end else f"{start}-{end}")
        start = end = number
    pieces.append(start if start == end else f"{start}-{end}")
    return ",".join(pieces)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _invalid(text: str) -> RequestError:
    return RequestError(f"Invalid hostlist: {text}", hint="write them as n1,n2 or n[1-3,7]")
