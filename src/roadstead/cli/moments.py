"""Points in time as people write them for Slurm's commands (sacct -S, scontrol update).

    now[{+|-}COUNT[seconds|minutes|hours|days|weeks]]
    today, tomorrow, midnight, noon, fika, teatime
    YYYY-MM-DD[THH:MM[:SS]], MMDD[YY], MM/DD[/YY], MM.DD[.YY], HH:MM[:SS] [AM|PM], utsSECONDS

A date without a time means its midnight, a time without a date today's or, where the future is
asked for, the next; a date without a year the next one, or the last.  As in Slurm's parse_time.c.

The commands import this too, so it imports nothing but time.
"""

from __future__ import annotations

import time

from roadstead.cli import report
from roadstead.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_UNIT_NAMES: Final = ("seconds", "minutes", "hours", "days", "weeks")
_TIMES: Final = {"midnight": (0, 0), "noon": (12, 0), "fika": (15, 0), "teatime": (16, 0)}
_MOST_DIGITS: Final = 12


class NotAMoment(ValueError):
    """Text that is no point in time: where it went wrong."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(f"Invalid time specification (pos={position}): {text}")


def parse(text: str, now: float, *, past: bool = False) -> float:
    """Seconds since the epoch, in the local time zone.  Raises NotAMoment."""
    word = text.strip()
    lower = word.lower()
    if lower.startswith("now"):
        return now + _offset(text, lower[3:])
    if lower.startswith("uts") and _digits(word[3:]):
        return float(int(word[3:]))
    date: tuple[int, int, int] | None = None
    clock: tuple[int, int, int] | None = None
    here = time.localtime(now)
    if lower.startswith(("today", "tomorrow")):
        days = lower.startswith("tomorrow")
        date = _day_after(here, int(days))
        rest = lower[len("tomorrow" if days else "today") :].lstrip("t- ")
    else:
        date, rest = _date(text, lower, here, past=past)
    if rest:
        clock = _clock(text, rest)
    if date is None and clock is None:
        raise NotAMoment(text, 0)
    if date is None:
        assert clock is not None
        moment = _moment(text, (here.tm_year, here.tm_mon, here.tm_mday), clock)
        if moment < now and not past:
            moment = _moment(text, _day_after(here, 1), clock)
        return moment
    return _moment(text, date, clock or (0, 0, 0))


def _moment(text: str, date: tuple[int, int, int], clock: tuple[int, int, int]) -> float:
    try:
        return time.mktime((*date, *clock, 0, 0, -1))
    except (OverflowError, ValueError):
        raise NotAMoment(text, 0) from None


def _day_after(here: time.struct_time, days: int) -> tuple[int, int, int]:
    there = time.localtime(
        time.mktime((here.tm_year, here.tm_mon, here.tm_mday + days, 12, 0, 0, 0, 0, -1))
    )
    return there.tm_year, there.tm_mon, there.tm_mday


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _offset(text: str, rest: str) -> int:
    """The seconds of ``+2hours``."""
    rest = rest.replace(" ", "")
    if not rest:
        return 0
    sign, rest = rest[0], rest[1:]
    unit = rest.lstrip("0123456789")
    count = rest[: len(rest) - len(unit)]
    known = not unit or any(name.startswith(unit) for name in _UNIT_NAMES)
    if sign not in "+-" or not _digits(count) or not known:
        raise NotAMoment(text, 3)
    seconds = int(count) * _UNITS[unit[:1] or "s"]
    return seconds if sign == "+" else -seconds


def _date(
    text: str, lower: str, here: time.struct_time, *, past: bool
) -> tuple[tuple[int, int, int] | None, str]:
    """The date at the start of the text, if there is one, and what follows it."""
    if lower[10:11] == "-" and lower[4:5] == lower[7:8] == "-":  # 2026-11-25-14:30
        lower = f"{lower[:10]}t{lower[11:]}"
    for mark in "t ":
        head, found, rest = lower.partition(mark)
        if found and head[:1].isdigit():
            break
    else:
        head, rest = lower, ""
    if "/" in head and "-" in head:  # 01/20/30-16:00
        head, _, rest = head.partition("-")
    for separator in "-/.":
        if separator in head:
            parts = head.split(separator)
            if separator == "." and ":" in head:
                continue
            if not all(map(_digits, parts)):
                raise NotAMoment(text, 0)
            numbers = [int(part) for part in parts]
            if separator == "-":
                if len(parts) != 3 or len(parts[0]) != 4:
                    raise NotAMoment(text, 0)
                return _checked(text, (numbers[0], numbers[1], numbers[2])), rest
            return _checked(text, _with_year(text, numbers, here, past=past)), rest
    if _digits(head) and len(head) in (4, 6):
        numbers = [int(head[start : start + 2]) for start in range(0, len(head), 2)]
        return _checked(text, _with_year(text, numbers, here, past=past)), rest
    return None, lower


def _with_year(
    text: str, numbers: list[int], here: time.struct_time, *, past: bool
) -> tuple[int, int, int]:
    if len(numbers) == 3:
        year = numbers[2] + (2000 if numbers[2] < 100 else 0)
        return year, numbers[0], numbers[1]
    if len(numbers) != 2:
        raise NotAMoment(text, 0)
    month, day = numbers
    today = (here.tm_mon, here.tm_mday)
    year = here.tm_year
    if past and (month, day) > today:
        year -= 1
    elif not past and (month, day) < today:
        year += 1
    return year, month, day


def _checked(text: str, date: tuple[int, int, int]) -> tuple[int, int, int]:
    year, month, day = date
    days = (31, 29 if _leaps(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not (1970 <= year < 10000 and 1 <= month <= 12 and 1 <= day <= days[month - 1]):
        raise NotAMoment(text, 0)
    return date


def _leaps(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _clock(text: str, rest: str) -> tuple[int, int, int]:
    """``HH:MM[:SS]``, with AM or PM or without, or a name for a time of day."""
    named = _TIMES.get(rest.strip())
    if named is not None:
        return (*named, 0)
    begin = len(text) - len(rest)  # of it, behind a date
    half = ""
    for suffix in ("am", "pm"):
        if rest.endswith(suffix):
            half, rest = suffix, rest.removesuffix(suffix).rstrip()
    parts = rest.split(":")
    if not 2 <= len(parts) <= 3 or not all(map(_digits, parts)):
        # Slurm reads one or two digits as an hour, and stops at what is no more of a time.
        hours = len(text) - len(text.lstrip("0123456789"))
        read = len(text) - len(text.lstrip("0123456789:"))
        raise NotAMoment(text, read if hours < 3 else 0)
    hour, minute, second = (*[int(part) for part in parts], 0)[:3]
    if half and not 1 <= hour <= 12:
        raise NotAMoment(text, 0)
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise NotAMoment(text, begin)
    return hour, minute, second


def convert(asked: dict[str, str], *names: str) -> None:
    """Make what was typed for these options ``utsSECONDS``, which the controller understands in any
    time zone.  Raises UsageError, after Slurm's line on where the text went wrong."""
    for name in names:
        if not asked.get(name):
            continue
        try:
            asked[name] = f"uts{int(parse(asked[name], time.time()))}"
        except NotAMoment as wrong:
            report.write_line(str(wrong))
            raise UsageError(
                f"Invalid --{name} specification",
                hint="write now+1hour, 16:00, 2030-01-31 or 2030-01-31T16:00",
            ) from None
