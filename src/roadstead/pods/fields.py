"""The fields of a manifest that mean something here: one table, by which manifests are checked and
docs/pods.md is held to be complete.

A value is the kind of what stands there: a word for a scalar, a mapping for an object, a list of
one for an array.  ``Unused`` is for what is accepted and does nothing on this engine, with the
reason; all else is refused by its path.  Names and types are those of the Kubernetes API reference
(core/v1, batch/v1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Unused:
    """A field that is accepted and cannot matter here."""

    why: str


STRING: Final = "a string"
INTEGER: Final = "a number"
BOOLEAN: Final = "true or false"
STRINGS: Final = "an array of strings"
MAP: Final = "an object of strings"
QUANTITIES: Final = "an object of quantities"
PORT: Final = "a port's number or name"
QUANTITY: Final = "a quantity"
EMPTY: Final = "an object"

Schema = dict[str, Any]

_NO_CLUSTER: Final = Unused("there is no cluster that would look at it")
_WRITTEN: Final = Unused("written by a cluster, not by people")
_ONE_OWNER: Final = Unused("files of a pod belong to the user who runs it")

_METADATA: Final[Schema] = {
    "name": STRING,
    "namespace": STRING,
    "labels": MAP,
    "annotations": MAP,
    "generateName": STRING,
    "creationTimestamp": _WRITTEN,
    "generation": _WRITTEN,
    "managedFields": _WRITTEN,
    "ownerReferences": _WRITTEN,
    "resourceVersion": _WRITTEN,
    "selfLink": _WRITTEN,
    "uid": _WRITTEN,
}
_TOP: Final[Schema] = {"apiVersion": STRING, "kind": STRING, "metadata": _METADATA}

_HTTP: Final[Schema] = {
    "host": STRING,
    "httpHeaders": [{"name": STRING, "value": STRING}],
    "path": STRING,
    "port": PORT,
    "scheme": STRING,
}
_HANDLER: Final[Schema] = {
    "exec": {"command": STRINGS},
    "httpGet": _HTTP,
    "tcpSocket": {"host": STRING, "port": PORT},
}
_PROBE: Final[Schema] = {
    **_HANDLER,
    "failureThreshold": INTEGER,
    "initialDelaySeconds": INTEGER,
    "periodSeconds": INTEGER,
    "successThreshold": INTEGER,
    "terminationGracePeriodSeconds": INTEGER,
    "timeoutSeconds": INTEGER,
}
_HOOK: Final[Schema] = {**_HANDLER, "sleep": {"seconds": INTEGER}}

_KEY_OF: Final[Schema] = {"key": STRING, "name": STRING, "optional": BOOLEAN}
_FIELD_REF: Final[Schema] = {"apiVersion": STRING, "fieldPath": STRING}
_RESOURCE_REF: Final[Schema] = {"containerName": STRING, "divisor": QUANTITY, "resource": STRING}
_VALUE_FROM: Final[Schema] = {
    "configMapKeyRef": _KEY_OF,
    "fieldRef": _FIELD_REF,
    "resourceFieldRef": _RESOURCE_REF,
    "secretKeyRef": _KEY_OF,
}
_SOURCE: Final[Schema] = {"name": STRING, "optional": BOOLEAN}

_SECURITY: Final[Schema] = {
    "allowPrivilegeEscalation": BOOLEAN,
    "capabilities": {"drop": STRINGS},
    "privileged": BOOLEAN,
    "readOnlyRootFilesystem": BOOLEAN,
    "runAsGroup": INTEGER,
    "runAsNonRoot": BOOLEAN,
    "runAsUser": INTEGER,
    "seccompProfile": Unused("the runtime's own profile, or none, counts"),
}
CONTAINER: Final[Schema] = {
    "args": STRINGS,
    "command": STRINGS,
    "env": [{"name": STRING, "value": STRING, "valueFrom": _VALUE_FROM}],
    "envFrom": [{"configMapRef": _SOURCE, "prefix": STRING, "secretRef": _SOURCE}],
    "image": STRING,
    "imagePullPolicy": STRING,
    "lifecycle": {"postStart": _HOOK, "preStop": _HOOK},
    "livenessProbe": _PROBE,
    "name": STRING,
    "ports": [
        {
            "containerPort": INTEGER,
            "hostIP": STRING,
            "hostPort": INTEGER,
            "name": STRING,
            "protocol": STRING,
        }
    ],
    "readinessProbe": _PROBE,
    "resources": {"limits": QUANTITIES, "requests": QUANTITIES},
    "restartPolicy": STRING,
    "securityContext": _SECURITY,
    "startupProbe": _PROBE,
    "stdin": BOOLEAN,
    "stdinOnce": BOOLEAN,
    "terminationMessagePath": Unused("a container's last words are in its log"),
    "terminationMessagePolicy": Unused("a container's last words are in its log"),
    "tty": BOOLEAN,
    "volumeMounts": [
        {
            "mountPath": STRING,
            "mountPropagation": STRING,
            "name": STRING,
            "readOnly": BOOLEAN,
            "subPath": STRING,
        }
    ],
    "workingDir": STRING,
}

_ITEMS: Final[list[Schema]] = [{"key": STRING, "mode": INTEGER, "path": STRING}]
_FILES_OF: Final[Schema] = {"items": _ITEMS, "optional": BOOLEAN}
_DOWNWARD: Final[list[Schema]] = [
    {"fieldRef": _FIELD_REF, "mode": INTEGER, "path": STRING, "resourceFieldRef": _RESOURCE_REF}
]
_VOLUME: Final[Schema] = {
    "configMap": {**_FILES_OF, "name": STRING, "defaultMode": INTEGER},
    "downwardAPI": {"defaultMode": INTEGER, "items": _DOWNWARD},
    "emptyDir": {"medium": STRING, "sizeLimit": QUANTITY},
    "hostPath": {"path": STRING, "type": STRING},
    "name": STRING,
    "projected": {
        "defaultMode": INTEGER,
        "sources": [
            {
                "configMap": {**_FILES_OF, "name": STRING},
                "downwardAPI": {"items": _DOWNWARD},
                "secret": {**_FILES_OF, "name": STRING},
            }
        ],
    },
    "secret": {**_FILES_OF, "secretName": STRING, "defaultMode": INTEGER},
}

POD_SPEC: Final[Schema] = {
    "activeDeadlineSeconds": INTEGER,
    "automountServiceAccountToken": _NO_CLUSTER,
    "containers": [CONTAINER],
    "dnsPolicy": Unused("names are looked up as on the node"),
    "enableServiceLinks": _NO_CLUSTER,
    "hostAliases": [{"hostnames": STRINGS, "ip": STRING}],
    "hostIPC": BOOLEAN,
    "hostNetwork": BOOLEAN,
    "hostPID": BOOLEAN,
    "hostname": STRING,
    "imagePullSecrets": Unused("images are fetched with the login of the user who submits"),
    "initContainers": [CONTAINER],
    "preemptionPolicy": _NO_CLUSTER,
    "priority": _NO_CLUSTER,
    "priorityClassName": _NO_CLUSTER,
    "restartPolicy": STRING,
    "schedulerName": _NO_CLUSTER,
    "securityContext": {
        "fsGroup": _ONE_OWNER,
        "fsGroupChangePolicy": _ONE_OWNER,
        "runAsGroup": INTEGER,
        "runAsNonRoot": BOOLEAN,
        "runAsUser": INTEGER,
        "seccompProfile": Unused("the runtime's own profile, or none, counts"),
        "supplementalGroups": _ONE_OWNER,
    },
    "serviceAccount": _NO_CLUSTER,
    "serviceAccountName": _NO_CLUSTER,
    "shareProcessNamespace": BOOLEAN,
    "terminationGracePeriodSeconds": INTEGER,
    "volumes": [_VOLUME],
}

KINDS: Final[dict[tuple[str, str], Schema]] = {
    ("v1", "Pod"): {**_TOP, "spec": POD_SPEC, "status": _WRITTEN},
    ("v1", "ConfigMap"): {
        **_TOP,
        "binaryData": MAP,
        "data": MAP,
        "immutable": Unused("what a job was given does not change"),
    },
    ("v1", "Secret"): {
        **_TOP,
        "data": MAP,
        "immutable": Unused("what a job was given does not change"),
        "stringData": MAP,
        "type": STRING,
    },
    ("batch/v1", "Job"): {
        **_TOP,
        "spec": {
            "activeDeadlineSeconds": INTEGER,
            "backoffLimit": INTEGER,
            "completionMode": STRING,
            "completions": INTEGER,
            "parallelism": INTEGER,
            "template": {"metadata": _METADATA, "spec": POD_SPEC},
            "ttlSecondsAfterFinished": Unused("accounting keeps what has ended"),
        },
        "status": _WRITTEN,
    },
}


def paths(schema: Any, above: str = "") -> dict[str, str]:
    """Every field below a schema by its path, with [] for each array, and its kind or, of one that
    is not used, why."""
    found: dict[str, str] = {}
    for name, kind in schema.items():
        path = f"{above}.{name}" if above else name
        if isinstance(kind, list):
            path, kind = f"{path}[]", kind[0]
        if isinstance(kind, dict):
            found |= paths(kind, path)
        else:
            found[path] = f"not used: {kind.why}" if isinstance(kind, Unused) else str(kind)
    return found


def table() -> str:
    """The fields as docs/pods.md has them: a Markdown table for each kind of document."""
    lines: list[str] = []
    for (version, kind), schema in KINDS.items():
        lines += [f"### {kind} ({version})", "", "| field | |", "|---|---|"]
        template = "spec.template.spec."
        rows = paths(schema).items()
        lines += [f"| `{path}` | {what} |" for path, what in rows if not path.startswith(template)]
        if any(path.startswith(template) for path, _ in rows):
            lines.append(f"| `{template}…` | as a Pod's `spec` |")
        lines.append("")
    return "\n".join(lines)


MARKS: Final = ("<!-- made by script/man from pods/fields.py -->\n", "<!-- end -->\n")


def page(text: str) -> str:
    """docs/pods.md with its table made anew."""
    before, _, rest = text.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"
