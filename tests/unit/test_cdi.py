"""CDI specifications, the YAML that they are written in, and directories of hooks."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.core.model import Gres, Share
from roadstead.errors import ConfigError, LaunchError
from roadstead.oci import cdi, hooks, plainyaml
from roadstead.step import devices

NVIDIA = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - ../libx.so.1::/usr/lib/libx.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /run/socket
    hostPath: /run/socket
    options:
    - ro
    - nosuid
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: GPU-8a1f
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
      permissions: r
  name: '1'
- name: all
  containerEdits:
    deviceNodes: [ ]
    env: [A=1, "B=x, y"]   # both
kind: nvidia.com/gpu
"""


def test_yaml_as_it_is_generated() -> None:
    found = cdi.parse("/x.yaml", NVIDIA)
    assert found.kind == "nvidia.com/gpu"
    assert list(found.devices) == ["0", "GPU-8a1f", "1", "all"]
    assert found.devices["1"].nodes == (("/dev/nvidia1", "/dev/nvidia1", "r"),)
    assert found.devices["all"].env == ("A=1", "B=x, y")
    assert found.common.env == ("NVIDIA_VISIBLE_DEVICES=void",)
    assert found.common.mounts == (
        {
            "destination": "/run/socket",
            "type": "none",
            "source": "/run/socket",
            "options": ["rbind", "ro", "nosuid"],
        },
    )
    ((stage, hook),) = found.common.hooks
    assert stage == "createContainer"
    assert hook["args"][-1] == "../libx.so.1::/usr/lib/libx.so"


SCALARS = st.none() | st.booleans() | st.integers(-999, 999) | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


def _written(node: Any, indent: int = 0) -> str:
    """YAML in block style, with all strings quoted."""
    pad = " " * indent
    if isinstance(node, dict) and node:
        return "".join(f"{pad}{json.dumps(k)}:{_inner(v, indent)}" for k, v in node.items())
    if isinstance(node, list) and node:
        return "".join(f"{pad}-{_inner(each, indent)}" for each in node)
    return f"{pad}{json.dumps(node)}\n"


def _inner(node: Any, indent: int) -> str:
    if isinstance(node, (dict, list)) and node:
        return f"\n{_written(node, indent + 2)}"
    return f" {json.dumps(node)}\n"


@given(TREES)
def test_yaml_that_is_written_is_read(tree: Any) -> None:
    assert plainyaml.load(_written(tree)) == tree


