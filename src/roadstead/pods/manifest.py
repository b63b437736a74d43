"""Documents into Jobs: what a Pod or a Job means, with its ConfigMaps and Secrets.

Pure.  Each document has passed check.py, so the types are right here; what is looked at is whether
it makes sense.  Defaults are those of the Kubernetes API reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, cast, get_args

from roadstead.pods import check, sources
from roadstead.pods.check import wrong
from roadstead.pods.model import (
    Container,
    Handler,
    Job,
    Pod,
    Port,
    Probe,
    Resources,
    Restart,
    Role,
    Variable,
    Volume,
    VolumeMount,
)
from roadstead.pods.sources import Downward, Sources

_PART: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME: Final = re.compile(rf"(?=.{{1,200}}\Z){_PART}(\.{_PART})*")  # names files, with more
_HOST: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?")
_IP: Final = re.compile(r"[0-9a-fA-F:.]{2,45}")
_IPV4: Final = re.compile(r"([0-9]{1,3}\.){3}[0-9]{1,3}")
_MOST_PODS: Final = 100_000  # batch/v1 has this many of an indexed Job at a time
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_GPUS: Final = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe")
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage", *_GPUS)
_HOST_TYPES: Final = ("", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_SOURCES: Final = ("configMap", "secret", "downwardAPI", "projected")
_PORTS: Final = range(1, 65536)
_BACKOFF: Final = 6  # batch/v1, JobSpec.backoffLimit


def read(documents: Iterable[tuple[str, Any]]) -> tuple[list[Job], list[tuple[str, str]]]:
    """The pods and jobs of some documents, each given with where it is from; and the fields that do
    nothing here, with the reasons.  Raises RequestError."""
    known = Sources()
    wanted: list[tuple[str, dict[str, Any]]] = []
    unused: list[tuple[str, str]] = []
    for where, node in documents:
        document, silent = check.document(where, node)
        unused += [(f"{where}: {path}", why) for path, why in silent]
        if document["kind"] in ("ConfigMap", "Secret"):
            known.add(where, document)
        else:
            wanted.append((where, document))
    jobs = [
        _job(where, each, known) if each["kind"] == "Job" else _single(where, each, known)
        for where, each in wanted
    ]
    names = [job.pod.name for job in jobs]
    for (where, _), name in zip(wanted, names, strict=True):
        if names.count(name) > 1:
            raise wrong(f"{where}: metadata.name", f"there are two pods of the name {name}")
    return jobs, unused


def _single(where: str, document: dict[str, Any], known: Sources) -> Job:
    spec = _required(where, "spec", document)
    return Job(pod=_pod(where, "spec", document.get("metadata", {}), spec, known))


def _job(where: str, document: dict[str, Any], known: Sources) -> Job:
    spec = _required(where, "spec", document)
    template = _required(where, "spec.template", spec)
    inner = _required(where, "spec.template.spec", template)
    if inner.get("restartPolicy", "Always") == "Always":
        raise wrong(
            f"{where}: spec.template.spec.restartPolicy",
            "a Job's is OnFailure or Never",
        )
    name = sources.name_of(where, document)
    metadata = {"namespace": document["metadata"].get("namespace", "default")}
    metadata |= {**template.get("metadata", {}), "name": name}
    pod = _pod(where, "spec.template.spec", metadata, inner, known)
    parallelism = _number(where, spec, "spec.parallelism", 1, least=1)
    completions = _number(where, spec, "spec.completions", parallelism, least=1)
    for path, number in (("parallelism", parallelism), ("completions", completions)):
        if number > _MOST_PODS:
            raise wrong(f"{where}: spec.{path}", f"{number} is more than {_MOST_PODS}")
    return Job(
        pod=pod,
        retried=True,
        completions=completions,
        parallelism=parallelism,
        backoff_limit=_number(where, spec, "spec.backoffLimit", _BACKOFF),
        indexed=_choice(where, spec, "spec.completionMode", ("NonIndexed", "Indexed"), "NonIndexed")
        == "Indexed",
        deadline=_seconds(where, spec, "spec.activeDeadlineSeconds"),
    )


def _pod(
    where: str, at: str, metadata: dict[str, Any], spec: dict[str, Any], known: Sources
) -> Pod:
    name = metadata.get("name") or metadata.get("generateName", "").rstrip("-")
    if not name:
        raise wrong(f"{where}: metadata.name", "missing")
    if not _NAME.fullmatch(name):
        raise wrong(
            f"{where}: metadata.name",
            f"{name!r} is not a name",
            "lower-case letters, digits, - and .",
        )
    metadata = {**metadata, "name": name}
    restart = _choice(where, spec, f"{at}.restartPolicy", get_args(Restart), "Always")
    volumes = _volumes(f"{where}: {at}.volumes", spec.get("volumes", []), metadata, known)
    containers = _Containers(where, at, spec, metadata, known, cast("Restart", restart)).read()
    _check_mounts(where, containers, volumes)
    if not spec.get("hostNetwork"):
        _check_host_ports(where, containers)
    hostname = spec.get("hostname", "")
    if hostname and not _LABEL.fullmatch(hostname):
        raise wrong(f"{where}: {at}.hostname", f"{hostname!r} is not a host's name")
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        raise wrong(f"{where}: {at}.shareProcessNamespace", "contradicts hostPID", "leave one out")
    return Pod(
        name=name,
        namespace=metadata.get("namespace", "default"),
        labels=metadata.get("labels", {}),
        containers=tuple(containers),
        volumes=tuple(volumes),
        network="host" if spec.get("hostNetwork") else "",
        host_ipc=spec.get("hostIPC", False),
        host_pid=spec.get("hostPID", False),
        share_pid=spec.get("shareProcessNamespace", False),
        hostname=hostname or name.partition(".")[0][:63],
        hosts=tuple(
            _alias(f"{where}: {at}.hostAliases[{number}]", each)
            for number, each in enumerate(spec.get("hostAliases", []))
        ),
        grace=float(_number(where, spec, f"{at}.terminationGracePeriodSeconds", 30)),
        deadline=_seconds(where, spec, f"{at}.activeDeadlineSeconds"),
    )


class _Containers:
    """Reads the containers of one pod."""

    def __init__(
        self,
        where: str,
        at: str,
        spec: dict[str, Any],
        metadata: dict[str, Any],
        known: Sources,
        restart: Restart,
    ) -> None:
        self.where, self.at, self.spec = where, at, spec
        self.known, self.restart = known, restart
        every = [*spec.get("initContainers", []), *spec.get("containers", [])]
        self.downward = Downward(
            metadata,
            {
                each.get("name", ""): {
                    kind: each.get("resources", {}).get(kind, {}) for kind in ("limits", "requests")
                }
                for each in every
            },
        )

    def read(self) -> list[Container]:
        found: list[Container] = []
        for key in ("initContainers", "containers"):
            for number, each in enumerate(self.spec.get(key, [])):
                at = f"{self.where}: {self.at}.{key}[{number}]"
                made = self._container(at, each, key == "initContainers")
                if any(made.name == other.name for other in found):
                    raise wrong(f"{at}.name", f"there are two containers {made.name}")
                found.append(made)
        if not any(each.role == "main" for each in found):
            raise wrong(f"{self.where}: {self.at}.containers", "a pod has one at least")
        if sum(each.stdin for each in found) > 1:
            raise wrong(f"{self.where}: {self.at}", "more than one container has stdin: true")
        return found

    def _container(self, at: str, each: dict[str, Any], is_init: bool) -> Container:
        name = each.get("name", "")
        if not _LABEL.fullmatch(name):
            raise wrong(f"{at}.name", f"{name!r} is not a name" if name else "missing")
        if not each.get("image"):
            raise wrong(f"{at}.image", "missing")
        if not each["image"].isprintable():
            raise wrong(f"{at}.image", f"{each['image']!r} is not one line")
        role, restart = self._role(at, each, is_init)
        if is_init and role == "init":
            for probe in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
                if probe in each:
                    raise wrong(
                        f"{at}.{probe}",
                        "not for an init container",
                        "with restartPolicy: Always it is a sidecar",
                    )
        if each.get("tty"):
            raise wrong(f"{at}.tty", "not supported", "srun --pty --container gives a terminal")
        _pull_policy(f"{at}.imagePullPolicy", each.get("imagePullPolicy", ""))
        ports = tuple(_port(f"{at}.ports[{n}]", p) for n, p in enumerate(each.get("ports", [])))
        env = [
            *sources.all_variables(f"{at}.envFrom", each.get("envFrom", []), self.known),
            *sources.variables(f"{at}.env", each.get("env", []), self.known, self.downward, name),
        ]
        probes = {
            short: _probe(f"{at}.{short}Probe", each.get(f"{short}Probe"), ports, short)
            for short in ("startup", "readiness", "liveness")
        }
        hooks = each.get("lifecycle", {})
        workdir = each.get("workingDir", "")
        if workdir and not workdir.startswith("/"):
            raise wrong(f"{at}.workingDir", f"{workdir!r} is not an absolute path")
        security = self._security(at, each.get("securityContext", {}))
        return Container(
            name=name,
            image=each["image"],
            pull=each.get("imagePullPolicy", ""),
            role=role,
            restart=restart,
            command=tuple(each["command"]) if each.get("command") else None,
            args=tuple(each["args"]) if each.get("args") else None,
            env=tuple(env),
            workdir=workdir,
            mounts=tuple(
                _mount(f"{at}.volumeMounts[{n}]", m)
                for n, m in enumerate(each.get("volumeMounts", []))
            ),
            ports=ports,
            resources=_resources(f"{at}.resources", each.get("resources", {})),
            startup=probes["startup"],
            readiness=probes["readiness"],
            liveness=probes["liveness"],
            post_start=_hook(f"{at}.lifecycle.postStart", hooks.get("postStart"), ports),
            pre_stop=_hook(f"{at}.lifecycle.preStop", hooks.get("preStop"), ports),
            stdin=each.get("stdin", False),
            **security,
        )

    def _role(self, at: str, each: dict[str, Any], is_init: bool) -> tuple[Role, Restart]:
        """Init containers that are restarted always are sidecars (Kubernetes 1.29)."""
        asked = each.get("restartPolicy")
        if asked is None:
            return ("init" if is_init else "main"), self.restart
        if not is_init or asked != "Always":
            raise wrong(
                f"{at}.restartPolicy",
                "not supported",
                "init containers may have Always; for all others the pod's counts",
            )
        return "sidecar", "Always"

    def _security(self, at: str, own: dict[str, Any]) -> dict[str, Any]:
        where = f"{at}.securityContext"
        pod = self.spec.get("securityContext", {})
        if own.get("privileged"):
            raise wrong(f"{where}.privileged", "no container has more rights than its user")
        if own.get("allowPrivilegeEscalation"):
            raise wrong(f"{where}.allowPrivilegeEscalation", "only false is supported")
        merged = {**pod, **own}
        if "runAsGroup" in merged and "runAsUser" not in merged:
            raise wrong(f"{where}.runAsGroup", "needs runAsUser beside it")
        for name in ("runAsUser", "runAsGroup"):
            _id(f"{where}.{name}", merged.get(name))
        return {
            "uid": merged.get("runAsUser"),
            "gid": merged.get("runAsGroup"),
            "non_root": merged.get("runAsNonRoot", False),
            "readonly": own.get("readOnlyRootFilesystem", False),
            "dropped": tuple(own.get("capabilities", {}).get("drop", [])),
        }


def _id(where: str, value: int | None) -> None:
    if value is not None and not 0 <= value < 1 << 31:
        raise wrong(where, f"{value} is not an id")


def _pull_policy(where: str, word: str) -> None:
    if word not in ("", "Always", "IfNotPresent", "Never"):
        raise wrong(where, f"{word!r} is none of Always, IfNotPresent, Never")


def _port(where: str, each: dict[str, Any]) -> Port:
    number, host = each.get("containerPort", 0), each.get("hostPort", 0)
    protocol = each.get("protocol", "TCP")
    if number not in _PORTS:
        raise wrong(f"{where}.containerPort", f"{number} is not a port")
    if host and host not in _PORTS:
        raise wrong(f"{where}.hostPort", f"{host} is not a port")
    if protocol not in ("TCP", "UDP", "SCTP"):
        raise wrong(f"{where}.protocol", f"{protocol!r} is none of TCP, UDP, SCTP")
    address = each.get("hostIP", "")
    if address and not _IPV4.fullmatch(address):
        raise wrong(f"{where}.hostIP", f"{address!r} is not an IPv4 address")
    return Port(
        number=number, name=each.get("name", ""), host=host, address=address, protocol=protocol
    )


def _check_host_ports(where: str, containers: list[Container]) -> None:
    """Ports of the node that lead into a pod's own network are carried, which TCP can be."""
    taken: set[tuple[str, int]] = set()
    for container in containers:
        for port in container.ports:
            what = f"container {container.name}: hostPort {port.host}"
            if port.host and port.protocol != "TCP":
                raise wrong(
                    where,
                    f"{what}: only TCP reaches a pod's own network",
                    "hostNetwork: true has all of the node's",
                )
            if port.host and (port.address, port.host) in taken:
                raise wrong(where, f"{what} is there twice")
            taken.add((port.address, port.host))


