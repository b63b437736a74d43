"""The three ways in which a host mounts control groups: v1, v2, and both (hybrid).

One machine has one of them; a private mount namespace, which takes root, shows a command another.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import Account
from tests.support.components import ROOT
from tests.support.engine import Engine
from tests.support.skips import require

GUIDE = ROOT / "tests" / "data" / "guide"
LAYOUTS = {
    "as it is": "true",
    "v1": "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi",
    "v2": "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup",
}


@pytest.mark.root
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize("form", ["built in", "run", "create"])
def test_layouts(
    engine: Engine, make_bundle: Callable[..., Path], layout: str, runtime: str, form: str
) -> None:
    require(runtime, "userns", "util-linux")
    conf = "none"
    if form != "built in":
        text = (GUIDE / f"{runtime}-{form}.conf").read_text()
        conf = str(engine.account.write(engine.base / "oci.conf", text))
    account = engine.account
    become = f"setpriv --reuid={account.uid} --regid={account.gid} --init-groups"
    script = f'{LAYOUTS[layout]} && cd / && exec {become} "$@"'
    done = Account.current().run(
        ["unshare", "--mount", "sh", "-c", script, "sh",
         "srun", "--container", str(make_bundle()), "sh", "-c", "id -u; exit 5"],
        env={
            **engine.variables, "USER": account.name,
            "ROADSTEAD_OCI_CONF": conf, "ROADSTEAD_RUNTIME": runtime,
        },
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (5, "0\n"), str(done)
