"""How Slurm writes times, amounts of memory, counts and signals; text in, numbers out, and back.

Sentences are those of Slurm's commands.  A value that Slurm calls an invalid *specification* is a
UsageError, a number that is none a RequestError; srun ends with 255 for the first kind and with 1
for the second.  Limits are kept to the second; Slurm rounds them up to whole minutes.

The commands import this too (squeue prints times, scancel reads signals), so it imports nothing.
"""

from __future__ import annotations

from roadstead.errors import RequestError, UsageError

_UNITS = {"K": 1, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}  # in KiB
_NODE_UNITS = {"K": 1 << 10, "M": 1 << 20}
MAX_COUNT = 0x7FFFFFFF
_HIGHEST_SIGNAL = 64
_MOST_DIGITS = 18  # below 2^63; Python refuses to read 4300 and more with an error of its own
_LONGEST = MAX_COUNT * 60  # slurm.conf(5): limits are minutes; and localtime(3) knows that year

# signal(7), the numbers of x86, ARM and most others.  CHLD, IO and ABRT have second names.
_SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8,
    "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15,
    "STKFLT": 16, "CHLD": 17, "CLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21,
    "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28,
    "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31,
}  # fmt: skip
_SIGNAL_NAMES = {number: name for name, number in reversed(_SIGNALS.items())}


def time_limit(text: str, option: str = "--time") -> int | None:
    """Seconds of a time limit; None for no limit.

    Slurm's forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes,
    days-hours:minutes:seconds; 0, -1, INFINITE and UNLIMITED mean none.
    """
    if text.upper() in ("UNLIMITED", "INFINITE", "-1"):
        return None
    days, dash, clock = text.partition("-") if "-" in text else ("0", "", text)
    fields = clock.split(":")
    if len(fields) > 3 or not all(is_number(field) for field in (days, *fields)):
        raise UsageError(
            f"Invalid {option} specification",
            hint="write minutes, minutes:seconds, hours:minutes:seconds or days-hours[:minutes]",
        )
    numbers = [int(field) for field in fields]
    if dash:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    limit = ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if limit > _LONGEST:
        raise UsageError(f"Invalid {option} specification", hint="write UNLIMITED for no limit")
    return limit or None


def memory(text: str, option: str = "--mem") -> int:
    """MiB, rounded up, of an amount of memory: a number (of MiB), or one with K, M, G or T."""
    upper = text.upper()
    digits = upper.removesuffix("B") if upper[-2:-1] in _UNITS else upper
    unit = 1 << 10
    if digits[-1:] in _UNITS:
        unit = _UNITS[digits[-1]]
        digits = digits[:-1]
    if not is_number(digits):
        raise UsageError(
            f"Invalid {option} specification", hint="write a number of MiB, or one with K, M, G, T"
        )
    return -(-int(digits) * unit // (1 << 10))


def count(text: str, option: str, *, least: int = 1) -> int:
    """A whole number that is at least ``least``."""
    if not is_number(text) or not least <= int(text) <= MAX_COUNT:
        raise RequestError(f'Invalid numeric value "{text}" for {option}.')
    return int(text)


def seconds(text: str, option: str) -> int:
    """A duration in seconds, as --wait and --immediate take it."""
    return count(text, option, least=0)


def node_count(text: str) -> tuple[int, int]:
    """The least and the most nodes of ``--nodes``: "2", "1-4", "2k"."""
    least, dash, most = text.partition("-")
    low = _nodes(least, text)
    high = _nodes(most, text) if dash else low
    if high < low:
        raise UsageError(f"Maximum node count {high} is less than minimum node count {low}")
    return low, high


def _nodes(part: str, text: str) -> int:
    factor = _NODE_UNITS.get(part[-1:].upper(), 0)
    digits = part[:-1] if factor else part
    if not is_number(digits):
        raise UsageError(f'"{text}" is not a valid node count')
    return int(digits) * (factor or 1)


def signal_number(text: str) -> int:
    """The number of a signal given as a number or a name, with or without SIG."""
    if is_number(text):
        if 0 < int(text) <= _HIGHEST_SIGNAL:
            return int(text)
    elif (number := _SIGNALS.get(text.upper().removeprefix("SIG"))) is not None:
        return number
    raise RequestError(
        f"Unknown job signal: {text}", hint="kill -l lists the names; 1 to 64 are the numbers"
    )


def signal_name(number: int) -> str:
    """The name without SIG, or the number where it has none (the real-time signals)."""
    return _SIGNAL_NAMES.get(number, str(number))


def format_time(seconds: float | None) -> str:
    """``[days-]HH:MM:SS`` as scontrol prints it; UNLIMITED for None."""
    if seconds is None:
        return "UNLIMITED"
    days, hours, minutes, rest = _split(seconds)
    clock = f"{hours:02}:{minutes:02}:{rest:02}"
    return f"{days}-{clock}" if days else clock


def format_time_short(seconds: float | None) -> str:
    """``[days-][[H]H:]M[M]:SS`` as squeue prints it: 0:05, 12:00, 1:00:00, 2-00:00:00."""
    if seconds is None:
        return "UNLIMITED"
    if not seconds:  # of all that wait
        return "0:00"
    days, hours, minutes, rest = _split(seconds)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _split(seconds: float) -> tuple[int, int, int, int]:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return days, hours, minutes, rest


def is_number(text: str) -> bool:
    """Digits of ASCII only, ``str.isdigit`` also takes those of other scripts; and not too many."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
