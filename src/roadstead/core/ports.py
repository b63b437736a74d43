"""What ``--container-publish`` says: [[ADDRESS:]HOST:]PORT[/tcp], several between commas.

    8000                 of each task's network, for the other tasks of the step: taskN:8000
    8080:80              and port 8080 of 127.0.0.1 on the host leads there
    0.0.0.0:8080:80      likewise, from other machines too
    0:80                 a port of the host that is free; ROADSTEAD_PORT_80 tells the task which

Pure.
"""

from __future__ import annotations

from typing import Final

from roadstead.core.model import Port
from roadstead.errors import UsageError

_HIGHEST: Final = 65535


def parse(text: str) -> tuple[Port, ...]:
    """The ports of a list.  Raises UsageError."""
    found = tuple([_one(entry) for entry in text.split(",")])
    for port in found:
        if [each.inside for each in found].count(port.inside) > 1:
            raise UsageError(f"--container-publish={text}: {port.inside} is there twice")
    return found


def _one(entry: str) -> Port:
    text, slash, protocol = entry.partition("/")
    if slash and protocol != "tcp":
        raise UsageError(f"--container-publish={entry}: only TCP ports can be published")
    *before, inside = text.split(":")
    address = before[0] if len(before) == 2 else "127.0.0.1"
    host = before[-1] if before else None
    if len(before) > 2 or not _is_address(address) or not _is_port(inside, least=1):
        raise _wrong(entry)
    if host is not None and not _is_port(host, least=0):
        raise _wrong(entry)
    return Port(inside=int(inside), host=None if host is None else int(host), address=address)


def _wrong(entry: str) -> UsageError:
    return UsageError(
        f"--container-publish={entry}: not a port", hint="[[ADDRESS:]HOST:]PORT, such as 8080:80"
    )


def _is_port(text: str, *, least: int) -> bool:
    return text.isascii() and text.isdigit() and least <= int(text) <= _HIGHEST


def _is_address(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(_is_port(each, least=0) and int(each) < 256 for each in parts)
