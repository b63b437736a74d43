"""The table of checks, and going through it.

A check is a probe, which touches the world, and a judgement, which is pure.  Each pair runs in a
child of its own with a time limit (host/apart.py): one that hangs, crashes or changes its
namespaces takes nothing with it.  An exception that is not a user's business is our bug, and is
shown as such: a failure of that check, with the exception's name.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from roadstead.doctor import devices, judge, probes, probes_places, probes_runtime
from roadstead.doctor.facts import Finding
from roadstead.errors import RoadsteadError
from roadstead.host import apart, files
from roadstead.step import record, trial

VERSION: Final = 1  # of what as_json gives


@dataclass(frozen=True, slots=True)
class Check:
    """One row.  ``judge`` takes what ``probe`` gives; ``seconds`` is how long both may take, and
    ``grace`` how long the probe may clean up when it is to end before that."""

    name: str
    probe: Callable[[probes.Context], Any]
    judge: Callable[[Any], Finding]
    seconds: float = 10.0
    grace: float = 0.0


# In the order in which things depend on each other: the first failure is the one to mend first.
CHECKS: Final = (
    Check("python", probes.python, judge.python),
    Check("byte-code", probes.bytecode, judge.bytecode),
    Check("kernel", probes.kernel, judge.kernel),
    Check("user-namespaces", probes.user_namespaces, judge.user_namespaces),
    Check("subordinate-ids", probes.subordinate_ids, judge.subordinate_ids),
    Check("cgroups", probes.cgroups, judge.cgroups),
    Check("cgroup-hybrid", probes.cgroup_hybrid, judge.cgroup_hybrid),
    Check("limits", probes.limits, judge.limits),
    Check("overlay", probes.overlay, judge.overlay),
    Check("dev-fuse", probes.fuse, judge.fuse),
    Check("fuse-overlayfs", probes.fuse_overlayfs, judge.tool),
    Check("squashfuse", probes.squashfuse, judge.tool),
    Check("mksquashfs", probes.mksquashfs, judge.tool),
    Check("cdi-devices", devices.probe, devices.judge),
    Check("oci-runtimes", probes_runtime.runtimes, judge.runtimes),
    Check("oci.conf", probes_runtime.oci_conf, judge.oci_conf),
    Check("oci-runtime", probes_runtime.chosen, judge.runtime, 20.0),
    Check("container", probes_runtime.container, judge.container, 120.0, trial.CLEANING + 5),
    Check("state-directory", probes_places.state_disk, judge.disk),
    Check("runtime-directory", probes_places.runtime_disk, judge.disk),
    Check("xdg-runtime-dir", probes_places.runtime_directory, judge.runtime_directory),
    Check("open-files", probes_places.open_files, judge.open_files),
    Check("processes", probes_places.processes, judge.processes),
    Check("controller", probes_places.controller, judge.controller),
    Check("controller-log", probes_places.log, judge.log),
    Check("lingering", probes_places.lingering, judge.lingering),
)


class Interrupted(Exception):
    """A signal asked us to end; ``number`` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def examine(environ: Mapping[str, str], checks: tuple[Check, ...] = CHECKS) -> Iterator[Finding]:
    """Go through ``checks`` for the user that we are; a finding for each, as it comes.

    Raises Interrupted on SIGINT, SIGTERM and SIGHUP.  Leaves nothing, whatever happens.
    """
    context = probes.Context(
        environ=dict(environ),
        user=_user(environ),
        uid=os.getuid(),
        gid=os.getgid(),
        tag=f"{os.getpid()}.{record.start_time(os.getpid())}",
    )
    try:
        for check in checks:
            yield _one(check, context)
    finally:
        _tidy(context)


def _user(environ: Mapping[str, str]) -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environ.get("USER") or str(os.getuid())


def _one(check: Check, context: probes.Context) -> Finding:
    def body(say: apart.Say, lifeline: int) -> None:
        try:
            finding = check.judge(check.probe(replace(context, lifeline=lifeline)))
        except RoadsteadError as error:
            finding = judge.failure("cannot be checked", str(error), error.hint)
        say(asdict(replace(finding, name=check.name)))

    ending = apart.run(body, seconds=check.seconds, grace=check.grace)
    if ending.signal:
        raise Interrupted(ending.signal)
    if ending.said and not ending.overdue:
        return _from_json(ending.said[0])
    printed = tuple(ending.output.strip().splitlines()[-20:])
    if ending.overdue:
        cause = f"it took longer than {check.seconds:.0f} seconds: something hangs"
        return Finding(
            name=check.name, status="failure", found="no result", cause=cause, details=printed
        )
    return Finding(
        name=check.name,
        status="failure",
        found="the check itself failed",
        cause=ending.crash or "its process was killed",
        fix="this is a bug of Roadstead's: report it with the output of roadstead doctor --verbose",
        details=printed,
    )


def _from_json(heard: dict[str, Any]) -> Finding:
    return Finding(**{**heard, "details": tuple(heard["details"])})


def _tidy(context: probes.Context) -> None:
    """Remove what a check that was killed has left, of this run and of earlier ones."""
    try:
        top, scratch = context.runtime, context.scratch()
    except RoadsteadError:
        return  # no home directory: nothing can have been made
    trial.clean(top)
    with contextlib.suppress(OSError):  # one is at work there
        os.rmdir(f"{top}/trials")
    folder = os.path.dirname(scratch)
    for name in os.listdir(folder) if os.access(folder, os.R_OK) else ():
        pid, _, started = name.removeprefix(probes.SCRATCH).partition(".")
        ours = name.startswith(probes.SCRATCH) and pid.isdigit()
        over = ours and (pid == str(os.getpid()) or record.start_time(int(pid)) != started)
        if over and os.lstat(f"{folder}/{name}").st_uid == os.getuid():
            files.remove_tree(f"{folder}/{name}")


def count(findings: list[Finding]) -> dict[str, int]:
    """How many there are of each status."""
    statuses = ("ok", "warning", "failure", "not applicable")
    return {each: sum(finding.status == each for finding in findings) for each in statuses}


def as_json(findings: list[Finding], environ: Mapping[str, str]) -> dict[str, Any]:
    """The object that --json prints; roadstead(1) describes it."""
    return {
        "version": VERSION,
        "host": os.uname().nodename,
        "user": _user(environ),
        "uid": os.getuid(),
        "summary": count(findings),
        "checks": [{**asdict(each), "details": list(each.details)} for each in findings],
    }
