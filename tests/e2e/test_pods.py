"""Kubernetes pods: manifests behave as Kubernetes' documentation says.

The sentences that a test holds are those of "Pod Lifecycle", "Init Containers", "Sidecar
Containers", "Configure Liveness, Readiness and Startup Probes" and "Jobs".
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_limits import delegation, enter
from tests.support import bundle, outside, waiting
from tests.support.account import Account, Completed
from tests.support.components import program
from tests.support.engine import Engine
from tests.support.skips import require

pytestmark = pytest.mark.container

Run = Callable[..., Completed]


@pytest.fixture(scope="module")
def image(shared_engine: Engine) -> str:
    """A root file system; as a path it is an image: `image: /…`."""
    require("busybox", "crun")
    path = shared_engine.work / "rootfs"
    bundle.make_rootfs(path)
    shared_engine.account.own(path)
    return os.fspath(path)


def sh(name: str, image: str, script: str, **more: Any) -> dict[str, Any]:
    """A container that runs a script."""
    return {"name": name, "image": image, "command": ["sh", "-c", script], **more}


def pod(*containers: dict[str, Any], name: str = "test", **spec: Any) -> dict[str, Any]:
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, **spec}
    metadata = {"name": name, "labels": {"app": "x"}}
    spec = {"containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture
def run(shared_engine: Engine) -> Run:
    """run(document, …, options=(…)): `roadstead pod run` of a manifest with these documents."""

    def run(*documents: dict[str, Any], options: tuple[str, ...] = (), **more: Any) -> Completed:
        write(shared_engine, "pod.yaml", *documents)
        return shared_engine.run(["roadstead", "pod", "run", *options, "pod.yaml"], **more)

    return run


def write(engine: Engine, name: str, *documents: dict[str, Any]) -> None:
    """JSON is YAML; several documents have to be."""
    text = "---\n".join(f"{json.dumps(each, indent=1)}\n" for each in documents)
    engine.account.write(engine.work / name, f"# a manifest\n{text}")


ANSWER = "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello\\n'"
SERVE = f"{ANSWER} > /tmp/a; while true; do nc -l -p 8080 < /tmp/a > /tmp/b; done"


def test_containers_share_localhost_and_the_pod_fails_as_they_do(run: Run, image: str) -> None:
    server = sh("web", image, "nc -l -p 8080 -e echo hello; exit 3")
    client = sh("client", image, "until nc localhost 8080; do sleep 0.1; done; hostname")
    done = run(pod(server, client))
    assert done.returncode == 3, done
    assert sorted(done.stdout.splitlines()) == ["client: hello", "client: test"]


def test_init_containers_run_one_by_one_before_the_others(run: Run, image: str) -> None:
    """Each to its success; they share volumes with the main containers."""
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    init = [
        sh("one", image, "test ! -e /v/x; echo 1 >> /v/x", **mount),
        sh("two", image, "echo 2 >> /v/x", **mount),
    ]
    main = [sh("main", image, "cat /v/x; echo out > /kept", **mount)]
    volumes = [{"name": "v", "emptyDir": {}}]
    done = run(pod(*main, initContainers=init, volumes=volumes)).check()
    assert done.stdout == "main: 1\nmain: 2\n"
    failing = [sh("one", image, "exit 7"), init[1]]
    done = run(pod(*main, initContainers=failing, volumes=volumes))
    assert (done.returncode, done.stdout) == (7, "")


def test_a_sidecar_starts_first_and_is_ended_last(run: Run, image: str) -> None:
    """It is passed once its startup probe succeeds, starts again whenever it ends, and what it
    exits with is not the pod's exit code."""
    script = "trap 'echo bye; exit 9' TERM; echo up; sleep 0.2; touch /tmp/up; sleep 60 & wait"
    probe = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1}
    side = sh("side", image, script, restartPolicy="Always", startupProbe=probe)
    done = run(pod(sh("main", image, "echo work"), initContainers=[side])).check()
    assert done.stdout == "side: up\nmain: work\nside: bye\n"


def test_probes_of_all_kinds(run: Run, image: str) -> None:
    """A startup probe holds up the others; a container whose liveness probe fails is ended."""
    tries = {"periodSeconds": 1, "failureThreshold": 20}
    container = sh(
        "web", image, SERVE,
        ports=[{"containerPort": 8080, "name": "web"}],
        startupProbe={"httpGet": {"port": "web"}, **tries},
        readinessProbe={"tcpSocket": {"port": 8080}, **tries},
        livenessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
    )  # fmt: skip
    done = run(pod(container))
    assert done.returncode == 128 + signal.SIGTERM, done
    assert "container web: liveness probe has failed: exit code 1: ending it" in done.stderr