def _alias(where: str, each: dict[str, Any]) -> str:
    """A line of /etc/hosts.  Raises RequestError."""
    address, names = each.get("ip", ""), each.get("hostnames", [])
    if not _IP.fullmatch(address):
        raise wrong(f"{where}.ip", f"{address!r} is not an address")
    for number, name in enumerate(names):
        if not _HOST.fullmatch(name):
            raise wrong(f"{where}.hostnames[{number}]", f"{name!r} is not a host's name")
    return f"{address}\t{' '.join(names)}"


def _handler(where: str, node: dict[str, Any], ports: tuple[Port, ...]) -> Handler:
    kinds = [kind for kind in ("exec", "httpGet", "tcpSocket", "sleep") if kind in node]
    if len(kinds) != 1:
        raise wrong(where, "wants one of exec, httpGet, tcpSocket")
    (kind,) = kinds
    inner, at = node[kind], f"{where}.{kind}"
    if kind == "exec":
        if not inner.get("command"):
            raise wrong(f"{at}.command", "missing")
        return Handler(kind="exec", command=tuple(inner["command"]))
    if kind == "sleep":
        return Handler(kind="sleep", seconds=float(inner.get("seconds", 0)))
    port = _named_port(f"{at}.port", inner.get("port"), ports)
    if inner.get("host") and not (_HOST.fullmatch(inner["host"]) or _IP.fullmatch(inner["host"])):
        raise wrong(f"{at}.host", f"{inner['host']!r} is not a host's name")
    if kind == "tcpSocket":
        return Handler(kind="tcp", host=inner.get("host", ""), port=port)
    scheme = inner.get("scheme", "HTTP").lower()
    if scheme not in ("http", "https"):
        raise wrong(f"{at}.scheme", "is HTTP or HTTPS")
    headers = tuple(
        Variable(name=each.get("name", ""), value=each.get("value", ""))
        for each in inner.get("httpHeaders", [])
    )
    path, host = inner.get("path", "/") or "/", inner.get("host", "")
    if not path.isprintable() or " " in path:
        raise wrong(f"{at}.path", f"{path!r} is not a path of HTTP")
    if any("\n" in each.name + each.value or "\r" in each.name + each.value for each in headers):
        raise wrong(f"{at}.httpHeaders", "a header is one line")
    return Handler(
        kind="http",
        host=host,
        port=port,
        scheme=scheme,
        path=path if path.startswith("/") else f"/{path}",
        headers=headers,
    )


