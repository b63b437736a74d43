"""--container-network: networks of the tasks' own, ports that lead into them, and names of peers.

``host`` is the machine's network; ``none`` is one with nothing but ``lo``; ``private`` is such a
one with a cable to the step's *hub*, and, where that can be had, a way out (outlet.py). The runtime
makes the namespaces, as config.json asks. The hub is a process in a network namespace of its own,
which holds the host's ports that were published, and carries what connects to them.

    host          127.0.0.1:8080 ──▶ ┐
    task 0  eth0 100.127.128.1 ◀───▶ │ hub: 100.127.0.1:80 → 100.127.128.1:80   task0
    task 1  eth0 100.127.128.2 ◀───▶ ┘      100.127.0.2:80 → 100.127.128.2:80   task1

What a task calls ``task1`` is an address of the hub's, where nothing listens but what was
published; the hub passes no packets on. So tasks do not reach each other in any other way, and need
no firewall. None of it needs root or a tun device: the cables are veth(4) pairs, which the owner of
both namespaces may make, and the step's own user namespace owns both.

What leads out leads nobody in, and not to other tasks: what it carries comes from the machine.

A container is connected while it waits at its gate (gate.py), by the pidfd of its first process, so
that no other process can be mistaken for that one. The hub ends when its supervisor has: with it go
its namespace and the cables.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from roadstead.core import hostlist
from roadstead.errors import LaunchError, RuntimeFailure
from roadstead.host import carrier, files, fork, linux, process, wire
from roadstead.host.loop import Loop
from roadstead.host.netlink import Netlink
from roadstead.step.life import Life, Until

if TYPE_CHECKING:
    from roadstead.core.model import ContainerRequest, StepSpec, TaskSpec
    from roadstead.host.slirp import Slirp

_NAME: Final = "roadstead-hub"
_SECONDS: Final = 10.0
# Of the addresses that providers use among themselves (RFC 6598): the hub's, and the tasks' own.
_HUB, _HUB_BITS = "100.127.0.0", 17
_HUB_ITSELF: Final = "100.127.127.254"
_PER_ADDRESS: Final = 250
_MOST_TASKS: Final = 1000


def peer_address(procid: int) -> str:
    """Where a task is found by the others: an address of the hub's."""
    return f"100.127.{procid // _PER_ADDRESS}.{procid % _PER_ADDRESS + 1}"


def own_address(procid: int) -> str:
    """The address of a task's own network."""
    return f"100.127.{128 + procid // _PER_ADDRESS}.{procid % _PER_ADDRESS + 1}"


def hosts_file(directory: str, procid: int) -> str:
    """What is /etc/hosts in a task's container; ``directory`` is the step's."""
    return f"{directory}/hosts-{procid}"


def resolver_file(directory: str) -> str:
    """What is /etc/resolv.conf where there is a way out; ``directory`` is the step's."""
    return f"{directory}/resolv.conf"


