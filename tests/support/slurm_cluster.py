"""A real Slurm on this machine, to compare with: munged, slurmctld and several slurmds.

    python -m tests.support.slurm_cluster up [N] [--dir DIR]     print the line to source
    python -m tests.support.slurm_cluster down [--dir DIR]

Needs root and Debian's packages, and touches nothing of an installed Slurm: its own key and socket
for munge, its own slurm.conf, ports that were free a moment ago, loopback only.  Several slurmds
share one host by `slurmd -N` (built with --enable-multiple-slurmd, as Debian's are).  Unprivileged
users submit jobs; an oci.conf turns `--container` on, with crun's `run`.

crun (seen: 1.8 and 1.21) refuses a host that mounts cgroup v1 together with a populated cgroup2
tree at /sys/fs/cgroup/unified.  The slurmds, and so all steps, live in a mount namespace without
that tree; elsewhere the namespace makes no difference.

The daemons carry a mark that slurmstepd and the tasks inherit (`leaks.Mark`); `down` ends what
carries it, as slurmstepd would outlive its slurmd.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support import leaks
from tests.support.account import Account, Argv, Completed
from tests.support.components import ROOT
from tests.support.waiting import eventually

CONF = """\
ClusterName=roadstead
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge/socket
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool-%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters={selected}
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
EnforcePartLimits=ALL
{nodes}
{partitions}
"""
PARTITIONS = (
    "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:16"
)
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=1000"
)
# The guide's patterns for crun's `run`, but for the state directory: /tmp would be everybody's.
OCI_CONF = """\
RunTimeQuery="crun --rootless=true --root={base}/oci/%u state %n.%u.%j.%s.%t"
RunTimeKill="crun --rootless=true --root={base}/oci/%u kill %n.%u.%j.%s.%t KILL"
RunTimeDelete="crun --rootless=true --root={base}/oci/%u delete --force %n.%u.%j.%s.%t"
RunTimeRun="crun --rootless=true --root={base}/oci/%u run --bundle %b %n.%u.%j.%s.%t"
"""
# Started with the node's name and slurm.conf.
SLURMD = """\
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
exec slurmd -D -N "$1" -f "$2"
"""
# Before that, for a node that does not have everything.  What follows slurm.conf is not there:
# UID:PATH is an empty home of its own, PATH is nothing at all.
SLURMD_LACKS = """\
name=$1 conf=$2
shift 2
for each; do
  owner=${each%%:*} path=${each#*:}
  [ -d "$path" ] || continue
  mount -t tmpfs -o mode=0755 tmpfs "$path"
  if [ "$owner" != "$path" ]; then chown "$owner" "$path"; chmod 700 "$path"; fi
done
set -- "$name" "$conf"
"""
# And for one that shares no directory with where jobs are submitted, save Slurm's own files.
SLURMD_APART = """\
hostname "$1"
base=$3
mount --bind "$base" /mnt
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p "$base"
mount --move /mnt "$base"
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
name=$1 conf=$2
shift 3
set -- "$name" "$conf" "$@"
"""


def _version() -> tuple[int, int]:
    said = Account.current().run(["slurmctld", "-V"]).check().stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in bound:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in bound]


class SlurmCluster:
    """N nodes `n1` … `nN`, of as many CPUs as said; a context manager.

    With accounts in `apart` the nodes are as hosts of their own: each has a /tmp, a /var/tmp and
    homes of these accounts that nobody else sees, and a host name.  There, and with directories in
    `hidden`, nodes see nothing in those and where this repository and its environment are.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        cpus: int = 2,
        partitions: str = PARTITIONS,
        selected: str = "CR_Core",
        more: str = "",
        base: Path | None = None,
        mark: leaks.Mark | None = None,
        apart: Sequence[Account] = (),
        hidden: Sequence[Path] = (),
    ) -> None:
        self.nodes = nodes
        self.cpus = cpus
        self.partitions = partitions
        self.selected = selected
        self.more = more  # lines of slurm.conf that count more than those above
        self.base = base or Path(tempfile.mkdtemp(prefix=f"{leaks.PREFIX}slurm-", dir="/tmp"))
        self.conf = self.base / "slurm.conf"
        self.variables = {"SLURM_CONF": os.fspath(self.conf)}
        self.apart = apart
        self.hidden = hidden
        self._root = Account.current()
        self._mark = mark or leaks.Mark()
        self._daemons: list[subprocess.Popen[str]] = []
        self._slurmds: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> SlurmCluster:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def run(self, account: Account, argv: Argv, **options: Any) -> Completed:
        """Run one of the real Slurm's commands, or something that calls them."""
        env = {**self.variables, **(options.pop("env", None) or {})}
        return account.run(argv, env=env, cwd=options.pop("cwd", "/tmp"), **options)

    def up(self) -> None:
        """Start everything and wait until all nodes are idle."""
        self._write_files()
        munge = self.base / "munge"
        self._start(
            "munged", "--foreground", "--num-threads=2",
            f"--socket={munge}/socket", f"--key-file={munge}/key", f"--pid-file={munge}/pid",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        eventually((munge / "socket").is_socket, what="munged listens")
        self._start("slurmctld", "-D", "-i", "-f", self.conf)
        for number in range(1, self.nodes + 1):
            self._start_slurmd(f"n{number}")
        eventually(self._is_idle, timeout=60, what=f"the nodes are idle, see {self.base}/*.log")

    def kill_slurmd(self, node: str) -> None:
        """SIGKILL to the slurmd of a node; its slurmstepds go on."""
        killed = self._slurmds.pop(node)
        self._daemons.remove(killed)
        killed.kill()
        killed.communicate()

    def restart(self) -> None:
        """Start the slurmds that were killed."""
        for number in range(1, self.nodes + 1):
            if f"n{number}" not in self._slurmds:
                self._start_slurmd(f"n{number}")

    def heal(self) -> None:
        """Wait until all nodes are idle; one that Slurm has taken away is given back."""

        def healed() -> bool:
            if self._is_idle():
                return True
            time.sleep(0.1)
            down = "scontrol update nodename=n[1-{}] state=resume 2>/dev/null; true"
            self.run(self._root, ["sh", "-c", down.format(self.nodes)])
            return False

        eventually(healed, timeout=60, what=f"the nodes are idle again, see {self.base}/*.log")

    def _start_slurmd(self, node: str) -> None:
        argv = ["unshare", "--mount", "--uts", "sh", "-ec"]
        hidden = [os.fspath(each) for each in (ROOT, Path(sys.prefix), *self.hidden)]
        homes = [f"{each.uid}:{each.home}" for each in self.apart]
        node_and_conf = (node, os.fspath(self.conf))
        if self.apart:
            argv += [SLURMD_APART + SLURMD_LACKS + SLURMD, "sh", *node_and_conf]
            argv += [os.fspath(self.base), *hidden, *homes]
        elif self.hidden:
            argv += [SLURMD_LACKS + SLURMD, "sh", *node_and_conf, *hidden]
        else:
            argv += [SLURMD, "sh", *node_and_conf]
        self._slurmds[node] = self._start(*argv)

    def down(self) -> None:
        """End everything and delete the directory."""
        leaks.kill(self._mark)
        for each in self._daemons:
            each.communicate()
        self._daemons.clear()
        self._slurmds.clear()
        leaks.remove(self.base)

    def _write_files(self) -> None:
        self.base.chmod(0o755)
        for name in ("munge", "state", "oci", *(f"spool-n{i + 1}" for i in range(self.nodes))):
            (self.base / name).mkdir()
        (self.base / "oci").chmod(0o1777)
        key = self.base / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        port, *ports = _free_ports(self.nodes + 1)
        nodes = [
            NODE.format(name=f"n{i}", host=host, port=each, cpus=self.cpus)
            for i, each in enumerate(ports, 1)
        ]
        self.conf.write_text(
            CONF.format(
                host=host,
                port=port,
                base=self.base,
                nodes="\n".join(nodes),
                partitions=self.partitions,
                selected=self.selected,
            )
            + f"{self.more}\n"
        )
        (self.base / "oci.conf").write_text(OCI_CONF.format(base=self.base))
        if _version() >= (24, 5):
            # Nothing here needs the plugin, and it would want systemd.
            (self.base / "cgroup.conf").write_text("CgroupPlugin=disabled\n")

    def _start(self, *argv: str | Path) -> subprocess.Popen[str]:
        with self._mark.inherited() as marks, open(self.base / "daemons.log", "a") as log:
            daemon = self._root.popen(argv, env={**self.variables, **marks}, stdout=log, stderr=log)
        self._daemons.append(daemon)
        return daemon

    def _is_idle(self) -> bool:
        for each in self._daemons:
            assert each.poll() is None, (self.base / "daemons.log").read_text()
        said = self.run(self._root, ["sinfo", "--noheader", "--states=idle", "--format=%D"])
        return said.stdout.strip() == str(self.nodes)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="slurm_cluster", description=__doc__.partition("\n")[0])
    parser.add_argument("verb", choices=("up", "down"))
    parser.add_argument("nodes", type=int, nargs="?", default=1)
    parser.add_argument("--dir", type=Path, default=Path(f"/tmp/{leaks.PREFIX}slurm-cluster"))
    options = parser.parse_args()
    record = options.dir / "mark.json"
    if options.verb == "up":
        options.dir.mkdir()
        cluster = SlurmCluster(options.nodes, base=options.dir).__enter__()
        record.write_text(json.dumps([cluster._mark.token, cluster._mark.rttime]))
        print(f"export SLURM_CONF={cluster.conf}", flush=True)
        # The daemons stay, and Popen would complain about that.
        os._exit(0)
    mark = leaks.Mark(*json.loads(record.read_text()))
    SlurmCluster(base=options.dir, mark=mark).down()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
