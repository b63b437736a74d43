"""What can be seen of OCI runtimes and their configuration, and of a container really run."""

from __future__ import annotations

import json
import os
import select
import shutil
import struct
from typing import Any, Final

from roadstead.doctor import facts
from roadstead.doctor.probes import Context
from roadstead.errors import ConfigError, RoadsteadError
from roadstead.host import files, process
from roadstead.oci import runtime, search
from roadstead.step import trial

_KNOWN: Final = (
    *runtime.KNOWN, "youki", "runsc", "kata-runtime", "nvidia-container-runtime", "crun-wasm",
)  # fmt: skip
_ANSWER_SECONDS: Final = 5.0
_COMMANDS: Final = ("run", "create", "start", "query", "kill", "delete")
_NO_CONFIGURATION: Final = "oci.conf cannot be used"
_ELF_INTERPRETER: Final = 3  # PT_INTERP, elf(5)


def runtimes(context: Context) -> facts.Runtimes:
    path = f"{context.path}:{runtime.ALSO}"
    found = [(name, process.which(name, path)) for name in _KNOWN]
    return facts.Runtimes(found=tuple((name, path) for name, path in found if path))


def chosen(context: Context) -> facts.Runtime:
    if not _configuration_is_usable(context):
        return facts.Runtime(untried=_NO_CONFIGURATION)
    try:
        path, source = _chosen(context)
    except RoadsteadError as error:
        return facts.Runtime(error=str(error), hint=error.hint)
    status, said = _ask([path, "--version"], context)
    lines = said.strip().splitlines()
    complaint = ""
    if status is None:
        complaint = "it does not answer to --version"
    elif status:
        complaint = f"--version ended with status {status}: {lines[-1] if lines else ''}"
    features = [line for line in lines[1:] if line.startswith(("+", "spec:", "libseccomp:"))]
    if os.path.basename(path) == "runc":
        features += _features(path, context)
    return facts.Runtime(
        path=path,
        source=source,
        version=lines[0] if lines else "",
        complaint=complaint,
        features=tuple(features),
    )


def _chosen(context: Context) -> tuple[str, str]:
    """The path of the runtime that a container would be made with, and who says so."""
    conf = search.configured(context.environ)
    if conf is not None and conf.has_commands:
        name = runtime.program_name(conf)
        found = process.which(name, context.path)
        if found is None:
            raise ConfigError(f"{name} is not there", path=conf.source, hint=f"install {name}")
        return found, conf.source
    found = runtime.find(dict(context.environ), process.which)
    return found, "ROADSTEAD_RUNTIME" if context.environ.get("ROADSTEAD_RUNTIME") else "on PATH"


def _configuration_is_usable(context: Context) -> bool:
    try:
        search.configured(context.environ)
    except ConfigError:
        return False
    return True


def _features(path: str, context: Context) -> list[str]:
    """What ``runc features`` tells (runc 1.1; OCI runtime-spec, features.md); nothing elsewhere."""
    status, said = _ask([path, "features"], context)
    try:
        told: Any = json.loads(said) if status == 0 else {}
        groups = told.get("linux", {}).get("cgroup", {})
    except (ValueError, AttributeError):
        return []
    return [
        f"OCI runtime-spec {told.get('ociVersionMin')} to {told.get('ociVersionMax')}",
        f"control groups: {', '.join(name for name, there in groups.items() if there is True)}",
    ] if told else []  # fmt: skip


def _ask(argv: list[str], context: Context) -> tuple[int | None, str]:
    """What a program prints, and its status; None when it takes too long, and is killed.

    Even ``crun --version`` makes a directory in XDG_RUNTIME_DIR: here in one that goes away.
    """
    scratch = context.scratch()
    try:
        os.mkdir(scratch, 0o700)
    except OSError:
        return _answer(argv, dict(context.environ))
    try:
        return _answer(argv, {**context.environ, "XDG_RUNTIME_DIR": scratch})
    finally:
        files.remove_tree(scratch)


def _answer(argv: list[str], env: dict[str, str]) -> tuple[int | None, str]:
    memory = os.memfd_create("roadstead-doctor", os.MFD_CLOEXEC)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        child = process.spawn(argv, env=env, stdio=(null, memory, memory))
        poll = select.poll()
        poll.register(child, select.POLLIN)
        ended = bool(poll.poll(int(_ANSWER_SECONDS * 1000)))
        if not ended:
            child.signal(process.KILL)
        status = child.reap()
        return status if ended else None, os.pread(memory, 1 << 20, 0).decode(errors="replace")
    except OSError as error:
        return 126, f"{argv[0]}: {error.strerror}"
    finally:
        os.close(memory)
        os.close(null)


