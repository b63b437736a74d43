"""The skip that names what is missing.

A test says what it needs (`@needs("crun")`, or `require("crun")` in a fixture).  Where that is
missing the test is skipped with a sentence of one fixed form, and the summary at the end of the run
lists the components by name, read back from those sentences: so it also holds for tests that ran in
another process.  With CI=true a run that lacked something script/setup installs has failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.components import lack

needs = pytest.mark.needs

SENTENCE = re.compile(r"component (\S+) is not available: (.*)", re.DOTALL)


def require(*names: str) -> None:
    """Skip the test that is running, by name, if one of the components is missing."""
    for name in names:
        if reason := lack(name):
            pytest.skip(f"component {name} is not available: {reason}")


def skipped_components(reports: Iterable[Any]) -> dict[str, tuple[str, int]]:
    """Component -> (reason, number of tests), read from the reports of skipped tests."""
    found: dict[str, tuple[str, int]] = {}
    for report in reports:
        longrepr = report.longrepr
        said = SENTENCE.search(longrepr[2] if isinstance(longrepr, tuple) else str(longrepr))
        if said:
            name, reason = said.groups()
            found[name] = (reason, found.get(name, ("", 0))[1] + 1)
    return found