class Network:
    """The networks of one step's containers."""

    def __init__(self, spec: StepSpec, notice: Callable[[str], None]) -> None:
        self._spec, self._notice = spec, notice
        self._hub: _Hub | None = None
        self._way_out = ""  # the program
        self._outlets: list[Slirp] = []

    def request(self, task: TaskSpec) -> ContainerRequest | None:
        """What the task's container is to be."""
        return (self._spec.parts or (self._spec,))[task.part].container

    def is_private(self, task: TaskSpec) -> bool:
        """Whether the task's container is connected to the hub."""
        request = self.request(task)
        return request is not None and request.network == "private"

    def prepared(self, tasks: list[TaskSpec]) -> list[TaskSpec]:
        """Write the names down, and listen on the host; the tasks, with variables that tell where.

        To be called once the supervisor is in the step's namespace.  Raises LaunchError for a port
        of the host that is not free, and where there can be no hub.
        """
        found = [request for each in tasks if (request := self.request(each)) is not None]
        if not any(request.network for request in found):
            return tasks
        private = [each for each in tasks if self.is_private(each)]
        owner = owners(tasks, self._shares)
        if len(private) > _MOST_TASKS:
            raise LaunchError(
                f"--container-network=private is for {_MOST_TASKS} tasks of a machine at most",
                hint="--container-network=host is for any number",
            )
        named = names(self._spec, tasks, {each.procid for each in private}, owner)
        for procid, lines in named.items():  # of those who bring a container
            text = "".join(f"{line}\n" for line in lines)
            files.write_atomically(
                hosts_file(self._spec.directory, procid), text + _of_the_host(), mode=0o644
            )
        if not private:
            return tasks
        from roadstead.host import slirp  # and step.outlet: for these alone

        self._way_out = slirp.program(self._spec.env.get("PATH", ""))
        if self._way_out:
            text = f"nameserver {slirp.RESOLVER}\n" + _searched()
            files.write_atomically(resolver_file(self._spec.directory), text, mode=0o644)
        leads: list[_Lead] = []
        try:
            # Who shares a container has the ports of the one that has brought it.
            told = {
                each.procid: self._published(each, leads)
                for each in private
                if owner[each.procid] == each.procid
            }
            self._hub = _Hub(leads)
        finally:
            for lead in leads:
                if lead[0] >= 0:
                    os.close(lead[0])
        return [
            replace(each, env={**each.env, **told[owner[each.procid]]})
            if self.is_private(each)
            else each
            for each in tasks
        ]

    def _shares(self, task: TaskSpec) -> bool:
        request = self.request(task)
        return request is not None and request.per == "node"

    def _published(self, task: TaskSpec, leads: list[_Lead]) -> dict[str, str]:
        """Variables that tell which ports a container was given; sockets that lead there are added
        to ``leads``."""
        env: dict[str, str] = {}
        request = self.request(task)
        for port in request.publish if request is not None else ():
            leads.append((-1, task.procid, port.inside))
            if port.host is None:
                continue
            try:
                listener, number = carrier.listen(port.address, port.host)
            except OSError as error:
                raise LaunchError(
                    f"--container-publish: {port.address}:{port.host} of the host, for task "
                    f"{task.procid}: {error.strerror}",
                    hint=f"0:{port.inside} takes one that is free, and says which in "
                    f"ROADSTEAD_PORT_{port.inside}",
                ) from None
            leads.append((listener, task.procid, port.inside))
            env[f"ROADSTEAD_PORT_{port.inside}"] = str(number)
        return env

    def admit(self, task: TaskSpec, pid: int) -> Life[None]:
        """Connect a container, while it waits.  Raises RuntimeFailure, LaunchError."""
        if self._hub is None or not self.is_private(task):
            return
        if pid <= 0 or process.namespace(pid, "net") in ("", process.namespace("self", "net")):
            raise RuntimeFailure("the runtime has not made a network of the container's own")
        admission = self._hub.admit(task.procid, pid)
        status = yield Until(admission, _SECONDS)
        if status is None:
            admission.close()
        if status != 0:
            raise LaunchError(
                f"--container-network=private: {admission.failure or 'the hub does not answer'}"
            )
        if self._way_out:
            yield from self._lead_out(task.procid, pid)

    def _lead_out(self, procid: int, pid: int) -> Life[None]:
        """Have a container's network reach beyond this machine."""
        from roadstead.step import outlet

        try:
            begun = outlet.begin(self._way_out, pid)
        except OSError as error:
            raise RuntimeFailure(f"the container cannot be found: {error.strerror}") from None
        self._outlets.append(begun)
        if (yield Until(begun, _SECONDS)) != 0:
            self._notice(
                f"warning: --container-network=private: slirp4netns has failed: task {procid} "
                "reaches nothing beyond what is published"
            )

    def close(self) -> None:
        """The step has ended."""
        for each in self._outlets:
            each.close()
        self._outlets = []
        if self._hub is not None:
            self._hub.close()
            self._hub = None


def owners(tasks: list[TaskSpec], shares: Callable[[TaskSpec], bool]) -> dict[int, int]:
    """By task, the one that its container is called after: itself, or the first of its node."""
    first: dict[tuple[int, str], int] = {}
    return {
        each.procid: first.setdefault((each.part, each.node), each.procid)
        if shares(each)
        else each.procid
        for each in tasks
    }


def names(
    spec: StepSpec, tasks: list[TaskSpec], private: set[int], owner: Mapping[int, int]
) -> dict[int, list[str]]:
    """The lines of /etc/hosts in each task's container: tasks, and the job's nodes, of which those
    of this machine are called as the first of their tasks is."""
    here: set[str] = set()
    shared: list[str] = []  # of those in the machine's network
    peers: list[str] = []
    called: list[str] = []
    for task in tasks:
        node = task.node or spec.node
        called.append(f"task{task.procid}{'' if node in here else f' {node}'}")
        here.add(node)
        shared.append(f"127.0.0.1 {called[-1]}")
        peers.append(f"{peer_address(owner[task.procid])} {called[-1]}")
    before = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    after = []
    for name in hostlist.expand(spec.env.get("SLURM_JOB_NODELIST", "")):
        if name not in here:
            after += [f"{found} {name}" for found in carrier.addresses(name)[:1]]
    common = [*before, *shared, *after]
    lines = {task.procid: common for task in tasks if task.procid not in private}
    for task in tasks:
        if task.procid in private and owner[task.procid] == task.procid:
            mine = owner[task.procid]
            own = [
                f"{own_address(mine)} {called[there]}"
                for there, each in enumerate(tasks)
                if owner[each.procid] == mine
            ]
            others = [
                peers[there] for there, each in enumerate(tasks) if owner[each.procid] != mine
            ]
            lines[task.procid] = [*before, *own, *others, *after]
    return lines