def oci_conf(context: Context) -> facts.OciConf:
    try:
        path = search.find(context.environ) or ""
    except ConfigError as error:
        return facts.OciConf(path=error.path, error=str(error), hint=error.hint)
    if not path:
        return facts.OciConf()
    try:
        conf = search.load(path)
    except ConfigError as error:
        return facts.OciConf(path=path, error=str(error), hint=error.hint)
    missing = [
        (f"RunTime{operation.capitalize()}", program)
        for operation in _COMMANDS
        for program in _programs(getattr(conf, f"runtime_{operation}") or "")
        if process.which(program, context.path) is None
    ]
    return facts.OciConf(
        path=path,
        warnings=conf.warnings,
        mode=conf.mode,
        starts=conf.has_commands,
        missing=tuple(missing),
    )


def _programs(pattern: str) -> list[str]:
    """The programs that a simple command line starts: its first word and, after sudo, the next.

    A line that is more than that (variables, pipes, quotes) is left to the shell to judge.
    """
    words = pattern.split()
    if not words or any(mark in words[0] for mark in "=$'\"`(){}%;|&<>"):
        return []
    found = words[:1]
    if os.path.basename(words[0]) == "sudo" and len(words) > 1 and words[1][0].isalnum():
        found.append(words[1])
    return [word for word in found if word not in ("exec", "cd", "if", "test", "[", ":", "umask")]


# -- a container -----------------------------------------------------------------------------------


def container(context: Context) -> facts.Container:
    busybox = static_busybox(context.path)
    if not _configuration_is_usable(context):
        return facts.Container(untried=_NO_CONFIGURATION)
    if not busybox:
        why = "no statically linked busybox to make one of"
        return facts.Container(untried=why, fix="sudo apt install busybox-static")
    with trial.place(context.environ) as at:
        bundle = f"{at}/bundle"
        make_bundle(bundle, busybox)
        ending = trial.attempt(bundle, context.environ, at, modes=1, lifeline=context.lifeline)
    if ending.crash:
        raise AssertionError(f"{ending.crash}\n{ending.output}")
    unfinished = not ending.complete
    return facts.Container(steps=tuple(ending.said), unfinished=unfinished)


def static_busybox(path: str) -> str:
    """The path of a busybox that needs no library, or ""."""
    for folder in (*path.split(":"), "/bin", "/usr/bin"):
        found = process.which("busybox", folder or ".")
        if found and is_static(found):
            return found
    return ""


def is_static(path: str) -> bool:
    """Whether an ELF file of this machine's byte order names no interpreter (elf(5), PT_INTERP)."""
    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:4] != b"\x7fELF":
            return False
        wide = head[4] == 2
        at, size, count = (
            (struct.unpack_from("=Q", head, 32)[0], *struct.unpack_from("=HH", head, 54))
            if wide
            else (struct.unpack_from("=I", head, 28)[0], *struct.unpack_from("=HH", head, 42))
        )
        file.seek(at)
        table = file.read(size * count)
    kinds = [struct.unpack_from("=I", table, size * number)[0] for number in range(count)]
    return bool(kinds) and _ELF_INTERPRETER not in kinds


def make_bundle(path: str, busybox: str) -> None:
    """A bundle with nothing but a shell in it."""
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        os.makedirs(f"{path}/rootfs/{name}", mode=0o755)
    shutil.copyfile(busybox, f"{path}/rootfs/bin/busybox")
    os.chmod(f"{path}/rootfs/bin/busybox", 0o755)
    for name in ("sh", "cat"):
        os.symlink("busybox", f"{path}/rootfs/bin/{name}")
    files.write_atomically(f"{path}/config.json", json.dumps(_CONFIG))


# As `runc spec --rootless` writes it, without what a container can do without.
_CONFIG: Final[dict[str, Any]] = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs", "readonly": True},
    "process": {
        "args": ["sh"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
        "noNewPrivileges": True,
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
    ],
    "linux": {
        "namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount")],
    },
}