def _named_port(where: str, port: int | str | None, ports: tuple[Port, ...]) -> str:
    for each in ports:
        if each.name and each.name == port:
            return str(each.number)
    try:
        number = int(port)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise wrong(where, f"the container has no port of the name {port!r}") from None
    if number not in _PORTS:
        raise wrong(where, f"{number} is not a port")
    return str(number)


def _probe(
    where: str, node: dict[str, Any] | None, ports: tuple[Port, ...], kind: str
) -> Probe | None:
    if node is None:
        return None
    successes = _number("", node, f"{where}.successThreshold", 1, least=1)
    if kind != "readiness" and successes != 1:
        raise wrong(f"{where}.successThreshold", f"is 1 for a {kind} probe")
    return Probe(
        handler=_handler(where, node, ports),
        delay=float(_number("", node, f"{where}.initialDelaySeconds", 0)),
        period=float(_number("", node, f"{where}.periodSeconds", 10, least=1)),
        timeout=float(_number("", node, f"{where}.timeoutSeconds", 1, least=1)),
        successes=successes,
        failures=_number("", node, f"{where}.failureThreshold", 3, least=1),
        grace=_seconds("", node, f"{where}.terminationGracePeriodSeconds"),
    )


def _hook(where: str, node: dict[str, Any] | None, ports: tuple[Port, ...]) -> Handler | None:
    return None if node is None else _handler(where, node, ports)


