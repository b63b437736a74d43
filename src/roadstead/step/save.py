"""``--container-save``: what a step's container is at its end becomes an image.

A squashfs as Enroot exports them (by mksquashfs(1)), or an OCI image in a layout or an archive of
one.  What is asked for is checked before the step starts, as far as that can be known then.  The
image is written beside its place and put there when it is whole, over what was there before; the
name that it is written under is in the step's claim, so that nothing is left of it.

The image's configuration goes with it: in a squashfs as Enroot keeps it, /etc/environment for the
variables and /etc/rc for the entrypoint and the working directory.  A container's layer has the ids
of the step's namespace; they are written as the container sees them.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from roadstead.errors import LaunchError
from roadstead.host import files, fork, process
from roadstead.host.loop import Loop
from roadstead.images.model import ImageConfig
from roadstead.oci.runtime import ALSO

if TYPE_CHECKING:
    from roadstead.core.model import StepSpec
    from roadstead.step.contents import Contents
    from roadstead.step.plan import Plan

_ENROOT_ENTRYPOINT: Final = ("/bin/sh", "/etc/rc")
_LAYOUT: Final = "oci-layout"


class Saving:
    """What is to be saved of one step.  All of it does nothing where nothing is."""

    def __init__(self, loop: Loop, spec: StepSpec) -> None:
        request = spec.container
        self._loop = loop
        self._spec = spec
        self._path = "" if request is None else request.save
        self._kind = "squashfs" if request is None else request.save_kind
        self._tag = "" if request is None else request.save_tag
        self._mksquashfs = ""
        self._child: process.Child | None = None
        self._stopped = False

    @property
    def files(self) -> list[str]:
        """What could be left if the supervisor were killed."""
        return [self._new] if self._path else []

    @property
    def _new(self) -> str:
        """What is written until it is whole."""
        above, name = os.path.split(self._path)
        return f"{above}/.{name}.{self._spec.job_id}.{self._spec.step_id}.new"

    @classmethod
    def check_request(cls, spec: StepSpec) -> None:
        """As ``check``, for who saves nothing."""
        cls(Loop(), spec).check()

    def check(self) -> None:
        """Raise LaunchError for what cannot be written."""
        if not self._path:
            return
        above = os.path.dirname(self._path)
        where = f"--container-save={self._path}"
        if not os.path.isdir(above):
            raise LaunchError(f"{where}: there is no directory {above}", hint="make it first")
        if not os.access(above, os.W_OK | os.X_OK):
            raise LaunchError(f"{where}: cannot write to {above}")
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            found = None
        if self._kind == "oci":
            if found is not None and not _is_layout(self._path):
                raise LaunchError(
                    f"{where}: there is something else than an OCI layout",
                    hint="name a directory that is not there yet, or an OCI layout",
                )
        elif found is not None and not stat.S_ISREG(found.st_mode):
            raise LaunchError(f"{where}: not a regular file", hint="name the file to write")
        if self._kind == "squashfs":
            path = ":".join(filter(None, (self._spec.env.get("PATH"), ALSO)))
            self._mksquashfs = process.which("mksquashfs", path) or ""
            if not self._mksquashfs:
                raise LaunchError(
                    f"{where}: mksquashfs is needed to write a squashfs, and is not installed",
                    hint="apt install squashfs-tools, or save as an OCI archive: NAME.tar",
                )

    def start(self, plan: Plan, done: Callable[[str], None]) -> None:
        """Save it, and call ``done`` with why it could not be, or ""."""
        if not self._path or self._stopped:
            done("")
            return
        said = os.memfd_create("roadstead-save", os.MFD_CLOEXEC)
        try:
            child = self._child = self._begin(plan, said)
        except OSError as error:
            os.close(said)
            done(self._failure(error.strerror or str(error)))
            return

        def ended() -> None:
            self._loop.unwatch(child)
            self._child = None
            status = child.reap()
            lines = os.pread(said, 1 << 16, 0).decode(errors="replace").strip().splitlines()
            os.close(said)
            done(self._ended(status, lines[-1] if lines else ""))

        self._loop.watch(child, ended)

    def stop(self) -> None:
        """The step is to end now."""
        self._stopped = True
        if self._child is not None:
            self._child.signal(process.KILL)

    def _begin(self, plan: Plan, said: int) -> process.Child:
        assert plan.contents is not None
        root, image = plan.shared or plan.rootfs, _configuration(plan.contents)
        if self._kind != "squashfs":
            return process.adopt(fork.run_in_child(lambda: self._write(plan, root, image, said)))
        argv = [self._mksquashfs, root, self._new, "-noappend", "-no-progress", "-quiet"]
        argv += ["-processors", str(len(self._spec.cpus or os.sched_getaffinity(0)))]
        ranged = plan.uids is not None and len(plan.uids.entries) > 1 and not plan.uids.process
        if self._spec.uid and not ranged:
            argv.append("-all-root")  # one id is all there is, whatever its number
        argv += self._enroot_files(root, image)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return process.spawn(argv, env=plan.runtime_env, stdio=(null, null, said))
        finally:
            os.close(null)

    def _enroot_files(self, root: str, image: ImageConfig) -> list[str]:
        """The arguments by which the image's configuration is put in, as Enroot has it."""
        if image.entrypoint == _ENROOT_ENTRYPOINT:
            return []  # they are there
        texts = {
            "etc/environment": "".join(f"{each}\n" for each in image.env if "\n" not in each),
            "etc/rc": _script(image),
        }
        argv = [] if os.path.isdir(f"{root}/etc") else ["-p", "etc d 755 0 0"]
        for inner, text in texts.items():
            mine = f"{self._spec.directory}/{os.path.basename(inner)}"
            files.write_atomically(mine, text)
            mode = "755" if inner == "etc/rc" else "644"
            argv += ["-p", f"{inner} f {mode} 0 0 cat {shlex.quote(mine)}"]
        # The option of what is left out takes all words after it.
        return [*argv, "-e", *texts]

    def _write(self, plan: Plan, root: str, image: ImageConfig, said: int) -> None:
        """In a process of its own: the OCI image."""
        from roadstead.images import ociimage  # tarfile

        try:
            os.mkdir(self._new, 0o700)
            ids = (plan.uids, plan.gids)
            name = ociimage.stage(root, image, self._new, self._tag, ids)
            if self._kind == "oci":
                ociimage.add_to_layout(self._new, self._path, name)
            else:
                ociimage.archive(self._new, f"{self._new}/archive")
                os.rename(f"{self._new}/archive", self._path)
        except OSError as error:
            os.write(said, (error.strerror or str(error)).encode())
            os._exit(1)

    def _ended(self, status: int, words: str) -> str:
        try:
            if status:
                return self._failure(words or f"it was ended by signal {-status}")
            if self._kind == "squashfs":
                os.chmod(self._new, 0o666 & ~self._spec.umask)
                os.rename(self._new, self._path)
        except OSError as error:
            return self._failure(error.strerror or str(error))
        finally:
            self._remove()
        return ""

    def _remove(self) -> None:
        if os.path.isdir(self._new):
            files.remove_tree(self._new)
        elif os.path.lexists(self._new):
            os.unlink(self._new)

    def _failure(self, why: str) -> str:
        return f"--container-save={self._path}: not saved: {why}"


def _is_layout(path: str) -> bool:
    return os.path.isdir(path) and (
        os.path.isfile(f"{path}/{_LAYOUT}") or not os.listdir(path)
    )  # fmt: skip


def _configuration(contents: Contents) -> ImageConfig:
    """The image's; of a bundle what its config.json says of the process."""
    if contents.is_image:
        return contents.image
    process_ = contents.bundle.config.get("process") or {}
    return ImageConfig(
        cmd=tuple(process_.get("args") or ()),
        env=tuple(process_.get("env") or ()),
        workdir=process_.get("cwd") or "",
    )


def _script(image: ImageConfig) -> str:
    """What Enroot runs, with the command as its arguments."""
    entrypoint, command = shlex.join(image.entrypoint), shlex.join(image.cmd or ("/bin/sh",))
    lines = []
    if image.workdir:
        lines += [f"cd {shlex.quote(image.workdir)} || exit 1"]
    lines += [f"[ $# -gt 0 ] || set -- {command}", f'exec {entrypoint} "$@"'.replace("  ", " ")]
    return "\n".join(lines) + "\n"
