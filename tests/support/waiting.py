"""Waiting for what other processes do in their own time.

A test that sleeps is slow and wrong by turns.  `eventually` looks again and again until a deadline;
what it waits for is said in the failure.  The product itself never waits like this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], *, timeout: float = 10.0, what: str = "") -> T:
    """The first true value that `look` returns; an assertion fails when the time is over."""
    deadline = time.monotonic() + timeout
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or look!r}"
        time.sleep(0.02)
    return seen