def _of_the_host() -> str:
    """What the machine knows beside; the first line that names somebody counts."""
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _searched() -> str:
    """The lines of the machine's resolv.conf(5) that say how names are completed, and which do not
    name a server."""
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 16).splitlines()
    except OSError:
        return ""
    return "".join(f"{line}\n" for line in lines if line.split()[:1] in (["search"], ["options"]))


# -- the hub, seen from the supervisor ------------------------------------------------------------

# A socket that listens on the host, -1 for the hub's own address, and where it leads: task, port.
_Lead = tuple[int, int, int]


class _Hub:
    def __init__(self, leads: list[_Lead]) -> None:
        """Start it, and wait until it listens.  Raises LaunchError."""
        self._link, theirs = wire.pair()
        body = partial(_be_the_hub, theirs, leads)
        try:
            self._child = process.adopt(fork.run_in_child(body, session=True))
        finally:
            theirs.close()
        first = _Admission(self._link)
        if first.reap():
            self.close()
            raise LaunchError(
                f"--container-network=private: {first.failure or 'the hub has ended'}",
                hint="it needs veth devices; --container-network=host needs nothing",
            )

    def admit(self, procid: int, pid: int) -> _Admission:
        """Have a container connected."""
        answer, theirs = wire.pair()
        pidfd = os.pidfd_open(pid)
        try:
            self._link.send({"admit": procid, "pid": pid}, (pidfd, theirs.fileno()))
        except (BrokenPipeError, ConnectionResetError):
            pass  # its end is seen at the answer's
        finally:
            theirs.close()
            os.close(pidfd)
        return _Admission(answer)

    def close(self) -> None:
        self._link.close()
        self._child.signal(process.KILL)
        self._child.reap()


class _Admission:
    """An answer of the hub's, for which a life can wait."""

    peak = 0

    def __init__(self, answer: wire.Connection) -> None:
        self._answer = answer
        self.failure = ""

    def fileno(self) -> int:
        return self._answer.fileno()

    def reap(self) -> int:
        """Hear it; 0 if all is well."""
        received = self._answer.receive()
        if received is None:
            self.failure = self.failure or "the hub has ended"
            return 1
        received[1].close()
        self.failure = str(received[0].get("failed", ""))
        return 1 if self.failure else 0

    def close(self) -> None:
        self._answer.close()


# -- the hub's own process ------------------------------------------------------------------------


def _be_the_hub(link: wire.Connection, leads: list[_Lead]) -> None:
    linux.set_process_name(_NAME)
    process.keep_only(link.fileno(), *(lead[0] for lead in leads if lead[0] >= 0))
    loop = Loop()
    carried = carrier.Carrier(loop)
    try:
        linux.unshare(linux.CLONE_NEWNET)
        kernel = Netlink()
        kernel.bring_up("lo")
        kernel.take_for_ours(_HUB, _HUB_BITS)
        _forward_nothing()
        for listener, procid, port in leads:
            fd = listener if listener >= 0 else carrier.listen(peer_address(procid), port)[0]
            carried.serve(fd, (own_address(procid), port))
    except OSError as error:
        link.send({"failed": error.strerror or str(error)})
        return
    link.send({"ready": True})

    def hear() -> None:
        received = link.receive()
        if received is None:
            loop.stop()
            return
        message, fds = received
        pidfd, answer = fds.take(0), wire.from_fd(fds.take(1))
        try:
            _connect(kernel, message["admit"], message["pid"], pidfd)
            answer.send({"done": True})
        except (BrokenPipeError, ConnectionResetError):
            pass  # the step is ending
        except OSError as error:
            answer.send({"failed": f"cannot be connected: {error.strerror or error}"})
        finally:
            os.close(pidfd)
            answer.close()

    loop.watch(link, hear)
    loop.run()


def _forward_nothing() -> None:
    """A new namespace has the host's setting, which where there is Docker is to forward."""
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="utf-8") as file:
        file.write("0")


def _connect(kernel: Netlink, procid: int, pid: int, pidfd: int) -> None:
    """Lay the cable, and have a child in the container's network do what is to be done there."""
    name = f"task{procid}"
    space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if process.has_ended(pidfd):  # the number may be another's by now
            raise ProcessLookupError(3, os.strerror(3))
        kernel.add_pair(name, "eth0", space)
    finally:
        os.close(space)
    kernel.bring_up(name)
    kernel.add_route(name, own_address(procid), 32, source=_HUB_ITSELF)
    child = process.adopt(fork.run_in_child(partial(_connect_inside, procid, pidfd)))
    if child.reap():
        raise OSError(5, "its own end cannot be brought up")


def _connect_inside(procid: int, pidfd: int) -> None:
    linux.enter_network(pidfd)
    kernel = Netlink()
    kernel.bring_up("lo")
    kernel.bring_up("eth0")
    kernel.add_address("eth0", own_address(procid))
    kernel.add_route("eth0", _HUB, _HUB_BITS)