def _mount(where: str, each: dict[str, Any]) -> VolumeMount:
    path, sub = each.get("mountPath", ""), each.get("subPath", "")
    if not path.startswith("/") or {":", "\n"} & set(path) or ".." in path.split("/"):
        raise wrong(f"{where}.mountPath", f"{path!r} is not an absolute path")
    if sub.startswith("/") or ".." in sub.split("/"):
        raise wrong(f"{where}.subPath", f"{sub!r} is not a path below the volume")
    propagation = each.get("mountPropagation", "None")
    if propagation not in ("None", "HostToContainer"):
        raise wrong(f"{where}.mountPropagation", f"{propagation} is not supported")
    return VolumeMount(
        volume=each.get("name", ""),
        path=path.rstrip("/") or "/",
        sub_path=sub,
        readonly=each.get("readOnly", False),
        recursive=propagation == "HostToContainer",
    )


def _check_mounts(where: str, containers: list[Container], volumes: list[Volume]) -> None:
    names = [volume.name for volume in volumes]
    for container in containers:
        for mount in container.mounts:
            if mount.volume not in names:
                raise wrong(
                    where, f"container {container.name} mounts {mount.volume!r}: no such volume"
                )
            if [other.path for other in container.mounts].count(mount.path) > 1:
                raise wrong(where, f"container {container.name} mounts twice at {mount.path!r}")
            if mount.path == "/":
                raise wrong(where, f"container {container.name} mounts over its whole root")


