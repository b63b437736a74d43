"""What a hostile config.json asks of the runtime, and what it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from roadstead.errors import BundleError
from roadstead.oci import bundle
from tests.unit.test_config_json import BASE, rewritten

ORDERS = {
    "run.oci.hooks.stderr": "/home/u/.profile",
    "run.oci.hooks.stdout": "/home/u/x",
    "run.oci.handler": "wasm",
    "run.oci.seccomp.receiver": "/run/sock",
    "run.oci.pidfd_receiver": "/run/sock",
    "org.criu.config": "/tmp/criu",
    "org.systemd.property.ExecStopPost": "x",
    "module.wasm.image/variant": "compat",
}
KEPT = {"kept": "yes", "run.oci.keep_original_groups": "1", "org.opencontainers.image.os": "linux"}
SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/s", "listenerMetadata": "x"}


def asking(**changes: Any) -> dict[str, Any]:
    return {**BASE, **changes}


def test_orders_to_the_runtime_are_left_out_and_named() -> None:
    base = asking(annotations={**ORDERS, **KEPT}, linux={**BASE["linux"], "seccomp": SECCOMP})
    written, notes = rewritten(base)
    assert written["annotations"] == KEPT
    assert written["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW"}
    (warning,) = [note for note in notes if note.startswith("warning: left out")]
    assert all(name in warning for name in (*ORDERS, "linux.seccomp.listenerPath"))


def test_orders_to_the_runtime_have_the_policy_of_hooks() -> None:
    base = asking(annotations=dict(ORDERS))
    assert rewritten(base, hooks="run")[0]["annotations"] == ORDERS
    with pytest.raises(BundleError, match=r"outside the container: run\.oci\.hooks\.stderr"):
        rewritten(base, hooks="refuse")
    rewritten(asking(annotations=KEPT), hooks="refuse")


@pytest.mark.parametrize(
    "namespaces",
    [[], [{"type": "mount", "path": "/proc/1/ns/mnt"}], [{"type": "pid"}], [{"type": "mount"}]],
)
@pytest.mark.parametrize("privileged", [False, True])
def test_a_container_has_a_mount_namespace_of_its_own(
    namespaces: list[dict[str, str]], privileged: bool
) -> None:
    ids = {"uids": None, "gids": None} if privileged else {}
    base = asking(linux={**BASE["linux"], "namespaces": namespaces})
    written, _ = rewritten(base, privileged=privileged, cgroup="c", **ids)
    found = [entry for entry in written["linux"]["namespaces"] if entry["type"] == "mount"]
    assert found == [{"type": "mount"}]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"annotations": []}, "annotations is not an object"),
        ({"linux": {"seccomp": []}}, "linux.seccomp is not an object"),
    ],
)
def test_shapes(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        bundle.check("/b/config.json", json.dumps(asking(**changes)))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000])
def test_a_deep_config_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match="nested too deeply"):
        bundle.check("/b/config.json", text)


@pytest.mark.parametrize("destination", ["/", "//", "/.", "/x/..", "", "."])
def test_a_mount_over_the_whole_root_is_refused(destination: str) -> None:
    base = asking(mounts=[{"destination": destination, "type": "tmpfs"}])
    with pytest.raises(BundleError, match=r"whole root|no destination"):
        bundle.check("/b/config.json", json.dumps(base))


@pytest.mark.parametrize("source", ["/", "/proc/../", "../../../../..", "//", "/proc/self/root"])
def test_a_mount_of_the_hosts_whole_root_is_left_out(source: str) -> None:
    mount = {"destination": "/host", "type": "bind", "source": source, "options": ["rbind"]}
    kept = {"destination": "/tmp", "type": "tmpfs"}
    base = asking(mounts=[mount, kept])
    written, notes = rewritten(base)
    assert written["mounts"] == [kept]
    assert [note for note in notes if note.startswith("warning: mount of the host's whole root")]
    assert len(rewritten(base, hooks="run")[0]["mounts"]) == 2
    with pytest.raises(BundleError, match="mounts the host's whole root at /host"):
        rewritten(base, hooks="refuse")


@pytest.mark.parametrize("name", ["mounts", "hooks.prestart", "process.env", "linux.devices"])
def test_a_huge_array_is_refused(name: str) -> None:
    """Before the runtime, or the kernel, has to do with it; also in what we do not read."""
    base: dict[str, Any] = json.loads(json.dumps(BASE))
    *above, last = name.split(".")
    node = base
    for each in above:
        node = node.setdefault(each, {})
    node[last] = (["A=1"] if name == "process.env" else [{"destination": "/x"}]) * 70_000
    with pytest.raises(BundleError, match=f"{name} has 70000 entries, and"):
        bundle.check("/b/config.json", json.dumps(base))
