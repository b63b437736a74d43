"""Manifests of pods: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.errors import RequestError
from roadstead.pods import check, course, documents, fields, manifest, plan
from roadstead.pods.model import Image, Job, Plan
from tests.support.components import ROOT

C: dict[str, Any] = {"name": "a", "image": "x"}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"app": "l"}, "annotations": {"n": "v"}},
        "spec": {"containers": list(containers) or [C], **spec},
    }


def of(*found: dict[str, Any]) -> Job:
    jobs, _ = manifest.read([("f.yaml", each) for each in found])
    return jobs[-1]


def named(kind: str, name: str, **data: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **data}


WRONG = [
    (pod({**C, "foo": 1}), "spec.containers[0].foo: not supported"),
    (pod(C, {**C, "name": "b", "Env": []}), "spec.containers[1].Env: not supported"),
    (pod(nodeSelector={"a": "b"}), "spec.nodeSelector: not supported"),
    (pod({**C, "args": "x"}), "spec.containers[0].args: not an array of strings"),
    (pod({**C, "args": [1]}), "spec.containers[0].args: not an array of strings"),
    (
        pod({**C, "env": [{"name": "A", "value": 1}]}),
        "spec.containers[0].env[0].value: not a string",
    ),
    (pod(C, C), "spec.containers[1].name: there are two containers a"),
    (pod({"name": "a"}), "spec.containers[0].image: missing"),
    (pod({"image": "x"}), "spec.containers[0].name: missing"),
    (pod(containers=[]), "spec.containers: a pod has one at least"),
    (pod(restartPolicy="Sometimes"), "spec.restartPolicy: 'Sometimes' is none of"),
    (pod({**C, "tty": True}), "spec.containers[0].tty: not supported"),
    (
        pod({**C, "securityContext": {"privileged": True}}),
        "securityContext.privileged: no container",
    ),
    (pod({**C, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}), "mounts 'v': no such volume"),
    (
        pod({**C, "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "../x"}]}),
        "volumeMounts[0].subPath: '../x' is not a path below the volume",
    ),
    (pod(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]), "sizeLimit: not supported"),
    (pod(volumes=[{"name": "v", "persistentVolumeClaim": {}}]), "persistentVolumeClaim: not supp"),
    (pod(volumes=[{"name": "v", "configMap": {"name": "m"}}]), "there is no ConfigMap m"),
    (pod(volumes=[{"name": "v"}]), "spec.volumes[0]: a volume is of one kind"),
    (pod({**C, "livenessProbe": {}}), "spec.containers[0].livenessProbe: wants one of exec"),
    (
        pod({**C, "livenessProbe": {"tcpSocket": {"port": "web"}}}),
        "livenessProbe.tcpSocket.port: the container has no port of the name 'web'",
    ),
    (pod({**C, "resources": {"limits": {"cpu": "much"}}}), "limits.cpu: 'much' is not a quantity"),
    (
        pod({**C, "resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}}),
        "resources.requests.cpu: is more than the limit",
    ),
    (pod({**C, "resources": {"limits": {"example.com/x": 1}}}), "example.com/x: not supported"),
    (
        pod({**C, "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
        "env[0].valueFrom.fieldRef.fieldPath: spec.x is not supported",
    ),
    (pod({**C, "restartPolicy": "Always"}), "spec.containers[0].restartPolicy: not supported"),
    (
        pod(initContainers=[{**C, "name": "i", "readinessProbe": {"exec": {"command": ["x"]}}}]),
        "spec.initContainers[0].readinessProbe: not for an init container",
    ),
    ({"apiVersion": "apps/v1", "kind": "Deployment"}, "kind Deployment of apiVersion apps/v1 is"),
    ([1], "not a Kubernetes object"),
    ({**pod(), "metadata": {}}, "metadata.name: missing"),
    ({**pod(), "metadata": {"name": "A B"}}, "metadata.name: 'A B' is not a name"),
    (named("Secret", "s", data={"k": "?"}), "data.k: not base64"),
    # What somebody might have meant badly.
    ({"apiVersion": "v1", "kind": ["Pod"]}, "kind ['Pod'] of apiVersion v1 is not supported"),
    ({**pod(), "metadata": {"name": "../../x"}}, "metadata.name: '../../x' is not a name"),
    ({**pod(), "metadata": {"name": "a..b"}}, "metadata.name: 'a..b' is not a name"),
    ({**pod(), "metadata": {"name": "a" * 201}}, "is not a name"),
    ({**pod(), "metadata": {"name": "a\n"}}, "metadata.name: 'a\\n' is not a name"),
    (pod({**C, "name": "a;reboot"}), "spec.containers[0].name: 'a;reboot' is not a name"),
    (pod({**C, "name": "$(id)"}), "spec.containers[0].name: '$(id)' is not a name"),
    (pod({**C, "a\n\x1b[2J": 1}), "spec.containers[0].a??[2J: not supported"),
    (pod({**C, "image": "x\ny"}), "spec.containers[0].image: 'x\\ny' is not one line"),
    (pod({**C, "command": ["a\0b"]}), "spec.containers[0].command: has a zero byte in it"),
    (pod({**C, "args": ["\ud800"]}), "spec.containers[0].args: has half a surrogate pair"),
    (named("ConfigMap", "m", data={"k": "\udfff"}), "data: has half a surrogate pair"),
    (pod(activeDeadlineSeconds=10**22), "spec.activeDeadlineSeconds: 100"),
    (pod({**C, "resources": {"limits": {"memory": "1e999"}}}), "'1e999' is more than there is"),
    (pod(volumes=[{"name": "v", "hostPath": {"path": "/tmp/../etc"}}]), "hostPath.path: '/tmp/.."),
    (pod(volumes=[{"name": "v", "hostPath": {"path": "/\0"}}]), "hostPath.path: has a zero byte"),
    (
        pod({**C, "volumeMounts": [{"name": "v", "mountPath": "/a/../.."}]}),
        "volumeMounts[0].mountPath: '/a/../..' is not an absolute path",
    ),
    (
        pod(
            {**C, "volumeMounts": [{"name": "v", "mountPath": "/a"}] * 2},
            volumes=[{"name": "v", "emptyDir": {}}],
        ),
        "container a mounts twice at '/a'",
    ),
    (
        pod(hostAliases=[{"ip": "1.2.3.4\n6.6.6.6 x", "hostnames": ["a"]}]),
        "spec.hostAliases[0].ip: '1.2.3.4\\n6.6.6.6 x' is not an address",
    ),
    (
        pod(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a b"]}]),
        "spec.hostAliases[0].hostnames[0]: 'a b' is not a host's name",
    ),
    (
        pod({**C, "livenessProbe": {"httpGet": {"port": 1, "path": "/\r\nX: y"}}}),
        "livenessProbe.httpGet.path: '/\\r\\nX: y' is not a path of HTTP",
    ),
    (
        pod({**C, "livenessProbe": {"tcpSocket": {"port": 1, "host": "a\nb"}}}),
        "livenessProbe.tcpSocket.host: 'a\\nb' is not a host's name",
    ),
    (
        pod({**C, "ports": [{"containerPort": 1, "hostPort": 1, "protocol": "UDP"}]}),
        "container a: hostPort 1: only TCP reaches a pod's own network",
    ),
    (
        pod({**C, "ports": [{"containerPort": 1, "hostPort": 1}] * 2}),
        "container a: hostPort 1 is there twice",
    ),
    (
        pod({**C, "ports": [{"containerPort": 1, "hostPort": 1, "hostIP": "::1"}]}),
        "ports[0].hostIP: '::1' is not an IPv4 address",
    ),
    (
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "j"},
            "spec": {
                "completions": 10**9,
                "template": {"spec": {"restartPolicy": "Never", "containers": [C]}},
            },
        },
        "spec.completions: 1000000000 is more than 100000",
    ),
]


@pytest.mark.parametrize(("document", "sentence"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named_by_its_path(document: Any, sentence: str) -> None:
    with pytest.raises(RequestError, match=r"^f\.yaml") as caught:
        manifest.read([("f.yaml", document)])
    assert sentence in str(caught.value)


def test_a_name_in_other_letters_and_a_loose_scalar_have_a_hint() -> None:
    for document, hint in (
        (pod({**C, "volumemounts": []}), "its name is volumeMounts"),
        (pod({**C, "env": [{"name": "A", "value": True}]}), 'put it in quotes: "true"'),
    ):
        with pytest.raises(RequestError) as caught:
            manifest.read([("f.yaml", document)])
        assert caught.value.hint == hint


def test_values_come_from_everywhere() -> None:
    refs: list[tuple[str, dict[str, Any]]] = [
        ("M", {"configMapKeyRef": {"name": "m", "key": "k"}}),
        ("S", {"secretKeyRef": {"name": "s", "key": "k"}}),
        ("NONE", {"secretKeyRef": {"name": "t", "key": "k", "optional": True}}),
        ("NAME", {"fieldRef": {"fieldPath": "metadata.name"}}),
        ("LABEL", {"fieldRef": {"fieldPath": "metadata.labels['app']"}}),
        ("NODE", {"fieldRef": {"fieldPath": "spec.nodeName"}}),
        ("CPU", {"resourceFieldRef": {"resource": "requests.cpu"}}),
        ("MEM", {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}),
    ]
    container = {
        **C,
        "resources": {"requests": {"cpu": "1500m"}, "limits": {"memory": "64Mi"}},
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
        "env": [{"name": name, "valueFrom": source} for name, source in refs],
    }
    job = of(
        named("ConfigMap", "m", data={"k": "v"}),
        named("Secret", "s", data={"k": base64.b64encode(b"w").decode()}, stringData={"l": "x"}),
        pod(container),
    )
    found = {each.name: each.value or each.field for each in job.pod.containers[0].env}
    assert found == {
        "P_k": "v", "M": "v", "S": "w", "NAME": "p", "LABEL": "l", "NODE": "spec.nodeName",
        "CPU": "2", "MEM": "64",
    }  # fmt: skip


def test_files_of_volumes() -> None:
    volume = {
        "name": "v",
        "projected": {
            "defaultMode": 0o400,
            "sources": [
                {"configMap": {"name": "m", "items": [{"key": "k", "path": "d/f", "mode": 0o600}]}},
                {
                    "downwardAPI": {
                        "items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]
                    }
                },
            ],
        },
    }
    made = of(named("ConfigMap", "m", data={"k": "v"}), pod(volumes=[volume])).pod.volumes[0]
    assert [(f.path, base64.b64decode(f.data), f.mode) for f in made.files] == [
        ("d/f", b"v", 0o600),
        ("l", b'app="l"', 0o400),
    ]


def resources(cpu: str, memory: str = "") -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}, "limits": {"memory": memory} if memory else {}}}


@pytest.mark.parametrize(
    ("main", "init", "wanted"),
    [
        ([resources("1"), resources("1500m")], [], {"cpus-per-task": "3"}),
        (
            [resources("1", "64Mi"), resources("1", "1Gi")],
            [],
            {"cpus-per-task": "2", "mem": "1088M"},
        ),
        ([resources("1", "64Mi"), resources("1")], [], {"cpus-per-task": "2"}),
        ([resources("1")], [resources("4")], {"cpus-per-task": "4"}),
        ([resources("1")], [{**resources("2"), "restartPolicy": "Always"}], {"cpus-per-task": "3"}),
        ([{"resources": {"limits": {"nvidia.com/gpu": 2}}}], [], {"gres": "gpu:2"}),
        ([{}], [], {}),
    ],
)
def test_what_the_job_asks_for(
    main: list[dict[str, Any]], init: list[dict[str, Any]], wanted: dict[str, str]
) -> None:
    document = pod(
        *[{**C, **each, "name": f"m{n}"} for n, each in enumerate(main)],
        initContainers=[{**C, **each, "name": f"i{n}"} for n, each in enumerate(init)],
    )
    assert plan.options([of(document)]) == {"job-name": "p", "ntasks": "1", "nodes": "1", **wanted}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("500m", 0.5),
        ("1e3", 1000),
        ("2Ki", 2048),
        ("1.5Gi", 1.5 * 2**30),
        ("3E", 3e18),
        (2, 2),
    ],
)
def test_quantities(text: Any, value: float) -> None:
    assert check.quantity("", text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$(A) b", "x b"),
        ("$(B)", "$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$x"),
        ("$(A", "$(A"),
        ("a$", "a$"),
        ("$A", "$A"),
    ],
)
def test_variables_in_commands(text: str, value: str) -> None:
    assert plan.expand(text, {"A": "x"}) == value


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_a_plan_travels_whole(text: str, words: list[str]) -> None:
    words = [word.replace("\0", "0") for word in words]
    found = of(
        pod({**C, "command": words, "env": [{"name": "A", "value": text.replace("\0", "")}]})
    )
    whole = Plan(jobs=(found,), images=(Image(reference="x", bundle="/x"),))
    assert plan.of_script(plan.script(whole, ["py", "-c", "a 'b'"])) == whole
    assert plan.of_environment(plan.environment(whole)) == whole


# -- the course of a pod ---------------------------------------------------------------------------


def follow(document: dict[str, Any], *events: str) -> list[str]:
    """The orders that follow each event: "a=0" is the end of a, "a+" its start, or "stop"."""
    followed = course.Course(of(document).pod)
    every: list[str] = []

    def obey(orders: list[course.Order]) -> None:
        said: list[str] = []
        for order in orders:
            match order:
                case course.Start(name, delay):
                    said.append(f"start {name}" + (f" in {delay:g}" if delay else ""))
                    assert followed.starts(name)
                case course.Stop(name):
                    said.append(f"stop {name}")
                case course.Done(code):
                    said.append(f"done {code}")
        every.append(" ".join(said))

    obey(followed.begin())
    for event in events:
        if event == "stop":
            obey(followed.stop("signal"))
        elif event.endswith("+"):
            obey(followed.started(event[:-1]))
        else:
            name, _, code = event.partition("=")
            obey(followed.ended(name, int(code), 1))
    return every


INIT = {"initContainers": [{**C, "name": "i"}, {**C, "name": "j"}]}
SIDE = {"initContainers": [{**C, "name": "s", "restartPolicy": "Always"}, {**C, "name": "j"}]}
TWO = pod(C, {**C, "name": "b"}, restartPolicy="Never")


@pytest.mark.parametrize(
    ("document", "events", "orders"),
    [
        (TWO, ["a=0", "b=3"], ["start a start b", "", "done 3"]),
        (
            pod(C, restartPolicy="Never", **INIT),
            ["i=0", "j=0", "a=0"],
            ["start i", "start j", "start a", "done 0"],
        ),
        (pod(C, restartPolicy="Never", **INIT), ["i=4"], ["start i", "done 4"]),
        (
            pod(C, restartPolicy="OnFailure", **INIT),
            ["i=4", "i=0", "j=0", "a=1", "a=1", "a=0"],
            ["start i", "start i", "start j", "start a", "start a", "start a in 10", "done 0"],
        ),
        (pod(C), ["a=0", "a=0", "a=1"], ["start a", "start a", "start a in 10", "start a in 20"]),
        (
            pod(C, restartPolicy="Never", **SIDE),
            ["s+", "j=0", "s=1", "s+", "a=5", "s=143"],
            ["start s", "start j", "start a", "start s", "", "stop s", "done 5"],
        ),
        (pod(C), ["stop", "a=143"], ["start a", "stop a", "done 143"]),
        (pod(C, restartPolicy="Never"), ["stop", "a=0"], ["start a", "stop a", "done 1"]),
        (
            pod(C, **SIDE),
            ["s+", "j=0", "stop", "a=143", "s=143"],
            ["start s", "start j", "start a", "stop a", "stop s", "done 143"],
        ),
    ],
)
def test_the_course_of_a_pod(
    document: dict[str, Any], events: list[str], orders: list[str]
) -> None:
    assert follow(document, *events) == orders


# Nine times nine times …: a kilobyte of it is a gigabyte.
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{above}'])}]\n"
    for above, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_a_sentence_is_one_line_and_no_longer_than_can_be_read() -> None:
    with pytest.raises(RequestError) as caught:
        of(pod({**C, "name": "a\n" * 5000}))
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_the_documents_of_a_file() -> None:
    text = "apiVersion: v1\nkind: Pod\n---\n---\napiVersion: v1\nkind: ConfigMap\n"
    assert [where for where, _ in documents.documents("f", text)] == [
        "f (document 1)",
        "f (document 2)",
    ]
    assert documents.documents("f", '{"kind": "List", "items": [1]}') == [("f", 1)]
    for wrong, sentence in (
        ("a: [", "f:1: not YAML"),
        ("a: 1\na: 2\n", "f:2: not YAML: a is given twice"),
        ("a: !!python/object:os.system x\n", "f:1: not YAML"),
        ('{"a": 1, "a": 2}', "f: not JSON: a is given twice"),
        ('{"apiVersion": ', "f:1: not YAML"),
        ("? [a]\n: b\n", "f:1: not YAML: a key that is no word"),
        ("a: " + "9" * 5000, "f: not YAML: Exceeds the limit"),
        ("[" * 100_000, "f: nested deeper than 32 levels"),
        ("a: " + "[" * 500 + "]" * 500, "f: nested deeper than 32 levels"),
        ("".join(f"{' ' * n}a:\n" for n in range(1500)), "f: nested deeper than 32 levels"),
        ("&a [*a]", "f: nested deeper than 32 levels"),
        (BOMB, "f: has more than 1000000 values in it, aliases counted"),
        ("a: b\n" * 1_000_000, "f is larger than 3 MiB"),
    ):
        with pytest.raises(RequestError, match=sentence):
            documents.documents("f", wrong)


def test_the_table_of_the_documentation_is_the_one_that_would_be_made() -> None:
    text = (ROOT / "docs" / "pods.md").read_text()
    assert text == fields.page(text), "run script/man"


def test_documents_are_not_changed() -> None:
    document = pod({**C, "resources": {"limits": {"cpu": "1"}}})
    before = copy.deepcopy(document)
    of(document)
    assert document == before
