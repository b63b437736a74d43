"""What an image is, once it is in the store.

An ``Image`` is what a step needs of it: the configuration, and the directories that its root file
system is made of.  A ``Record`` is what the store keeps: layers by name, not by path, so that a
store can be moved or mounted somewhere else.  Both are JSON (core.model, ``to_json``).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The execution parameters of an image (OCI image-spec, config.md), with the spec's meaning.

    ``env`` is in the form NAME=VALUE.  ``user`` is as written: a name or number, with or without a
    group after a colon.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = field(default=(), repr=False)
    user: str = ""
    workdir: str = ""
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    architecture: str = ""
    os: str = "linux"
    variant: str = ""

    @property
    def platform(self) -> str:
        """os/architecture[/variant], as containers write it."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that can be run: nothing has to be fetched or unpacked any more.

    ``digest`` pins it: of the manifest, or of the content for what has no manifest.  ``reference``
    is what the user wrote.  ``lowers`` are absolute directories, the lowest first; a container
    never writes to them.  Whiteouts and opaque directories in them are overlayfs's own: devices
    0:0, and ``user.overlay.opaque``, for mounts with the option ``userxattr``.
    """

    digest: str
    reference: str
    config: ImageConfig
    lowers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the store keeps of an image.

    ``layers`` are names of layers of the store (a diff_id, ``sha256:…``), the lowest first.  Or
    ``directory`` is an absolute path that is used where it is, as the only lower directory.
    ``manifest`` and ``configuration`` are the source's
    own documents, byte for byte ("" where it has none).  Times are seconds since the epoch, sizes
    bytes as unpacked.
    """

    digest: str
    reference: str
    config: ImageConfig
    layers: tuple[str, ...] = ()
    directory: str = ""
    size: int = 0
    created_at: float = 0.0
    manifest: str = field(default="", repr=False)
    configuration: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What the store keeps of a layer beside its directory.

    ``entries`` counts files of all kinds, ``size`` their bytes.  ``seconds`` is what it took;
    ``altered`` says what of the layer could not be kept (devices, set-id bits), in words.  An
    ``opaque`` layer hides all that is below it.
    """

    name: str
    entries: int = 0
    size: int = 0
    compressed: int = 0
    seconds: float = 0.0
    altered: tuple[str, ...] = ()
    opaque: bool = False
