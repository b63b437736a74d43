"""An OCI image of one layer, written from a directory (OCI image-spec: layout, manifest, layer).

The layer is a tar stream in PAX format, not compressed: who pushes it to a registry compresses it
(skopeo does), and what stays here is read faster without.  No link is followed.  Sockets and
devices are left out: a user's container has none of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import platform
import stat
import tarfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from roadstead.host import files, paths

if TYPE_CHECKING:
    from roadstead.images.model import ImageConfig
    from roadstead.oci.idmap import IdMap

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_OURS: Final = ("user.overlay.", "trusted.")
_LAYOUT: Final = '{"imageLayoutVersion": "1.0.0"}'
_SPEC: Final = "application/vnd.oci.image"


class _Hashed:
    """A file that is written, and the digest of what was."""

    def __init__(self, file: BinaryIO, tell: Callable[[int], None] | None = None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._tell = tell
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        if self._tell is not None:
            self._tell(self.size)
        return self._file.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def stage(
    root: str,
    image: ImageConfig,
    place: str,
    tag: str,
    ids: tuple[IdMap | None, IdMap | None],
) -> str:
    """Write an OCI layout with the image in it to the directory ``place``; the manifest's digest.

    ``ids`` say which ids of the container are which here.  Raises OSError.
    """
    os.makedirs(f"{place}/blobs/sha256")
    with open(f"{place}/blobs/layer", "wb") as file:
        hashed = _Hashed(file)
        _write_layer(root, hashed, ids)
    layer = {"mediaType": f"{_SPEC}.layer.v1.tar", "digest": hashed.digest, "size": hashed.size}
    os.rename(f"{place}/blobs/layer", _blob(place, hashed.digest))
    config = _put(place, f"{_SPEC}.config.v1+json", _config(image, hashed.digest))
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_SPEC}.manifest.v1+json",
        "config": config,
        "layers": [layer],
    }
    described = _put(place, f"{_SPEC}.manifest.v1+json", manifest)
    if tag:
        described["annotations"] = {"org.opencontainers.image.ref.name": tag}
    _write(f"{place}/oci-layout", _LAYOUT)
    _write(f"{place}/index.json", json.dumps({"schemaVersion": 2, "manifests": [described]}))
    return str(described["digest"])


def add_to_layout(staged: str, layout: str, digest: str) -> None:
    """Put what was staged into a layout, which is made if it is not there.  An image that had the
    tag before has none now.  Raises OSError."""
    os.makedirs(f"{layout}/blobs/sha256", exist_ok=True)
    lock = os.open(layout, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others may save to it at the same time
        for name in os.listdir(f"{staged}/blobs/sha256"):
            os.rename(f"{staged}/blobs/sha256/{name}", f"{layout}/blobs/sha256/{name}")
        if not os.path.exists(f"{layout}/oci-layout"):
            _write(f"{layout}/oci-layout", _LAYOUT)
        index = _index(layout)
        (mine,) = _index(staged)["manifests"]
        tag = _tag(mine)
        others = []
        for each in index["manifests"]:
            if tag and _tag(each) == tag:
                del each["annotations"]["org.opencontainers.image.ref.name"]
            if each.get("digest") != digest or (_tag(each) and _tag(each) != tag):
                others.append(each)
        index["manifests"] = [*others, mine]
        files.write_atomically(f"{layout}/index.json", json.dumps(index))
        os.chmod(f"{layout}/index.json", 0o666 & ~paths.umask())
    finally:
        os.close(lock)


def archive(staged: str, path: str, name: str = "") -> None:
    """Write the staged layout as a tar file; with a ``name`` as what `docker load` reads (Docker
    image specification v1.2, "Combined Image JSON + Filesystem Changeset Format").  Raises
    OSError."""
    if name:
        _write(f"{staged}/manifest.json", json.dumps([_for_docker(staged, name)]))
    described = ["manifest.json"] if name else ["oci-layout", "index.json"]
    blobs = [f"blobs/sha256/{name}" for name in sorted(os.listdir(f"{staged}/blobs/sha256"))]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for member in (*described, *blobs):
            info = tar.gettarinfo(f"{staged}/{member}", member)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            with open(f"{staged}/{member}", "rb") as file:
                tar.addfile(info, file)


def _for_docker(staged: str, name: str) -> dict[str, Any]:
    (mine,) = _index(staged)["manifests"]
    with open(_blob(staged, mine["digest"]), encoding="utf-8") as file:
        manifest = json.load(file)

    def member(digest: str) -> str:
        return _blob("", digest).lstrip("/")

    return {
        "Config": member(manifest["config"]["digest"]),
        "RepoTags": [name],
        "Layers": [member(each["digest"]) for each in manifest["layers"]],
    }


def write_tar(
    root: str,
    path: str,
    *,
    prefix: str = "",
    documents: Sequence[tuple[str, bytes]] = (),
    tell: Callable[[int], None] | None = None,
) -> str:
    """Write the directory as a tar file, as its owner has it; the file's digest.

    ``prefix`` comes before the names of what is in it, ``documents`` (name, content) before all of
    it; ``tell`` hears how many bytes there are.  Raises OSError.
    """
    with open(path, "wb") as file:
        hashed = _Hashed(file, tell)
        _write_layer(root, hashed, (None, None), prefix, documents)
        return hashed.digest


def _index(layout: str) -> dict[str, Any]:
    try:
        with open(f"{layout}/index.json", encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        found = {}
    except ValueError:
        raise OSError(0, f"{layout}/index.json is not JSON") from None
    index = found if isinstance(found, dict) else {}
    manifests = index.get("manifests")
    kept = [each for each in manifests if isinstance(each, dict)] if manifests else []
    return {"schemaVersion": 2, **index, "manifests": kept}


def _tag(described: dict[str, Any]) -> str:
    return str((described.get("annotations") or {}).get("org.opencontainers.image.ref.name", ""))


def _blob(place: str, digest: str) -> str:
    return f"{place}/blobs/{digest.replace(':', '/')}"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _put(place: str, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(content).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with open(_blob(place, digest), "wb") as file:
        file.write(data)
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _config(image: ImageConfig, diff_id: str) -> dict[str, Any]:
    machine = platform.machine()
    inner = {
        "User": image.user,
        "Env": list(image.env),
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.cmd),
        "WorkingDir": image.workdir,
        "Volumes": {name: {} for name in image.volumes},
        "Labels": image.labels,
        "StopSignal": image.stop_signal,
    }
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "created": created,
        "architecture": image.architecture or _ARCHITECTURES.get(machine, machine),
        "os": image.os or "linux",
        **({"variant": image.variant} if image.variant else {}),
        "config": {name: value for name, value in inner.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": "roadstead --container-save"}],
    }


def _write_layer(
    root: str,
    file: _Hashed,
    ids: tuple[IdMap | None, IdMap | None],
    prefix: str = "",
    documents: Sequence[tuple[str, bytes]] = (),
) -> None:
    links: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for document, data in documents:
            about = tarfile.TarInfo(document)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
        pending = [""]
        while pending:
            inner = pending.pop()
            with os.scandir(f"{root}/{inner}") as entries:
                listed = sorted(entries, key=lambda each: each.name)
            for entry in listed:
                name = f"{inner}{entry.name}"
                found = entry.stat(follow_symlinks=False)
                info = _info(f"{root}/{name}", f"{prefix}{name}", found, links, ids)
                if info is None:
                    continue
                if info.isreg():
                    with open(f"{root}/{name}", "rb") as content:
                        info.size = os.fstat(content.fileno()).st_size
                        tar.addfile(info, content)
                else:
                    tar.addfile(info)
                if info.isdir():
                    pending.append(f"{name}/")


def _info(
    path: str,
    name: str,
    found: os.stat_result,
    links: dict[tuple[int, int], str],
    ids: tuple[IdMap | None, IdMap | None],
) -> tarfile.TarInfo | None:
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(found.st_mode)
    info.mtime = int(found.st_mtime)
    info.uid, info.gid = _inside(ids[0], found.st_uid), _inside(ids[1], found.st_gid)
    key = (found.st_dev, found.st_ino)
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif found.st_nlink > 1 and key in links:
        info.type, info.linkname = tarfile.LNKTYPE, links[key]
    elif stat.S_ISREG(found.st_mode):
        info.type = tarfile.REGTYPE
        links[key] = name
    elif stat.S_ISFIFO(found.st_mode):
        info.type = tarfile.FIFOTYPE
    else:
        return None
    if info.isreg() or info.isdir():
        info.pax_headers = {
            f"SCHILY.xattr.{name}": os.getxattr(path, name).decode("utf-8", "surrogateescape")
            for name in os.listxattr(path)
            if not name.startswith(_OURS)
        }
    return info


def _inside(ids: IdMap | None, own: int) -> int:
    """The container's number for an id of ours; of one that it does not have, its root's."""
    if ids is None:
        return own
    if len(ids.entries) == 1:
        return 0  # one id is all there is, whatever its number
    for inside, outside, size in ids.entries:
        if outside <= own < outside + size:
            return inside + own - outside
    return 0
