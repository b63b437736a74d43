"""What the options about containers mean: mounts, names, image names, variables, EDFs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.core import container, edf, enroot, expand, mounts, ports
from roadstead.core.model import Mount, StepSpec, TaskSpec
from roadstead.errors import ConfigError, RequestError, RoadsteadError, UsageError
from roadstead.images.reference import TRANSPORTS
from roadstead.oci import environment
from roadstead.step import network

CWD = "/work/here"


def bind(source: str, destination: str, *options: str, optional: bool = False) -> Mount:
    return Mount(
        kind="bind", source=source, destination=destination,
        options=options or ("rbind",), optional=optional,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/home:/mnt", (bind("/home", "/mnt"),)),
        ("/var/lib", (bind("/var/lib", "/var/lib"),)),
        ("./:/mnt", (bind(CWD, "/mnt"),)),
        ("./a:/a", (bind(f"{CWD}/a", "/a"),)),
        ("../a:/a", (bind(f"{CWD}/../a", "/a"),)),
        ("/a:./b//c", (bind("/a", "/b/c"),)),
        ("/a:/b:", (bind("/a", "/b"),)),
        ("/a:/b:ro+rprivate", (bind("/a", "/b", "rbind", "ro", "rprivate"),)),
        ("/a:/b:unbindable+ro", (bind("/a", "/b", "rbind", "unbindable", "ro"),)),
        ("/a:/b:bind+nosuid", (bind("/a", "/b", "bind", "nosuid"),)),
        ("/a:/b:x-create=dir", (bind("/a", "/b"),)),
        ("/a:/b:nofail", (bind("/a", "/b", optional=True),)),
        (
            "./d.sqsh:/d:sqsh+nosuid",
            (Mount(kind="squashfs", source=f"{CWD}/d.sqsh", destination="/d",
                   options=("rbind", "ro", "nosuid")),),
        ),
        ("/dev/null:/null,/a:/b", (bind("/dev/null", "/null"), bind("/a", "/b"))),
        ("umount:/dev/shm", (Mount(kind="umount", source="", destination="/dev/shm"),)),
        (
            "tmpfs:/s:size=1G+mode=700",
            (Mount(kind="tmpfs", source="tmpfs", destination="/s",
                   options=("size=1G", "mode=700")),),
        ),
    ],
)  # fmt: skip
def test_mounts(text: str, meant: tuple[Mount, ...]) -> None:
    assert mounts.parse(text, CWD) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a mount"),
        (":/b", "is not a mount"),
        ("/a:", "is not a mount"),
        ("/a:/b,", "is not a mount"),
        ("a:/b", "neither a path nor tmpfs nor umount"),
        ("tmpfs", "says not where"),
        ("/a:/b:rw+sqsh", "a squashfs cannot be written to"),
        ("/a:/b:sqsh+x", "unknown mount flag 'x'"),
        ("/a:/b:size=1", "unknown mount flag"),
        ("/a:../home", ".. in the path inside"),
        ("/a:/x/../../etc", ".. in the path inside"),
        ("/", "over the container's whole root"),
        ("/a:/", "over the container's whole root"),
        ("/a:.", "over the container's whole root"),
        ("/a:/proc", "/proc"),
        ("/a:/./proc//sys", "/proc"),
    ],
)
def test_what_is_no_mount(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=".*" + said.replace(".", r"\.")):
        mounts.parse(text, CWD)


@given(st.text(alphabet="/.:+,ab tmpfsro=", max_size=30))
def test_a_mount_point_is_inside_or_refused(text: str) -> None:
    try:
        found = mounts.parse(text, CWD)
    except UsageError:
        return
    for mount in found:
        parts = mount.destination.split("/")
        assert parts[0] == ""
        assert all(parts[1:])
        assert not {".", ".."} & set(parts)
        assert mount.kind != "bind" or mount.source.startswith("/")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ubuntu", "docker://ubuntu"),
        ("ubuntu:24.04", "docker://ubuntu:24.04"),
        ("nvcr.io#nvidia/pytorch:24.01-py3", "docker://nvcr.io/nvidia/pytorch:24.01-py3"),
        ("docker://nvcr.io#nvidia/cuda", "docker://nvcr.io/nvidia/cuda"),
        ("docker://host:5000/a:b", "docker://host:5000/a:b"),
        ("quay.io#a/b@sha256:00", "docker://quay.io/a/b@sha256:00"),
        ("dockerd://mine:1", "docker-daemon:mine:1"),
        ("podman://mine:1", "containers-storage:mine:1"),
        ("/a/b.sqsh", "/a/b.sqsh"),
        ("./b.sqsh", "./b.sqsh"),
        ("oci:./layout:tag", "oci:./layout:tag"),
        ("docker-archive:app.tar", "docker-archive:app.tar"),
    ],
)
def test_image_names(text: str, meant: str) -> None:
    assert enroot.reference(text, list(TRANSPORTS)) == (meant, "")


def test_a_user_for_the_registry_is_told_apart() -> None:
    assert enroot.reference("me@nvcr.io#a/b:c", []) == ("docker://nvcr.io/a/b:c", "me")
    assert enroot.reference("$oauthtoken@nvcr.io#a", []) == ("docker://nvcr.io/a", "$oauthtoken")


@pytest.mark.parametrize("text", ["", "#a", "a#", "a#b#c", "docker://"])
def test_what_is_no_image_name(text: str) -> None:
    with pytest.raises(UsageError):
        enroot.reference(text, [])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("${A}/${B}", "a/b"), ("$A $ ${A}", "$A $ a"), ("$${A}", "${A}"), ("${X:-}", ""),
        ("${X:-y}", "y"), ("${E:-y}", "y"), ("${E}", ""), ("${A:-y}", "a"), ("", ""),
    ],
)  # fmt: skip
def test_variables(text: str, meant: str) -> None:
    assert expand.expand(text, {"A": "a", "B": "b", "E": ""}) == meant


@pytest.mark.parametrize("text", ["${X}", "${A", "${}"])
def test_variables_that_are_not(text: str) -> None:
    with pytest.raises(UsageError):
        expand.expand(text, {"A": "a"})


# -- the request -----------------------------------------------------------------------------------


def request(**options: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    message = {"image": {"digest": "sha256:0", "store": "/store"}}
    return container.of(message, {"container": "/b", **named}, CWD, CWD)


def test_what_is_asked_for() -> None:
    asked = request(
        container_name="n:exec", container_save="out.sqsh", container_workdir="/w",
        container_env="A,B", device="v.com/gpu=0,v.com/gpu=1", container_remap_root="1",
        no_container_entrypoint="1", container_mount_home="1",
    )  # fmt: skip
    assert (asked.name, asked.name_use) == ("n", "exec")
    assert asked.save == f"{CWD}/out.sqsh"
    assert (asked.inner_workdir, asked.keep_env) == ("/w", ("A", "B"))
    assert asked.devices == ("v.com/gpu=0", "v.com/gpu=1")
    assert (asked.remap_root, asked.entrypoint, asked.mount_home) == (True, False, True)
    assert (asked.image, asked.store) == ("sha256:0", "/store")


@pytest.mark.parametrize(
    "options",
    [
        {"container_name": ""}, {"container_name": "a:b"}, {"container_name": "../x"},
        {"container_name": "a/b"}, {"container_name": ".a"}, {"container_name": "x" * 129},
        {"container_save": "dir/"}, {"container_workdir": "rel"}, {"container_env": "A,"},
        {"container_env": "A=b"}, {"device": "gpu0"}, {"device": "a=b"},
        {"container_remap_root": "1", "no_container_remap_root": "1"},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for(options: dict[str, str]) -> None:
    with pytest.raises((UsageError, RequestError)):
        request(**options)


def test_a_name_is_enough() -> None:
    asked = container.of({}, {"container-name": "mine"}, CWD, CWD)
    assert asked is not None
    assert asked.name == "mine"


@pytest.mark.parametrize("option", ["container-mounts", "container-workdir", "device"])
def test_what_needs_a_container(option: str) -> None:
    with pytest.raises(RequestError, match="needs --container"):
        container.of({}, {option: "x"}, CWD, CWD)


# -- variables -------------------------------------------------------------------------------------


def test_whose_variables() -> None:
    job = {"A": "job", "B": "job", "C": "job", "SLURM_X": "step", "GONE": "job"}
    image = ["A=image", "B=image", "P=/image", "PATH=/bin"]
    wishes = environment.Wishes(
        kept=("B", "NOT_SET"), own={"Q": "${P}:/own", "GONE": "", "SLURM_X": ""}
    )
    found = environment.compose("merge", job, image, wishes=wishes)
    assert found == {
        "A": "image", "B": "job", "C": "job", "P": "/image", "PATH": "/bin",
        "Q": "/image:/own", "SLURM_X": "step",
    }  # fmt: skip
    origins = environment.origins("merge", job, image, wishes=wishes)
    assert {name: origins[name] for name in found} == {
        "A": "image", "B": "--container-env", "C": "job", "P": "image", "PATH": "image",
        "Q": "--environment", "SLURM_X": "step",
    }  # fmt: skip


# -- EDF -------------------------------------------------------------------------------------------

FILES = {
    "common": 'image = "a"\nmounts = ["/a:/a"]\nworkdir = "/w"\n[env]\nA = "1"\nB = "1"\n',
    "top": 'base_environment = "common"\nimage = "${IMG}:1"\nmounts = ["${S}:/s"]\nwritable = false'
    '\ndevices = ["v/c=1"]\n[env]\nB = "${PATH}:/x"\n[annotations.com.hooks.ssh]\nenabled = "true"',
    "two": 'base_environment = ["common", "top"]\n[annotations]\ncom.hooks.ssh.enabled = "no"\n',
    "loop": 'base_environment = "loop2"',
    "loop2": 'base_environment = ["loop"]',
}


def read(name: str) -> tuple[str, str]:
    return f"/{name}.toml", FILES[name]


def test_inheritance() -> None:
    environ = {"IMG": "img", "S": "/scratch"}
    found = edf.load("top", read, environ)
    assert (found.image, found.workdir, found.writable) == ("img:1", "/w", False)
    assert found.mounts == ("/a:/a", "/scratch:/s")
    assert found.env == {"A": "1", "B": "${PATH}:/x"}
    assert found.annotations == {"com.hooks.ssh.enabled": "true"}
    two = edf.load("two", read, environ)
    assert two.mounts == ("/a:/a", "/a:/a", "/scratch:/s")
    assert two.annotations == {"com.hooks.ssh.enabled": "no"}
    assert two.entrypoint is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image = ", "not valid TOML"),
        ("image = 3", "image is not a string"),
        ('mounts = "a"', "mounts is not an array"),
        ("mounts = [1]", "mounts is not an array"),
        ('writable = "yes"', "writable is not true or false"),
        ("[env]\nA = 1", "env is not a table of strings"),
        ('imgae = "x"', "unknown entry 'imgae'"),
        ("[annotations]\na = 1", "annotations: a is not a string"),
        ("base_environment = 3", "base_environment is not"),
        ("x = " + "[" * 5000, "nested too deeply|not valid TOML"),
        ("#" * (2 << 20), "larger than"),
    ],
)
def test_files_that_are_wrong(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        edf.load("x", lambda name: ("/x.toml", text), {})


def test_a_circle_and_a_variable_that_is_not_set() -> None:
    with pytest.raises(ConfigError, match="leads back"):
        edf.load("loop", read, {})
    with pytest.raises(ConfigError, match=r"/top.toml: \$\{IMG\}: the variable is not set"):
        edf.load("top", read, {})


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        edf.load("x", lambda name: ("/x.toml", text), {})
    except RoadsteadError:
        return


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [(80, None, "127.0.0.1")]),
        ("8080:80/tcp", [(80, 8080, "127.0.0.1")]),
        ("0.0.0.0:0:80,1:2", [(80, 0, "0.0.0.0"), (2, 1, "127.0.0.1")]),
    ],
)
def test_ports(text: str, expected: list[tuple[int, int | None, str]]) -> None:
    assert [(each.inside, each.host, each.address) for each in ports.parse(text)] == expected


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "x:80", "1.2.3:1:80", "1.2.3.4.5:1:80", "1:2:3:4", "80,80", "-1:80"]
)
def test_what_is_not_a_port(text: str) -> None:
    with pytest.raises(UsageError):
        ports.parse(text)


def test_names_of_peers() -> None:
    spec = StepSpec(
        job_id=1, step_id=0, kind="run", name="", user="u", uid=1, gid=1, node="a", cwd="/",
        argv=("x",),
    )  # fmt: skip
    tasks = [
        TaskSpec(procid=number, localid=0, argv=(), env={}, node=node)
        for number, node in enumerate(("a", "a", "b"))
    ]
    alone, shared = {0: 0, 1: 1, 2: 2}, {0: 0, 1: 0, 2: 2}
    private = network.names(spec, tasks, {0, 1, 2}, alone)
    assert private[1][2:] == ["100.127.128.2 task1", "100.127.0.1 task0 a", "100.127.0.3 task2 b"]
    together = network.names(spec, tasks, {0, 1, 2}, shared)
    assert together[2][2:] == ["100.127.128.3 task2 b", "100.127.0.1 task0 a", "100.127.0.1 task1"]
    assert together[0][2:] == [
        "100.127.128.1 task0 a",
        "100.127.128.1 task1",
        "100.127.0.3 task2 b",
    ]
    assert network.names(spec, tasks, set(), alone)[1][2:] == [
        "127.0.0.1 task0 a", "127.0.0.1 task1", "127.0.0.1 task2 b"
    ]  # fmt: skip
    assert network.owners(tasks, lambda task: True) == shared
    assert len({network.own_address(n) for n in range(1000)}) == 1000
    assert not {network.own_address(n) for n in range(9999)} & {
        network.peer_address(n) for n in range(9999)
    }
