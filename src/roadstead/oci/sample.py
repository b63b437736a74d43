"""An oci.conf that calls ``roadstead oci``, for a release of Slurm.

What the releases differ in (read in their sources, and seen on 22.05 and 26.05):

* 22.05 knows no %U, and demands RunTimeQuery in any case; later ones call it as well.
* Before 23.02 config.json is written before a task's variables are known, so we are told which
  release it is.
* From 23.02 on Slurm mounts its spool directory in each container, by default where the root file
  system would have to be written to; /dev is the container's own memory.
* In all of them what is substituted is not quoted, and the commands that clean up are root's.
"""

from __future__ import annotations

from typing import Final, Literal

from roadstead.errors import UsageError

Mode = Literal["run", "create"]
MODES: Final = ("run", "create")
_ID: Final = "%n.%u.%j.%s.%t"
_FIRST: Final = (21, 8)  # that knows containers
_REWRITTEN: Final = (23, 2)


def parse_version(text: str) -> tuple[int, int]:
    """The first two numbers of a version: 22.05, 22.05.8, 26.05.  Raises UsageError."""
    numbers = text.split(".")[:2]
    if len(numbers) < 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise UsageError(f"{text!r:.40} is not a version of Slurm", hint="such as 22.05")
    version = int(numbers[0]), int(numbers[1])
    if version < _FIRST:
        raise UsageError(f"Slurm {text} has no containers", hint="they came with 21.08")
    return version


def oci_conf(version: tuple[int, int], mode: Mode, command: str) -> str:
    """The file's text.  ``command`` is ``roadstead oci`` as a shell on each node is to call it."""
    user = "%U" if version >= _REWRITTEN else "%u"
    release = f"{version[0]}.{version[1]:02}"
    call = f"exec {command}"
    making = f"--user {user} --slurm {release} --bundle '%b' {_ID}"
    lines = [
        f"# oci.conf for Slurm {release}: containers by Roadstead, in {mode} form.",
        "# It lies beside slurm.conf, on every node; no daemon has to be restarted.",
        f'RunTimeQuery="{call} state --user {user} {_ID}"',
        f'RunTimeKill="{call} kill --user {user} {_ID} KILL"',
        f'RunTimeDelete="{call} delete --force --user {user} {_ID}"',
    ]
    if mode == "run":
        lines.append(f'RunTimeRun="{call} run {making}"')
    else:
        lines += [
            "# Slurm itself loses exit codes above 64 and the streams of srun in this form:",
            "# RunTimeRun has neither limit.",
            f'RunTimeCreate="{call} create {making}"',
            f'RunTimeStart="{call} start --user {user} {_ID}"',
        ]
    if version >= _REWRITTEN:
        lines.append('MountSpoolDir="/dev/slurm"')
    return "\n".join(lines) + "\n"


# What the Containers Guide has for Singularity, with keys that exist and all quotes: its OCI
# commands are root's, so whoever may use it may be root, as the guide warns.
NATIVE: Final[dict[str, str]] = {
    f"{name}-oci": f"""\
# oci.conf for {name} oci, which is root's: sudoers has to allow these commands to every user,
# who could change what they are called with.  For tests only.
RunTimeQuery="sudo {name} oci state {_ID}"
RunTimeCreate="sudo {name} oci create --bundle %b {_ID}"
RunTimeStart="sudo {name} oci start {_ID}"
RunTimeKill="sudo {name} oci kill {_ID}"
RunTimeDelete="sudo {name} oci delete {_ID}"
"""
    for name in ("singularity", "apptainer")
}