@given(st.text(alphabet="ab:- #[]{}\"'\n,&*!|>?\t0", max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(plainyaml.YamlError):
        plainyaml.load(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a: b", {"a": "b"}),
        ("a:\n- 1\n- x: 2\n  y: 0x1f\n-\n  - z", {"a": [1, {"x": 2, "y": 31}, ["z"]]}),
        ("a: 'it''s'  # so\nb: \"\\u00e4\"", {"a": "it's", "b": "ä"}),
        ("a: x:y\nb: no\nc: ~", {"a": "x:y", "b": "no", "c": None}),
        ("d: 1.5\ne: 0o17", {"d": 1.5, "e": 15}),
        ("- - 1\n  - 2\n- 3", [[1, 2], 3]),
        ("# only\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_yaml_means(text: str, meant: Any) -> None:
    assert plainyaml.load(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1", "a: *x", "a: !t 1", "a: |\n  x", "a: {b: 1}", "a: [1\n", "\ta: 1", "a: b: c",
        "a: 1\na: 2", "a: 'x", "a: 1\n  b: 2", "a\nb", "---\n---\n", "%X", "- 1\nb: 2",
        'a: "\\x41"',
    ],
)  # fmt: skip
def test_yaml_that_is_refused(text: str) -> None:
    with pytest.raises(plainyaml.YamlError):
        plainyaml.load(text)


def specification(**changes: Any) -> str:
    made = {
        "cdiVersion": "0.6.0",
        "kind": "v.com/c",
        "devices": [{"name": "a", "containerEdits": {"env": ["A=1"]}}],
    }
    return json.dumps({**made, **changes})


def edited(**edits: Any) -> str:
    return specification(devices=[{"name": "a", "containerEdits": edits}])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "the file is not an object"),
        (specification(kind="x"), "is not VENDOR/CLASS"),
        (specification(kind="../x/y"), "is not VENDOR/CLASS"),
        (specification(cdiVersion=None), "no cdiVersion"),
        (specification(devices=[]), "no devices"),
        (specification(devices={}), "devices is not an array"),
        (specification(devices=[{"name": "a/b"}]), "is not a device's name"),
        (specification(devices=[{"name": "a"}, {"name": "a"}]), "is there twice"),
        (edited(env=["A"]), "is not NAME=VALUE"),
        (edited(env=[1]), "is not a string"),
        (edited(deviceNodes=[{"path": "dev/x"}]), "deviceNodes[0].path is not an absolute path"),
        (edited(deviceNodes=[{"path": "/dev/../x"}]), "is not an absolute path"),
        (edited(deviceNodes=[{"path": "/dev/x", "permissions": "x"}]), "of r, w and m"),
        (edited(mounts=[{"containerPath": "/x"}]), "hostPath is not an absolute path"),
        (edited(hooks=[{"hookName": "later", "path": "/x"}]), "hookName is not one of"),
        (edited(hooks=[{"hookName": "prestart", "path": "x"}]), "path is not an absolute path"),
        (edited(hooks=[{"hookName": "prestart", "path": "/x", "timeout": "1"}]), "of seconds"),
    ],
)
def test_a_specification_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        cdi.parse("/etc/cdi/x.json", text)
    assert said in str(error.value)
    assert str(error.value).startswith("/etc/cdi/x.json")


FIELDS = [
    *("kind", "devices", "name", "containerEdits", "env", "mounts", "hooks", "deviceNodes"),
    *("path", "hostPath", "containerPath", "hookName", "args", "timeout", "when", "stages"),
    *("hook", "always", "annotations"),
]
NOISE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just("/dev/x"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(NOISE, st.sampled_from(["devices", "containerEdits", "kind", "hook", "when", "stages"]))
def test_no_file_breaks_what_reads_it(tree: Any, where: str) -> None:
    """A file is understood or refused with its name, whatever is in it."""
    with contextlib.suppress(ConfigError):
        cdi.parse("/x.json", specification(**{where: tree}))
    made = {"version": "1.0.0", "hook": {"path": "/bin/true"}, "when": {"always": True}}
    with contextlib.suppress(ConfigError):
        hooks.parse("/x.json", json.dumps({**made, "stages": ["prestart"], where: tree}))


def registry(*directories: Path) -> cdi.Registry:
    return cdi.Registry([os.fspath(each) for each in directories])


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def test_which_file_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one / "a.json", edited(env=["A=one"]))
    write(two / "z.json", edited(env=["A=two"]))
    write(two / "y.yaml", NVIDIA)
    write(two / "note.txt", "not read")
    assert registry(one, two, tmp_path / "none").edits(["v.com/c=a"]).env == ("A=two",)
    assert registry(two, one).edits(["v.com/c=a"]).env == ("A=one",)
    found = registry(one, two).edits(["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=0"])
    assert [node[0] for node in found.nodes] == ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"]
    assert len(found.hooks) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v.com/c=b", "no such device"),
        ("w.com/c=b", "no CDI specification of w.com/c in"),
        ("v.com/d=two", "both have it"),
    ],
)
def test_a_device_that_cannot_be_had(tmp_path: Path, name: str, said: str) -> None:
    write(tmp_path / "a.json", specification())
    for file in ("b", "c"):
        text = specification(kind="v.com/d", devices=[{"name": "two"}])
        write(tmp_path / f"{file}.json", text)
    with pytest.raises(LaunchError) as error:
        registry(tmp_path).edits([name])
    assert said in str(error.value)


def test_a_file_that_is_not_ours_to_believe(tmp_path: Path) -> None:
    write(tmp_path / "a.json", specification())
    (tmp_path / "a.json").chmod(0o666)
    write(tmp_path / "b.json", "{")
    found = registry(tmp_path)
    assert "others can write to it" in str(found.errors[0])
    with pytest.raises(LaunchError, match=r"not found; .*others can write"):
        found.edits(["v.com/c=a"])


