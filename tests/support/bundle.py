"""OCI bundles around Debian's static busybox.

config.json is what the real `runc spec` or `crun spec` writes, and then only what the test asked to
have changed: bundles that users make look like this.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.account import Account
from tests.support.components import program

_DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "var/tmp")
_SPEC = {
    "runc": ["runc", "--rootless=true", "spec", "--rootless"],
    "crun": ["crun", "spec", "--rootless"],
}


def make_rootfs(path: Path) -> Path:
    """A root file system that holds busybox under all of its names."""
    busybox = program("busybox")
    assert busybox is not None
    for name in _DIRECTORIES:
        (path / name).mkdir(parents=True, exist_ok=True)
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)
    shutil.copy(busybox, path / "bin" / "busybox")
    for applet in Account.current().run([busybox, "--list"]).check().stdout.split():
        link = path / "bin" / applet
        if not link.exists():
            link.symlink_to("busybox")
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (path / "etc" / "group").write_text("root:x:0:\n")
    return path


def make_host_bundle(account: Account, path: Path, places: Sequence[Path] = ()) -> Path:
    """A bundle of this machine's own programs, Python among them, and of `places`: read-only."""
    found = [
        Path(each) for each in ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives")
    ]
    bundle = make_bundle(account, path, readonly=True)
    written = json.loads((bundle / "config.json").read_text())
    for place in [*(each for each in found if each.exists()), *places]:
        target = bundle / "rootfs" / place.relative_to("/")
        if target.exists() and place.parent == Path("/"):
            shutil.rmtree(target)
        if place.is_symlink():
            target.symlink_to(place.readlink())
            continue
        target.mkdir(parents=True, exist_ok=True)
        options = ["rbind", "ro", "nosuid", "nodev"]
        mount = {
            "destination": f"{place}",
            "source": f"{place}",
            "type": "none",
            "options": options,
        }
        written["mounts"].append(mount)
    account.write(bundle / "config.json", json.dumps(written, indent=1))
    account.own(bundle)
    return bundle


def make_bundle(
    account: Account,
    path: Path,
    *,
    args: Sequence[str] = ("true",),
    readonly: bool | None = None,
    terminal: bool = False,
    uid_map: list[dict[str, int]] | None = None,
    rootfs_name: str = "rootfs",
    spec: str = "runc",
    config: dict[str, Any] | None = None,
) -> Path:
    """Make a bundle of this account's at `path`, which must not exist, and return it.

    `readonly=None` keeps what the runtime's own specification says.  `uid_map` replaces
    `linux.uidMappings`; `config` replaces whole top-level keys of config.json.
    """
    account.mkdir(path)
    account.run(_SPEC[spec], cwd=path).check()
    written = json.loads((path / "config.json").read_text())
    written["process"]["args"] = list(args)
    written["process"]["terminal"] = terminal
    written["root"]["path"] = rootfs_name
    if readonly is not None:
        written["root"]["readonly"] = readonly
    if uid_map is not None:
        written["linux"]["uidMappings"] = uid_map
    account.write(path / "config.json", json.dumps({**written, **(config or {})}, indent=1))
    make_rootfs(path / rootfs_name)
    account.own(path)
    return path