def _volumes(
    where: str, entries: list[dict[str, Any]], metadata: dict[str, Any], known: Sources
) -> list[Volume]:
    found: list[Volume] = []
    for number, each in enumerate(entries):
        at, name = f"{where}[{number}]", each.get("name", "")
        if not _LABEL.fullmatch(name):
            raise wrong(f"{at}.name", f"{name!r} is not a name")
        if any(name == other.name for other in found):
            raise wrong(f"{at}.name", f"there are two volumes {name}")
        kinds = [kind for kind in each if kind != "name"]
        if len(kinds) != 1:
            raise wrong(at, "a volume is of one kind")
        found.append(_volume(f"{at}.{kinds[0]}", kinds[0], name, each[kinds[0]], metadata, known))
    return found


def _volume(
    at: str,
    kind: str,
    name: str,
    node: dict[str, Any],
    metadata: dict[str, Any],
    known: Sources,
) -> Volume:
    if kind == "emptyDir":
        medium = node.get("medium", "")
        if medium not in ("", "Memory"):
            raise wrong(f"{at}.medium", f"{medium} is not supported", 'it is "" or Memory')
        if "sizeLimit" in node and not medium:
            raise wrong(
                f"{at}.sizeLimit",
                "not supported: nothing holds a directory on disk to a size",
                "with medium: Memory it is",
            )
        size = int(node.get("sizeLimit", 0))
        return Volume(name=name, kind="memory" if medium else "directory", size=size)
    if kind == "hostPath":
        path = node.get("path", "")
        if not path.startswith("/") or ".." in path.split("/"):
            raise wrong(f"{at}.path", f"{path!r} is not an absolute path without ..")
        if node.get("type", "") not in _HOST_TYPES:
            raise wrong(f"{at}.type", f"{node['type']} is not supported")
        return Volume(name=name, kind="host", path=path, type=node.get("type", ""))
    assert kind in _SOURCES, kind
    made = sources.files(at, kind, node, known, Downward(metadata, {}), 0o644)
    return Volume(name=name, kind="files", files=tuple(made))


def _resources(where: str, node: dict[str, Any]) -> Resources:
    limits, requests = node.get("limits", {}), node.get("requests", {})
    for kind, table in (("limits", limits), ("requests", requests)):
        for name in table:
            if name not in _RESOURCES:
                raise wrong(f"{where}.{kind}.{name}", "not supported")
    for name, limit in limits.items():
        if requests.get(name, 0) > limit:
            raise wrong(f"{where}.requests.{name}", "is more than the limit")
    gpus = [int({**requests, **limits}[name]) for name in _GPUS if name in {**requests, **limits}]
    return Resources(
        cpus=requests.get("cpu", limits.get("cpu", 0.0)),
        cpu_limit=limits.get("cpu", 0.0),
        memory=int(requests.get("memory", limits.get("memory", 0))),
        memory_limit=int(limits.get("memory", 0)),
        gpus=sum(gpus),
    )


def _required(where: str, path: str, node: dict[str, Any]) -> dict[str, Any]:
    found = node.get(path.rpartition(".")[2])
    if found is None:
        raise wrong(f"{where}: {path}", "missing")
    return cast("dict[str, Any]", found)


def _at(where: str, path: str) -> str:
    return f"{where}: {path}" if where else path


def _number(where: str, node: dict[str, Any], path: str, default: int, least: int = 0) -> int:
    value = node.get(path.rpartition(".")[2], default)
    if value < least:
        raise wrong(_at(where, path), f"{value} is less than {least}")
    return int(value)


def _seconds(
    where: str, node: dict[str, Any], path: str, default: float | None = None
) -> float | None:
    value = node.get(path.rpartition(".")[2])
    if value is None:
        return default
    if value <= 0:
        raise wrong(_at(where, path), f"{value} is not a time")
    return float(value)


def _choice(
    where: str, node: dict[str, Any], path: str, words: tuple[str, ...], default: str
) -> str:
    value = node.get(path.rpartition(".")[2], default)
    if value not in words:
        raise wrong(_at(where, path), f"{value!r} is none of {', '.join(words)}")
    return str(value)
