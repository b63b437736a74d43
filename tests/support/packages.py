"""Package archives of one package, which is a static busybox: so the real debootstrap, mmdebstrap
and dnf can install something without a network and in a second."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.components import program

_APPLETS = ("sh", "ls", "cat", "id", "echo", "true")


def _fill(root: Path) -> None:
    for name in ("bin", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(program("busybox") or "", root / "bin/busybox")
    for name in _APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/box").write_text("from a package\n")


def _run(*argv: str | os.PathLike[str], cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout


def debian(top: Path) -> Path:
    """An archive of the suite `stable` in ``top``, which everybody can read."""
    architecture = _run("dpkg", "--print-architecture", cwd=top).strip()
    pool, folder = top / "pool", top / f"dists/stable/main/binary-{architecture}"
    pool.mkdir()
    folder.mkdir(parents=True)
    index = ""
    for name in ("box", "apt"):  # debootstrap installs apt, whatever it is
        build = top / name
        if name == "box":
            _fill(build)
        (build / "DEBIAN").mkdir(parents=True)
        fields = (
            f"Package: {name}\nVersion: 1\nArchitecture: {architecture}\nPriority: required\n"
            "Maintainer: Test <test@example.org>\nDescription: a box\n"
        )
        (build / "DEBIAN/control").write_text(fields)
        package = pool / f"{name}.deb"
        _run("dpkg-deb", "--root-owner-group", "-Zgzip", "-b", build, package, cwd=top)
        data = package.read_bytes()
        index += (
            f"{fields}Filename: pool/{name}.deb\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
        )
        shutil.rmtree(build)
    (folder / "Packages").write_text(index)
    place = f"main/binary-{architecture}/Packages"
    (top / "dists/stable/Release").write_text(
        f"Suite: stable\nCodename: stable\nComponents: main\nArchitectures: {architecture}\n"
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"SHA256:\n {hashlib.sha256(index.encode()).hexdigest()} {len(index)} {place}\n"
    )
    return top


def fedora(top: Path) -> Path:
    """A repository for dnf in ``top``."""
    build = top / "build"
    _fill(build)
    (top / "box.spec").write_text(
        "Name: box\nVersion: 1\nRelease: 1\nSummary: a box\nLicense: none\n"
        "AutoReqProv: no\n%description\na box\n"
        f"%install\nmkdir -p %{{buildroot}}\ncp -a {build}/. %{{buildroot}}/\n"
        "%files\n/bin\n/etc/box\n"
    )
    macros = ("--define", f"_topdir {top}/rpm", "--define", "__os_install_post %{nil}")
    _run(
        "rpmbuild",
        "-bb",
        "--quiet",
        *macros,
        "--define",
        "debug_package %{nil}",
        "box.spec",
        cwd=top,
    )
    (top / "repository").mkdir()
    for path in (top / "rpm/RPMS").rglob("*.rpm"):
        shutil.move(path, top / "repository")
    _run("createrepo_c", "--quiet", "repository", cwd=top)
    return top / "repository"