def test_a_container_that_fails_is_started_again(run: Run, image: str) -> None:
    """OnFailure: until it has succeeded; with a root as the image has it, and the same volumes."""
    script = "test ! -e /mine; touch /mine; echo run; test -e /v/x || { touch /v/x; exit 1; }"
    main = sh("main", image, script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    volumes = [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]
    done = run(pod(main, volumes=volumes, restartPolicy="OnFailure")).check()
    assert done.stdout == "run\nrun\n"
    assert "container main has ended with exit code 1: it is started again now" in done.stderr


def test_values_of_config_maps_secrets_and_the_pod(run: Run, image: str) -> None:
    config = {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v", "file": "text"}}
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}
    env = [
        {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
        {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "M", "value": "$(K)-$(N)-$(UNKNOWN)"},
    ]
    volumes = [
        {"name": "c", "configMap": {"name": "c", "items": [{"key": "file", "path": "d/f"}]}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {
            "name": "d",
            "downwardAPI": {
                "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
            },
        },
    ]
    script = "echo $K $P $N $M $HOSTNAME; cat /c/d/f /s/password /d/labels; : > /c/x"
    mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    main = sh("main", image, script, env=env, volumeMounts=mounts)
    given = [{"apiVersion": "v1", **each} for each in (config, secret)]
    done = run(*given, pod(main, volumes=volumes))
    assert done.stdout == 'v hunter2 test v-test-$(UNKNOWN) test\ntexthunter2app="x"', done
    assert "Read-only file system" in done.stderr


def test_what_containers_of_a_pod_have_in_common(
    shared_engine: Engine, run: Run, image: str
) -> None:
    """/dev/shm, and with shareProcessNamespace their processes; a path of the host; no container
    gets out of a volume by a link."""
    path = shared_engine.account.mkdir(shared_engine.work / "host")
    (path / "out").symlink_to("/etc")
    volumes = [{"name": "h", "hostPath": {"path": os.fspath(path), "type": "Directory"}}]
    mount = {"name": "h", "mountPath": "/h"}
    one = sh("one", image, "echo x > /dev/shm/x; echo y > /h/y; exec sleep 61")
    wait = "until test -e /dev/shm/x -a -e /sub/y; do sleep 0.1; done; "
    two = sh("two", image, f"{wait} cat /dev/shm/x; kill $(pidof sleep); cat /proc/1/comm")
    one["volumeMounts"] = [mount]
    two["volumeMounts"] = [{**mount, "mountPath": "/sub", "subPath": "."}]
    done = run(pod(one, two, volumes=volumes, shareProcessNamespace=True))
    assert done.returncode == 128 + signal.SIGTERM, done
    assert done.stdout == "two: x\ntwo: roadstead-pause\n"
    two["volumeMounts"] = [{**mount, "subPath": "out"}]
    done = run(pod(one, two, volumes=volumes))
    assert "volume h: subPath out: Not a directory" in done.stderr, done
    assert done.returncode == 1


def test_resources_are_the_jobs_request(shared_engine: Engine, image: str) -> None:
    resources = {"requests": {"cpu": "600m"}, "limits": {"memory": "40Mi"}}
    containers = [sh(name, image, "true", resources=resources) for name in ("a", "b")]
    write(shared_engine, "pod.yaml", pod(*containers))
    shared_engine.account.write(
        shared_engine.work / "job.yaml",
        "#SBATCH --comment=mine -o out\n" + (shared_engine.work / "pod.yaml").read_text(),
    )
    done = shared_engine.run(["sbatch", "--parsable", "--wait", "job.yaml"]).check()
    shown = shared_engine.run(["scontrol", "show", "job", done.stdout.strip()]).check().stdout
    for word in ("JobName=test", "NumCPUs=2", "MinMemoryNode=80M", "Comment=mine"):
        assert word in shown
    done = shared_engine.run(["roadstead", "pod", "check", "pod.yaml"]).check()
    assert "--cpus-per-task=2 --mem=80M" in done.stdout


def test_a_container_that_cannot_start_and_one_that_is_never_ready(
    shared_engine: Engine, run: Run, image: str
) -> None:
    done = run(pod(sh("good", image, "true"), {**sh("bad", image, ""), "command": ["/no"]}))
    assert done.returncode == 127, done
    assert "container bad: /no: not found in the container" in done.stderr
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    web = sh("web", image, "sleep 60", readinessProbe=never)
    client = sh("client", image, "sleep 60")
    write(shared_engine, "pod.yaml", pod(web, client))
    started = shared_engine.popen(["roadstead", "pod", "run", "pod.yaml"])

    def state() -> dict[str, Any] | None:
        for each in shared_engine.runtime.glob("roadstead/steps/*/inner/test/status.json"):
            found = {c["name"]: c for c in json.loads(each.read_text())}
            if found["client"]["ready"] and found["web"]["started"]:
                return found
        return None

    found = waiting.eventually(state)
    assert not found["web"]["ready"]
    assert found["web"]["state"] == "running"
    shared_engine.run(["scancel", "-n", "test"]).check()
    done = shared_engine.finish(started)
    assert done.returncode == 128 + signal.SIGTERM, done


def test_jobs_and_several_pods(shared_engine: Engine, run: Run, image: str) -> None:
    """A Job's pods run until as many as completions have succeeded; pods of a manifest run beside
    each other in one allocation."""
    template = pod(sh("main", image, "echo $JOB_COMPLETION_INDEX"))
    spec = {"completions": 3, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 0}
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {**spec, "template": {"spec": template["spec"]}},
    }  # fmt: skip
    done = run(job).check()
    assert sorted(done.stdout.split("\n")[:3]) == [f"j-{n}/main: {n}" for n in range(3)]
    template["spec"]["containers"][0]["command"][2] = "exit 5"
    done = run(job)
    assert done.returncode == 5
    assert "job j: 1 of its pods have failed: it has too" in done.stderr
    both = [pod(sh("main", image, "hostname"), name=name) for name in ("one", "two")]
    done = run(*both).check()
    assert sorted(done.stdout.splitlines()) == ["one/main: one", "two/main: two"]


def test_parallel_steps_and_jobs_tied_by_dependency(shared_engine: Engine, image: str) -> None:
    """The two shapes of the Containers Guide."""
    for name in ("a", "b"):
        main = sh("main", image, "echo step $SLURM_STEP_ID; hostname")
        write(shared_engine, f"{name}.yaml", pod(main, name=name))
    script = "for f in a b; do roadstead pod run $f.yaml & done; wait"
    done = shared_engine.run(["salloc", "-n2", "sh", "-c", script]).check()
    assert sorted(done.stdout.splitlines()) == ["a", "b", "step 0", "step 1"]
    first = shared_engine.run(["sbatch", "--parsable", "-o", "a.out", "a.yaml"]).check()
    number = first.stdout.strip()
    shared_engine.run(["sbatch", "-W", "-d", f"afterok:{number}", "-o", "b.out", "b.yaml"]).check()
    assert (shared_engine.work / "b.out").read_text() == "step\nb\n"


@pytest.mark.parametrize("whom", ["runner", "supervisor"])
def test_kill_9_leaves_nothing(engine: Engine, whom: str) -> None:
    require("busybox", "crun")
    path = engine.account.own(bundle.make_rootfs(engine.work / "rootfs"))
    image = os.fspath(path)
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    containers = [sh(name, image, "touch /v/x; sleep 60", **mount) for name in ("a", "b")]
    document = pod(*containers, volumes=[{"name": "v", "emptyDir": {}}])
    write(engine, "pod.yaml", document)
    started = engine.popen(["roadstead", "pod", "run", "pod.yaml"])
    claim = waiting.eventually(
        lambda: next(engine.runtime.glob("roadstead/steps/*/claim.json"), None)
    )
    waiting.eventually(lambda: len([p for p in engine.processes() if "sleep 60" in str(p)]) == 2)
    killed = json.loads(claim.read_text())["pid"]
    if whom == "runner":
        names = {}
        for each in engine.processes():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                names[each.pid] = Path(f"/proc/{each.pid}/comm").read_text()
        killed = next(pid for pid, name in names.items() if name == "roadstead-pod\n")
    os.kill(killed, signal.SIGKILL)
    done = engine.finish(started)
    assert done.returncode == {"runner": 137, "supervisor": 125}[whom], done
    assert not [*engine.base.glob("tmp/*/pods/*")]
    assert pods_of(engine) == [("test", "Lost")]
    engine.run(["roadstead", "pod", "delete", "test"]).check()
    assert pods_of(engine) == []


def pods_of(engine: Engine) -> list[tuple[str, str]]:
    """What `roadstead pod ls` has: names and states."""
    told = json.loads(engine.run(["roadstead", "pod", "ls", "--json"]).check().stdout)
    return [(each["pod"], each["status"]) for each in told["pods"]]


def test_what_is_known_of_a_pod_when_it_is_over(engine: Engine) -> None:
    """As kubectl shows one that has Completed: its state, its containers', its logs by container;
    deleted, it is not known any more."""
    require("busybox", "crun")
    image = os.fspath(engine.account.own(bundle.make_rootfs(engine.work / "rootfs")))
    one = sh("one", image, "echo first; echo second")
    two = sh("two", image, "echo other; test -e /v/x || { touch /v/x; exit 4; }")
    two["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    volumes = [{"name": "v", "emptyDir": {}}]
    write(engine, "pod.yaml", pod(one, two, volumes=volumes, restartPolicy="OnFailure"))
    done = engine.run(["sbatch", "--parsable", "-W", "-o", "out", "pod.yaml"]).check()
    job = done.stdout.strip()
    said = engine.run(["roadstead", "pod", "ls"]).check().stdout.splitlines()
    assert said[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "JOB", "NODE"]
    assert said[1].split()[:4] == ["test", "0/2", "Completed", "1"], said
    assert said[1].split()[5] == f"{job}.batch"
    said = engine.run(["roadstead", "pod", "status", f"{job}/test"]).check().stdout.splitlines()
    assert "Status:   Completed, exit code 0" in said
    assert f"Output:   {engine.work}/out" in said
    assert said[-1].split() == ["two", "main", "ended", "false", "1", "0", image]
    logs = ["roadstead", "pod", "logs", "test"]
    first = engine.run(logs).check()
    assert first.stdout == "first\nsecond\n"
    assert first.stderr == "roadstead: the log of one, of one, two (-c chooses)\n"
    assert engine.run([*logs, "-c", "two"]).check().stdout == "other\nother\n"
    every = engine.run([*logs, "--all-containers"]).check().stdout
    assert sorted(every.splitlines()) == [
        "one: first", "one: second", "two: other", "two: other"
    ]  # fmt: skip
    assert engine.run(["roadstead", "pod", "delete", "test"]).check().stdout == (
        "pod test deleted\n"
    )
    for command in (["status", "test"], ["logs", "test"], ["delete", "test"]):
        done = engine.run(["roadstead", "pod", *command])
        assert (done.returncode, done.stderr) == (
            1,
            "roadstead: error: no pod test is known; roadstead pod ls lists them\n",
        )


def test_a_pod_is_deleted_and_the_one_beside_it_is_not(engine: Engine) -> None:
    """The first by a signal, as they share a step; the last by the engine, as CANCELLED."""
    require("busybox", "crun")
    image = os.fspath(engine.account.own(bundle.make_rootfs(engine.work / "rootfs")))
    script = "trap 'echo bye; exit 0' TERM; touch /tmp/up; sleep 60 & wait"
    ready = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1}
    documents = [
        pod(sh("main", image, script, readinessProbe=ready), name=name) for name in ("a", "b")
    ]
    write(engine, "pod.yaml", *documents)
    job = engine.run(["sbatch", "--parsable", "-o", "out", "pod.yaml"]).check().stdout.strip()

    def ready_ones() -> list[str]:
        said = engine.run(["roadstead", "pod", "ls"]).check().stdout.splitlines()
        return [line.split()[0] for line in said if line.split()[1:3] == ["1/1", "Running"]]

    waiting.eventually(lambda: sorted(ready_ones()) == ["a", "b"], timeout=30)
    engine.run(["roadstead", "pod", "delete", "a"]).check()
    assert pods_of(engine) == [("b", "Running")]
    engine.run(["roadstead", "pod", "delete", "b"]).check()
    assert pods_of(engine) == []
    said = (engine.work / "out").read_text().splitlines()
    assert {"a/main: bye", "b/main: bye"} <= set(said), said
    waiting.eventually(lambda: not engine.run(["squeue", "-h"]).stdout, timeout=30)
    done = engine.run(["scontrol", "show", "job", job]).check()
    assert "JobState=CANCELLED" in done.stdout, done


@pytest.fixture
def memory_group(account: Account) -> Iterator[list[Path]]:
    """A group of the account's; made before the engine, to outlive it."""
    with delegation(account, "memory") as groups:
        yield groups


def run_two_that_take_memory(engine: Engine) -> tuple[Completed, dict[str, int]]:
    """A pod of one container with a limit, and one that has none and takes as much; and their
    exit codes."""
    require("busybox", "crun")
    image = os.fspath(engine.account.own(bundle.make_rootfs(engine.work / "rootfs")))
    limits = {"resources": {"limits": {"memory": "40Mi", "cpu": "1"}}}
    hog = "head -c 100m /dev/zero | tail -c 100m > /dev/null"
    write(engine, "pod.yaml", pod(sh("small", image, hog, **limits), sh("large", image, hog)))
    done = engine.run(["roadstead", "pod", "run", "pod.yaml"])
    told = engine.run(["roadstead", "pod", "status", "--json", "test"]).check().stdout
    return done, {each["name"]: each["code"] for each in json.loads(told)["containers"]}


def test_a_limit_is_that_of_its_container(memory_group: list[Path], engine: Engine) -> None:
    """Held by the runtime for root, by a group of the user's where there can be one."""
    enter(engine, memory_group)
    done, codes = run_two_that_take_memory(engine)
    assert codes == {"small": 137, "large": 0}, done
    assert done.returncode == 137
    if engine.account.uid:
        words = "container small: the kernel has killed a process of it for want of memory"
        assert words in done.stderr, done
    assert not list(memory_group[0].glob("*pod*")), "groups are left"


def test_a_limit_that_nothing_holds_is_told(engine: Engine) -> None:
    if engine.account.uid == 0:
        pytest.skip("root has all groups")
    done, codes = run_two_that_take_memory(engine)
    assert codes == {"small": 0, "large": 0}, done
    assert "warning: limits.memory of small holds for the job as a whole" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("way", ["out", "none"])
def test_a_pod_reaches_the_outside_where_the_node_has_the_means(engine: Engine, way: str) -> None:
    """By slirp4netns, if a tun device can be opened, and there is no pasta on PATH or anything
    else; without it the pod has a loopback interface alone."""
    require("busybox", "crun", "address", "util-linux", "slirp4netns", "tun")
    account = engine.account
    image = os.fspath(account.own(bundle.make_rootfs(engine.work / "rootfs")))
    tools = account.mkdir(engine.base / "tools")
    for name in ("sh", "env", "crun", *(["slirp4netns"] if way == "out" else [])):
        (tools / name).symlink_to(program(name) or shutil.which(name) or "")
    with outside.greeter() as (host, port):
        ask = f"nc -w 20 {host} {port} || echo unreachable; ls /proc/sys/net/ipv4/conf"
        env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
        write(engine, "pod.yaml", pod(sh("main", image, f"echo $IP; {ask}", env=env)))
        run = ["env", f"PATH={engine.shims}:{tools}", "roadstead", "pod", "run"]
        done = outside.run(engine, [*run, f"{engine.work}/pod.yaml"])
    said = done.stdout.split()
    if way == "out":
        assert said == ["10.0.2.100", "hello", "all", "default", "lo", "tap0"], done
    else:
        assert said == ["127.0.0.1", "unreachable", "all", "default", "lo"], done


def test_a_port_of_the_node_leads_into_the_pod(shared_engine: Engine, run: Run, image: str) -> None:
    """While the pod runs, and not after; one that is taken is said by its container."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = [{"containerPort": 8080, "hostPort": port, "hostIP": "127.0.0.1"}]
        web = sh("web", image, "nc -l -p 8080 -e cat /etc/hostname", ports=ports)
        done = run(pod(web))
        assert done.returncode == 1, done
        assert f"container web: hostPort {port}: Address already in use" in done.stderr
    write(shared_engine, "pod.yaml", pod(web))
    started = shared_engine.popen(["roadstead", "pod", "run", "pod.yaml"])
    assert waiting.eventually(lambda: answer(port), timeout=30) == b"test\n"
    assert shared_engine.finish(started).returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def answer(port: int) -> bytes:
    """What somebody says who listens there; nothing where nobody does yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as found:
            return found.recv(100)
    except (ConnectionRefusedError, ConnectionResetError):
        return b""


def test_what_is_wrong_has_one_sentence(shared_engine: Engine, image: str) -> None:
    write(shared_engine, "bad.yaml", pod(sh("a", image, ""), sh("b", image, "", foo=1)))
    for command in (["roadstead", "pod", "run"], ["sbatch"]):
        done = shared_engine.run([*command, "bad.yaml"])
        assert done.returncode == 1
        assert done.stderr == (
            f"{command[0]}: error: bad.yaml: spec.containers[1].foo: not supported\n"
        )
    write(shared_engine, "gone.yaml", pod({**sh("a", "/no/image", "true")}))
    done = shared_engine.run(["roadstead", "pod", "run", "gone.yaml"])
    assert (done.returncode, done.stdout) == (1, ""), done
