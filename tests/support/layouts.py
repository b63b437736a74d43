"""OCI layouts made byte for byte, so that they can be as large, as many or as wrong as a test
wants."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import random
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_SPEC = "application/vnd.oci.image"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
ARCHITECTURE = _MACHINES.get(platform.machine(), platform.machine())


Member = tuple[str, dict[str, Any]]


def tar_of(members: list[Member], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar file of (name, fields of TarInfo and ``data``)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            data = fields.get("data", b"")
            info.size = len(data)
            info.mtime = 1_000_000_000
            for key, value in fields.items():
                if key != "data":
                    setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data) if data else None)
    return buffer.getvalue()


def a_file(name: str, data: bytes = b"x", **more: Any) -> Member:
    return name, {"data": data, "mode": 0o644, **more}


def a_directory(name: str, **more: Any) -> Member:
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **more}


def a_link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return name, {"type": kind, "linkname": target}


def layer(files: Mapping[str, bytes], directories: Iterable[str] = ()) -> bytes:
    """A layer's tar file: programs of mode 0755, all of it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in directories:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_000_000_000
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o755, 1_000_000_000
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def random_layers(seed: int, count: int, files: int, size: int) -> list[bytes]:
    """Layers of many files with contents that compress a little."""
    generator = random.Random(seed)
    found = []
    for number in range(count):
        contents = {
            f"usr/share/{number}/{each % 10}/{each}": generator.randbytes(generator.randrange(size))
            + bytes(size // 2)
            for each in range(files)
        }
        found.append(layer(contents))
    return found


def put(layout: Path, data: bytes, kind: str, **more: Any) -> dict[str, Any]:
    """Add a blob; its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}


def write(
    layout: Path,
    layers: Sequence[bytes],
    *,
    tag: str = "latest",
    compress: bool = True,
    config: Mapping[str, Any] | None = None,
    architecture: str = ARCHITECTURE,
) -> Path:
    """An image of these layers (tar files), under one more tag of the layout."""
    layout.mkdir(parents=True, exist_ok=True)
    inner = {"Cmd": ["sh"], "Env": ["PATH=/bin"], **(config or {})}
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": inner,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers],
        },
    }
    kind = f"{_SPEC}.layer.v1.tar" + ("+gzip" if compress else "")
    blobs = [
        put(layout, gzip.compress(each, 1, mtime=0) if compress else each, kind) for each in layers
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_SPEC}.manifest.v1+json",
        "config": put(layout, json.dumps(document).encode(), f"{_SPEC}.config.v1+json"),
        "layers": blobs,
    }
    described = put(
        layout,
        json.dumps(manifest).encode(),
        f"{_SPEC}.manifest.v1+json",
        annotations={"org.opencontainers.image.ref.name": tag},
    )
    index_file = layout / "index.json"
    index = json.loads(index_file.read_text()) if index_file.exists() else {"manifests": []}
    entries = [*index["manifests"], described]
    index_file.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for top, _, names in os.walk(layout):
        Path(top).chmod(0o755)
        for name in names:
            (Path(top) / name).chmod(0o644)
    return layout
