"""What a manifest asks for, as types: a Pod, its containers, its volumes; and a Plan, which is what
travels to the node.

All of it is JSON (core/jsonform.py).  What the manifest looked up in ConfigMaps and Secrets is in
place; what only the node knows (its name, the pod's address) has a ``field`` in place of a value.
Values stay out of ``repr``, as secrets are among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Restart = Literal["Always", "OnFailure", "Never"]
HandlerKind = Literal["exec", "tcp", "http", "sleep"]
VolumeKind = Literal["directory", "memory", "host", "files"]
Role = Literal["init", "sidecar", "main"]
# "": the pod's own network; what it reaches beyond that is the node's affair (runner.py).
Network = Literal["", "host", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable of a container: a value, or the ``field`` of the pod that only the node knows."""

    name: str
    value: str = field(default="", repr=False)
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """Something that is done to a container: a command in it, a connection, a request, a pause.

    ``port`` is a number or the name of a port of the container's; ``host`` "" is the pod itself.
    """

    kind: HandlerKind
    command: tuple[str, ...] = ()
    host: str = ""
    port: str = ""
    path: str = "/"
    scheme: str = "http"
    headers: tuple[Variable, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question that is asked again and again.  Times are seconds."""

    handler: Handler
    delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    successes: int = 1
    failures: int = 3
    grace: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMount:
    """A volume, or what is at ``sub_path`` in it, at ``path`` of a container."""

    volume: str
    path: str
    sub_path: str = ""
    readonly: bool = False
    recursive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a volume that is made of ConfigMaps and the like: ``data`` is base64, ``field``
    what the node fills in."""

    path: str
    data: str = field(default="", repr=False)
    mode: int = 0o644
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A directory of the pod's, on disk or in ``memory`` (``size`` bytes at most; 0: as the kernel
    has it), a path of the ``host``, or ``files``."""

    name: str
    kind: VolumeKind
    size: int = 0
    path: str = ""
    type: str = ""
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port that a container listens on; ``host`` is where the node has it, 0 for nowhere, and
    ``address`` the one of the node's addresses, "" for all."""

    number: int
    name: str = ""
    host: int = 0
    address: str = ""
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a container asks for, and may have at most: CPUs, bytes of memory, GPUs."""

    cpus: float = 0.0
    cpu_limit: float = 0.0
    memory: int = 0
    memory_limit: int = 0
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container.  ``pull`` is its imagePullPolicy.  ``command`` None: the image's entrypoint;
    ``args`` None: the image's command, unless there is a ``command``."""

    name: str
    image: str
    pull: str = ""
    role: Role = "main"
    restart: Restart = "Always"
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[Variable, ...] = ()
    workdir: str = ""
    mounts: tuple[VolumeMount, ...] = ()
    ports: tuple[Port, ...] = ()
    resources: Resources = Resources()
    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None
    post_start: Handler | None = None
    pre_stop: Handler | None = None
    stdin: bool = False
    uid: int | None = None
    gid: int | None = None
    non_root: bool = False
    readonly: bool = False
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod.  ``containers`` are in the order of their start: those of ``initContainers`` first.
    ``hosts`` are lines for /etc/hosts; ``grace`` and ``deadline`` are seconds."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = field(default_factory=dict)
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    network: Network = ""
    host_ipc: bool = False
    host_pid: bool = False
    share_pid: bool = False
    hostname: str = ""
    hosts: tuple[str, ...] = ()
    grace: float = 30.0
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A pod that is run until ``completions`` of it have succeeded, ``parallelism`` at a time;
    after ``backoff_limit`` failures it has failed.  A Pod is a Job of one completion that is not
    tried again (``retried`` False)."""

    pod: Pod
    retried: bool = False
    completions: int = 1
    parallelism: int = 1
    backoff_limit: int = 0
    indexed: bool = False
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image's reference was found to mean: a bundle's path, or a digest in a store."""

    reference: str
    bundle: str
    digest: str = ""
    store: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the node needs to know: the pods, and what their images are."""

    jobs: tuple[Job, ...]
    images: tuple[Image, ...]
    verbose: bool = False