def test_directories() -> None:
    assert cdi.directories({"HOME": "/h"}) == ("/etc/cdi", "/var/run/cdi", "/h/.config/cdi")
    assert cdi.directories({"HOME": "/h", "XDG_CONFIG_HOME": "/c"})[2] == "/c/cdi"
    assert cdi.directories({"ROADSTEAD_CDI_DIRS": "/a:b:/c"}) == ("/a", "/c")
    assert cdi.directories({}) == ("/etc/cdi", "/var/run/cdi")


@pytest.mark.parametrize(
    ("gres", "asked", "names"),
    [
        (Gres(name="gpu", indexes=(1,), files=("/dev/nvidia1",)), (), ["nvidia.com/gpu=1"]),
        (Gres(name="gpu", indexes=(7,), files=("/dev/nvidia0",)), (), ["nvidia.com/gpu=0"]),
        (Gres(name="gpu", indexes=(0, 1)), (), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
        (Gres(name="gpu", indexes=(0, 5)), (), []),
        (Gres(name="gpu", indexes=(0,)), ("nvidia.com/gpu=all",), []),
        (Gres(name="fpga", indexes=(0,)), (), []),
    ],
)
def test_the_devices_of_a_job(
    tmp_path: Path, gres: Gres, asked: tuple[str, ...], names: list[str]
) -> None:
    write(tmp_path / "n.yaml", NVIDIA)
    share = Share(node="n", cpus=(0,), gres=(gres,))
    assert devices._of_job(share, registry(tmp_path), asked) == names


def hook(path: Path, name: str, *, program: str = "/bin/true", **changes: Any) -> None:
    made = {
        "version": "1.0.0",
        "hook": {"path": program, "args": [name]},
        "when": {"always": True},
        "stages": ["prestart"],
    }
    write(path / f"{name}.json", json.dumps({**made, **changes}))


def names(found: list[hooks.Hook], annotations: dict[str, str], command: str) -> list[str]:
    wanted = [each for each in found if each.is_wanted(annotations, command, bind_mounts=False)]
    return [each.entry["args"][0] for each in wanted]


def test_when_a_hook_is_wanted(tmp_path: Path) -> None:
    hook(tmp_path / "a", "10-always")
    hook(tmp_path / "a", "20-ssh", when={"annotations": {r"^com\.ssh$": "^true$"}})
    hook(tmp_path / "a", "30-python", when={"commands": ["python3?$"]})
    hook(tmp_path / "a", "40-both", when={"commands": ["sh"], "annotations": {"x": "1"}})
    hook(tmp_path / "a", "50-never", when={"always": False})
    hook(tmp_path / "a", "60-mounts", when={"hasBindMounts": True})
    found = hooks.read([f"{tmp_path}/a"], cdi.read_trusted)
    assert names(found, {}, "ls") == ["10-always"]
    assert names(found, {"com.ssh": "true"}, "/usr/bin/python") == [
        "10-always", "20-ssh", "30-python",
    ]  # fmt: skip
    assert names(found, {"x": "1"}, "/bin/sh") == ["10-always", "40-both"]
    hook(tmp_path / "b", "10-always", when={"always": False})
    assert names(hooks.read([f"{tmp_path}/a", f"{tmp_path}/b"], cdi.read_trusted), {}, "ls") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "2"}, "not a hook's file of version"),
        ({"stages": ["later"]}, "stages are of"),
        ({"stages": []}, "stages are of"),
        ({"when": {}}, "no condition in when"),
        ({"when": {"sometimes": True}}, "unknown condition 'sometimes'"),
        ({"when": {"always": "yes"}}, "when.always is not true or false"),
        ({"when": {"commands": ["("]}}, "not a regular expression"),
        ({"when": {"annotations": []}}, "not an object of strings"),
        ({"hook": {"path": "x"}}, "is not absolute"),
        ({"hook": {"path": "/nothing"}}, "no such file"),
        ({"hook": {}}, "no hook.path"),
        ({"hook": {"path": "/bin/true", "timeout": -1}}, "number of seconds"),
        ({"hook": {"path": "/bin/true", "args": "x"}}, "not an array of strings"),
    ],
)
def test_a_hook_that_is_wrong(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    hook(tmp_path, "x", **changes)
    with pytest.raises(ConfigError) as error:
        hooks.read([f"{tmp_path}"], cdi.read_trusted)
    assert said in str(error.value)
    with pytest.raises(ConfigError, match="hooks cannot be read"):
        hooks.read(["/nothing"], cdi.read_trusted)
