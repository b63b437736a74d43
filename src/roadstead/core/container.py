"""The options about containers, checked and given their meaning: a ContainerRequest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast, get_args

from roadstead.core import mounts, ports
from roadstead.core.model import (
    ContainerRequest,
    EnvPolicy,
    HookPolicy,
    Mount,
    NameUse,
    Network,
    Per,
    Port,
    SaveKind,
    Writable,
)
from roadstead.errors import EngineError, RequestError, UsageError

# What makes no sense without a container.
_DETAILS: Final = (
    "container-writable",
    "container-readonly",
    "container-env-policy",
    "container-hooks",
    "container-mounts",
    "container-workdir",
    "container-save",
    "container-mount-home",
    "container-remap-root",
    "no-container-remap-root",
    "container-entrypoint",
    "container-env",
    "device",
    "container-hooks-dir",
    "container-network",
    "container-publish",
    "container-sync",
    "container-system",
    "container-per",
)
# What --container-writable is given → what that means; "": the option alone.
_WRITABLE: Final[dict[str | None, Writable]] = {
    None: "bundle",
    "": "direct",
    "private": "private",
}


def of(
    message: Mapping[str, Any], options: Mapping[str, str], cwd: str, directory: str
) -> ContainerRequest | None:
    """The container that a message asks for, if it does.  ``directory`` is the task's working
    directory.  Raises RequestError, UsageError."""
    bundle = options.get("container", "")
    name, use = _name(options)
    if not bundle and not name:
        for detail in _DETAILS:
            if detail in options:
                raise RequestError(
                    f"--{detail} needs --container",
                    hint="add --container=BUNDLE, or --container-image=IMAGE",
                )
        return None
    image, store = _image(message)
    mounted, mounted_store = _mounted(message)
    system = options.get("container-system", "")
    if not (image or system or bundle.startswith("/") or "://" in bundle or not bundle):
        raise RequestError(f"--container={bundle}: not an absolute path")
    writable = options.get("container-writable")
    readonly = "container-readonly" in options
    if readonly and writable is not None:
        raise RequestError(
            "--container-readonly and --container-writable contradict each other",
            hint="leave one out",
        )
    if writable not in _WRITABLE:
        raise UsageError("Invalid --container-writable specification", hint="the word is: private")
    own, annotations = _environment_file(message)
    kind, save, tag = _save(options, cwd)
    network, published = _network(options)
    return ContainerRequest(
        bundle=bundle,
        image=image,
        store=store or mounted_store,
        id=options.get("container-id", ""),
        writable=_WRITABLE[writable],
        readonly=readonly,
        env_policy=cast("EnvPolicy", choice(options, "container-env-policy", EnvPolicy, "merge")),
        hooks=cast("HookPolicy", choice(options, "container-hooks", HookPolicy, "drop")),
        workdir=directory if "chdir" in options else "",
        inner_workdir=_workdir(options),
        mounts=_mounts(options, cwd, mounted),
        name=name,
        name_use=use,
        save=save,
        save_kind=kind,
        save_tag=tag,
        mount_home=_switch(options, "container-mount-home") is True,
        remap_root=_switch(options, "container-remap-root"),
        entrypoint=_switch(options, "container-entrypoint"),
        keep_env=_names(options),
        set_env=own,
        annotations=annotations,
        devices=_devices(options),
        hooks_dirs=tuple(
            [
                mounts.absolute(each, cwd)
                for each in options.get("container-hooks-dir", "").split(",")
                if each
            ]
        ),
        network=network,
        publish=published,
        system=system,
        sync="container-sync" in options,
        per=cast("Per", choice(options, "container-per", Per, "task")),
        verbose="verbose" in options,
    )


def choice(options: Mapping[str, str], name: str, literal: Any, default: str) -> str:
    """The value of an option that is one of some words.  Raises UsageError."""
    value = options.get(name) or default
    words = get_args(literal)
    if value not in words:
        known = ", ".join(word for word in words if word)
        raise UsageError(f"Invalid --{name} specification: {value}", hint=f"one of: {known}")
    return value


def _network(options: Mapping[str, str]) -> tuple[Network, tuple[Port, ...]]:
    """The network, and what of it is published; to publish is to have a private one."""
    published = ports.parse(options["container-publish"]) if "container-publish" in options else ()
    usual = "private" if published else ""
    network = cast("Network", choice(options, "container-network", Network, usual))
    if published and network != "private":
        raise RequestError(
            f"--container-publish: nothing is published of --container-network={network}",
            hint="ports of the host's network are there anyway; --container-network=private",
        )
    if network in ("none", "private") and options.get("mpi", "none") != "none":
        raise RequestError(
            f"--mpi={options['mpi']}: ranks in networks of their own do not find each other",
            hint="leave out --container-network, or say host",
        )
    return network, published


def _switch(options: Mapping[str, str], name: str) -> bool | None:
    """``--NAME`` and ``--no-NAME``; None where neither is given."""
    if name in options and f"no-{name}" in options:
        raise RequestError(f"--{name} and --no-{name} contradict each other", hint="leave one out")
    return True if name in options else False if f"no-{name}" in options else None


def _name(options: Mapping[str, str]) -> tuple[str, NameUse]:
    """``NAME[:auto|create|exec|no_exec]``; the name becomes that of a directory."""
    text = options.get("container-name")
    if text is None:
        return "", "auto"
    name, _, use = text.partition(":")
    use = use or "auto"
    if use not in get_args(NameUse):
        raise UsageError(
            f"--container-name={text}: {use!r} is not a way to use it",
            hint=f"after the colon comes one of: {', '.join(get_args(NameUse))}",
        )
    if not name or len(name) > 128 or name.startswith(".") or not _is_plain(name):
        raise UsageError(
            f"--container-name={text}: not a name",
            hint="letters, digits, and . _ + - after the first, 128 at most",
        )
    return name, cast("NameUse", use)


def _is_plain(name: str) -> bool:
    return name.isascii() and all(each.isalnum() or each in "._+-" for each in name)


def _workdir(options: Mapping[str, str]) -> str:
    text = options.get("container-workdir", "")
    if "container-workdir" in options and not text.startswith("/"):
        raise UsageError(
            f"--container-workdir={text}: not an absolute path", hint="a path in the container"
        )
    return text


def _save(options: Mapping[str, str], cwd: str) -> tuple[SaveKind, str, str]:
    """``FILE``: squashfs, or with .tar at its end an OCI archive; ``oci:DIR[:TAG]`` and
    ``oci-archive:FILE[:TAG]`` say it."""
    if "container-save" not in options:
        return "squashfs", "", ""
    text = options["container-save"]
    transport, colon, rest = text.partition(":")
    kind: SaveKind = "oci-archive" if text.endswith(".tar") else "squashfs"
    path, tag = text, ""
    if colon and transport in ("oci", "oci-archive"):
        kind = cast("SaveKind", transport)
        path, _, tag = rest.partition(":")
    elif colon and transport == "sqsh":
        kind, path = "squashfs", rest
    if not path or path.endswith("/"):
        raise UsageError(f"--container-save={text}: a directory", hint="name the file to write")
    if tag and not _is_plain(tag):
        raise UsageError(f"--container-save={text}: {tag!r} is not a tag")
    return kind, mounts.absolute(path, cwd), tag


def _names(options: Mapping[str, str]) -> tuple[str, ...]:
    if "container-env" not in options:
        return ()
    names = options["container-env"].split(",")
    if not all(names) or any("=" in name for name in names):
        raise UsageError(
            f"--container-env={options['container-env']}: not a list of names",
            hint="--container-env=NAME,NAME takes their values from the environment",
        )
    return tuple(names)


def _devices(options: Mapping[str, str]) -> tuple[str, ...]:
    """``vendor.com/class=name``, several between commas."""
    if "device" not in options:
        return ()
    names = tuple(options["device"].split(","))
    for name in names:
        kind, _, device = name.partition("=")
        vendor, _, group = kind.partition("/")
        if not (vendor and group and device):
            raise UsageError(
                f"--device={name}: not the name of a CDI device",
                hint="--device=VENDOR/CLASS=NAME, for instance nvidia.com/gpu=0",
            )
    return names


def _image(message: Mapping[str, Any]) -> tuple[str, str]:
    """What the command found the reference to mean: a digest, and the stores to look in."""
    image = message.get("image")
    if image is None:
        return "", ""
    if not isinstance(image, dict):
        raise EngineError("malformed request: image")
    digest, store = image.get("digest"), image.get("store")
    if not isinstance(digest, str) or not isinstance(store, str) or not store.startswith("/"):
        raise EngineError("malformed request: image")
    return digest, store


def _mounted(message: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """What the command has found in the squashfs files that are to be mounted: digests by path, and
    the stores to look in."""
    found = message.get("mounted")
    if found is None:
        return {}, ""
    digests, store = (
        (found.get("digests"), found.get("store")) if isinstance(found, dict) else (None, None)
    )
    if (
        not isinstance(digests, dict)
        or not all(isinstance(each, str) for each in digests.values())
        or not isinstance(store, str)
        or not store.startswith("/")
    ):
        raise EngineError("malformed request: mounted")
    return digests, store


def _mounts(options: Mapping[str, str], cwd: str, mounted: Mapping[str, str]) -> tuple[Mount, ...]:
    if "container-mounts" not in options:
        return ()
    found = mounts.parse(options["container-mounts"], cwd)
    if any(each.kind == "squashfs" and each.source not in mounted for each in found):
        raise EngineError("malformed request: mounted")
    return tuple(
        [
            replace(each, digest=mounted[each.source]) if each.kind == "squashfs" else each
            for each in found
        ]
    )


def _environment_file(message: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What an EDF says that no option does: variables and annotations."""
    found = message.get("edf")
    if found is None:
        return {}, {}
    tables = (
        (found.get("env"), found.get("annotations")) if isinstance(found, dict) else (None, None)
    )
    for table in tables:
        if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
            raise EngineError("malformed request: edf")
    return tables  # type: ignore[return-value]
