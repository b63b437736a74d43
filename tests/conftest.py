"""Fixtures, and the skips that name what is missing.

    account        session, parametrised: "root" (only when pytest is root's) and "user"
    scratch        a directory of the account's with a short name, for this test alone
    engine         a private engine in `scratch`; at the end it is stopped and checked for leaks
    shared_engine  the same for a whole module, where a new controller a test would be slow
    make_bundle    make_bundle(path=None, *, args=…, readonly=…, terminal=…, …) -> Path
    slurm_cluster  session: a real Slurm of two nodes with `--container` turned on
    needs, require (tests.support.skips)   skip by name

What each of them is made of is in `tests.support`.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import bundle, leaks
from tests.support.account import Account
from tests.support.components import installable
from tests.support.engine import Engine, make_base, make_shims
from tests.support.product import Product, locate
from tests.support.skips import require, skipped_components
from tests.support.slurm_cluster import SlurmCluster

ACCOUNTS = ["root", "user"] if os.geteuid() == 0 else ["user"]
IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session", params=ACCOUNTS)
def account(request: pytest.FixtureRequest) -> Account:
    """Who runs the commands: root and the account of script/setup, or just the present user."""
    if os.geteuid() != 0 or request.param == "root":
        return Account.current()
    require("account")
    return Account.named(os.environ.get("ROADSTEAD_TEST_USER", "roadstead-test"))


@pytest.fixture(scope="session")
def user() -> Account:
    """The unprivileged account alone, for tests in which root would show nothing."""
    require("account")
    name = os.environ.get("ROADSTEAD_TEST_USER", "roadstead-test")
    return Account.named(name) if os.geteuid() == 0 else Account.current()


@pytest.fixture(scope="session")
def product(user: Account) -> Iterator[Product]:
    """The package under test, where every account can read it."""
    found = locate(user)
    yield found
    found.remove()


@pytest.fixture(scope="session")
def shims(product: Product, account: Account) -> Iterator[Path]:
    """The commands as `roadstead shims` writes them."""
    folder = make_shims(product, account)
    yield folder
    leaks.remove(folder)


@pytest.fixture
def scratch(account: Account) -> Iterator[Path]:
    """A directory of the account's, readable by it alone, with the directories of an engine."""
    base = make_base(account)
    yield base
    if base.exists():
        leaks.remove(base)


@pytest.fixture
def engine(account: Account, shims: Path, scratch: Path) -> Iterator[Engine]:
    """A private engine for one test."""
    made = Engine(account, shims, scratch)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_engine(account: Account, shims: Path) -> Iterator[Engine]:
    """A private engine for the tests of one module."""
    made = Engine(account, shims, make_base(account))
    yield made
    made.close()


@pytest.fixture
def make_bundle(account: Account, scratch: Path) -> Callable[..., Path]:
    """`bundle.make_bundle` for the account; without a path, at `scratch`/bundle."""

    def make(path: Path | None = None, **options: Any) -> Path:
        require("busybox", options.get("spec", "runc"))
        return bundle.make_bundle(account, path or scratch / "bundle", **options)

    return make


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A real Slurm of two nodes; `slurm_cluster.run(account, argv)` uses it."""
    require("root", "slurm", "address", "crun")
    with SlurmCluster(nodes=2) as cluster:
        yield cluster


def pytest_collection_finish() -> None:
    """Collect garbage less often: it would walk all that was imported and collected, again and
    again, for a fifth of the time that the unit tests take."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Honour the marks that stand for a component."""
    for mark in item.iter_markers("needs"):
        require(*mark.args)
    for name in ("root", "slurm"):
        if item.get_closest_marker(name):
            require(name)
    if item.get_closest_marker("container"):
        require("userns")


def _skipped(config: pytest.Config) -> dict[str, tuple[str, int]]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return skipped_components(reporter.stats.get("skipped", [])) if reporter else {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was missing, by name."""
    found = _skipped(terminalreporter.config)
    if not found:
        return
    terminalreporter.section("components not available")
    for name, (reason, count) in sorted(found.items()):
        terminalreporter.write_line(f"{name}: {count} skipped: {reason}")
    if IN_CI and any(map(installable, found)):
        terminalreporter.write_line("failed: script/setup should have installed these", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, skipping what can be installed is a failure."""
    if IN_CI and session.exitstatus == 0 and any(map(installable, _skipped(session.config))):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
