"""What the benchmarks share: who runs the commands, and where, and how ratios are shown."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, os.fspath(ROOT))

from tests.support.account import Account  # noqa: E402

UNIFIED = "/sys/fs/cgroup/unified"
HIDDEN = "ROADSTEAD_BENCH_HIDDEN"


def hide_unified() -> str:
    """Start over in a mount namespace without the cgroup2 tree, where crun needs that."""
    if os.environ.pop(HIDDEN, ""):
        return f"all in a mount namespace without {UNIFIED} (crun refuses hybrid cgroups)"
    try:
        populated = bool(Path(UNIFIED, "cgroup.controllers").read_text().strip())
    except FileNotFoundError:
        populated = False
    if populated and os.geteuid() == 0:
        script = f'umount {UNIFIED}; exec "$@"'
        argv = ["unshare", "--mount", "sh", "-ec", script, "sh", sys.executable, *sys.argv]
        os.execvpe(argv[0], argv, {**os.environ, HIDDEN: "1"})
    return "hybrid cgroups are in the way of crun, and only root can hide them" * populated


def account() -> Account:
    """The unprivileged user."""
    if os.geteuid() != 0:
        return Account.current()
    return Account.named(os.environ.get("ROADSTEAD_TEST_USER", "roadstead-test"))


def as_user(user: Account, env: dict[str, str], body: Callable[[], Any]) -> Any:
    """What ``body`` returns (as JSON) in a child that has become the user, in this environment."""
    inlet, outlet = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(inlet)
        os.chdir("/")
        if not user.is_current:
            os.initgroups(user.name, user.gid)
            os.setgid(user.gid)
            os.setuid(user.uid)
        os.environ.clear()
        os.environ.update(env)
        code = 1
        try:
            with open(outlet, "w") as file:
                json.dump(body(), file)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(outlet)
    with open(inlet) as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(1)
    return json.loads(text)


def median_ms(samples: list[float]) -> float:
    """The median of seconds, in milliseconds."""
    return statistics.median(samples) * 1000


def about(**more: Any) -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        **{name: value for name, value in more.items() if value},
    }
