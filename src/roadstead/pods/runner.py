"""A pod on a node: the program that a job's only task runs.

It makes the pod's surroundings (sandbox.py), and does what the pod's course (course.py) says: it
starts containers as a supervisor does (step/), asks their probes, and ends as they did.  Of what it
does not survive itself its claim tells (step/record.py): whoever sweeps the step sweeps that.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
from dataclasses import replace
from functools import partial
from typing import Any, Final

from roadstead.core.model import (
    BATCH_STEP,
    ContainerRequest,
    Gres,
    Share,
    StepSpec,
)
from roadstead.errors import EngineError, LaunchError, RoadsteadError
from roadstead.host import carrier, files, linux, paths, process, removal, slirp
from roadstead.host.loop import Loop
from roadstead.images import holds
from roadstead.images.store import Store
from roadstead.pods import course, limits, outlet, records
from roadstead.pods import plan as plans
from roadstead.pods.course import Course
from roadstead.pods.model import Container, Image, Plan, Pod
from roadstead.pods.output import Output, say
from roadstead.pods.sandbox import Sandbox, disk_place
from roadstead.pods.unit import Unit
from roadstead.step import plan as step_plans
from roadstead.step import processes, record, sweep
from roadstead.step.life import Lives

SIGNALS: Final = (1, 2, 15)  # SIGHUP, SIGINT, SIGTERM
_GPU_VARIABLES: Final = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
_LOCAL: Final = "127.0.0.1"
_RUNS: Final = 1000  # of a pod, as far as their numbers go
_DEATH_SECONDS: Final = 10.0
STATUS: Final = "status.json"


class Runner:
    """One pod, from its first file to its exit code.

    ``number`` is that of a Job's pod, ``index`` the same of an indexed one; ``serial`` is another
    for each pod that the step has started, and
    ``restarts`` how often containers of one may start again.  ``labelled``: there are other pods.
    """

    def __init__(
        self,
        pod: Pod,
        plan: Plan,
        step: str,
        *,
        index: int | None = None,
        number: int | None = None,
        serial: int = 0,
        restarts: int | None = None,
        labelled: bool = False,
    ) -> None:
        self.pod = pod
        self._plan = plan
        self._step = step
        self._index = index
        self.name = name = pod.name if number is None else f"{pod.name}-{number}"
        self.directory = f"{step}/{record.INNER}/{name}" + (f".{serial}" if serial else "")
        self._disk = f"{disk_place()}/{os.path.basename(step)}.{name}.{os.urandom(4).hex()}"
        self.loop = Loop()
        self.lives = Lives(self.loop)
        self._carrier = carrier.Carrier(self.loop)
        self.output = Output(
            self.loop,
            labelled=labelled or len(pod.containers) > 1,
            prefix=f"{name}/" if labelled else "",
        )
        self.course = Course(pod, restarts)
        self.units: dict[str, Unit] = {}
        self._files: list[str] = []
        self._claims: dict[str, dict[str, object]] = {}
        self._images = {each.reference: each for each in plan.images}
        # Runs are numbered through: their control groups have the step's name and this number.
        self._number = _RUNS * serial
        self._code = 0
        self._outlet: outlet.Outlet | None = None
        self._record: records.Record = {}
        self._record_path = ""
        self._spec = self._step_spec()
        self._fields = self._known_fields()
        self.sandbox = Sandbox(pod, self.directory, self._disk, self._fields)
        base = os.path.basename(step)
        self.limits = limits.Limits(
            pod, f"roadstead-{base}.{name}" + (f".{serial}" if serial else "")
        )

    # -- start ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run the pod to its end; its exit code."""
        linux.set_child_subreaper()
        self._record = self._begin_record()  # of the process that this is now (batch.py)
        for signo in SIGNALS:
            self.loop.on_signal(signo, lambda signo=signo: self._signalled(signo))  # type: ignore[misc]
        try:
            self._prepare()
        except RoadsteadError as error:
            self.complain(f"{error}{'; ' + error.hint if error.hint else ''}")
            self._clean(error.exit_code)
            return error.exit_code
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            self.complain(f"cannot set up the pod:{where} {error.strerror}")
            self._clean(1)
            return 1
        if self.pod.deadline is not None:
            self.loop.call_later(self.pod.deadline, self._out_of_time)
        self._obey(self.course.begin())
        self.loop.run()
        self._clean(self._code)
        self.loop.close()
        return self._code

    def _prepare(self) -> None:
        os.makedirs(os.path.dirname(self.directory), mode=0o700, exist_ok=True)
        os.mkdir(self.directory, 0o700)
        os.mkdir(f"{self.directory}/containers", 0o700)
        held = self._paths_of_holds()
        self._files = [self._disk, *held]
        self._write_claim()
        self._hold()
        if self.limits.complaint:
            self.complain(self.limits.complaint)
        found = slirp.program(os.environ.get("PATH", "")) if self.pod.network == "" else ""
        if found:
            self._outlet = outlet.Outlet(found)
        leads = self._listen()  # on the node's addresses, which are out of reach from now on
        made = step_plans.prepare(self._spec, self.notice)
        self.sandbox.enter()
        for listener, number in leads:
            self._carrier.serve(listener, (_LOCAL, number))
        self._open_outlet()
        self.sandbox.make()
        if self.pod.share_pid:
            self.sandbox.share_processes()
        for wanted, plan in zip(self.pod.containers, made, strict=True):
            assert plan is not None
            request = replace(plan.request, mounts=self.sandbox.mounts(wanted))
            mine = replace(
                plan,
                request=request,
                runtime_root=f"{self.directory}/containers",
                runtime_env={**plan.runtime_env, record.MARK: self._step},
            )
            mine = replace(mine, adapt=partial(self._adapt, wanted, mine.privileged))
            self._check_user(wanted, mine)
            self.units[wanted.name] = Unit(self, wanted, mine)
        self._write_status()

    def _open_outlet(self) -> None:
        """Have the network that we are in now reach beyond itself, where the node has the means."""
        if self._outlet is None:
            return
        if not self._outlet.open():
            self.complain("warning: slirp4netns has failed: the pod reaches nothing beyond itself")
            return
        self.sandbox.address, self.sandbox.resolver = slirp.ADDRESS, slirp.RESOLVER
        self._fields.update({"status.podIP": slirp.ADDRESS, "status.podIPs": slirp.ADDRESS})

    def _adapt(self, wanted: Container, privileged: bool, config: dict[str, Any]) -> None:
        self.sandbox.adapt(wanted, config)
        if privileged:
            limits.adapt(wanted, config)

    def _listen(self) -> list[tuple[int, int]]:
        """Descriptors that listen where hostPorts say, and the ports of the pod that they lead to.
        Raises LaunchError."""
        found: list[tuple[int, int]] = []
        if self.pod.network == "host":
            return found
        for container in self.pod.containers:
            for port in container.ports:
                if not port.host:
                    continue
                address = port.address or "0.0.0.0"
                try:
                    found.append((carrier.listen(address, port.host)[0], port.number))
                except OSError as error:
                    raise LaunchError(
                        f"container {container.name}: hostPort {port.host}: {error.strerror}"
                    ) from None
        return found

    def _write_claim(self) -> None:
        record.write_claim(
            self.directory, {**self._left, "containers": list(self._claims.values())}
        )

    @property
    def _left(self) -> dict[str, object]:
        return {"files": self._files, "groups": self.limits.groups}

    def claim(self, name: str, claim: dict[str, object]) -> None:
        """Write down what a run of a container may leave, before it is there."""
        self._claims[name] = claim
        self._write_claim()

    def _step_spec(self) -> StepSpec:
        """The pod as a step whose parts are its containers."""
        environ = dict(os.environ)
        uid = os.getuid()
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            user = str(uid)
        node = environ.get("SLURMD_NODENAME") or os.uname().nodename
        step = environ.get("SLURM_STEP_ID", "")
        whole = StepSpec(
            job_id=int(environ.get("SLURM_JOB_ID") or 0),
            step_id=int(step) if step.isdigit() else BATCH_STEP,
            kind="run",
            name=self.pod.name,
            user=user,
            uid=uid,
            gid=os.getgid(),
            node=node,
            cwd=os.getcwd(),
            argv=("pod",),
            env=environ,
            umask=paths.umask(),
            ntasks=len(self.pod.containers),
            directory=self.directory,
        )
        parts = tuple(
            replace(whole, ntasks=1, container=self._request(each), shares=self._shares(each, node))
            for each in self.pod.containers
        )
        return parts[0] if len(parts) == 1 else replace(whole, parts=parts)

    def _shares(self, wanted: Container, node: str) -> tuple[Share, ...]:
        """The job's GPUs, for a container that asked for some."""
        numbers = os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or ""
        if not wanted.resources.gpus or not numbers:
            return ()
        indexes = tuple(int(each) for each in numbers.split(",") if each.isdigit())
        gres = Gres(name="gpu", count=len(indexes), indexes=indexes)
        return (Share(node=node, cpus=(), gres=(gres,), ntasks=1),)

    def _request(self, wanted: Container) -> ContainerRequest:
        image = self._images[wanted.image]
        names = [each.name for each in wanted.env]
        if wanted.resources.gpus:
            names += _GPU_VARIABLES
        ids: tuple[int, ...] = ()
        if wanted.uid is not None or wanted.gid is not None:
            ids = (wanted.uid or 0, wanted.gid or 0)
        return ContainerRequest(
            bundle=image.bundle,
            image=image.digest,
            store=image.store,
            writable="private",
            readonly=wanted.readonly,
            env_policy="image",
            inner_workdir=wanted.workdir,
            keep_env=("HOSTNAME", "JOB_COMPLETION_INDEX", *names),
            ids=ids,
            verbose=self._plan.verbose,
        )

    def _check_user(self, wanted: Container, plan: step_plans.Plan) -> None:
        if not wanted.non_root or plan.bundle is None:
            return
        inside = plan.user or (plan.bundle.config["process"].get("user") or {}).get("uid", 0)
        number = inside[0] if isinstance(inside, tuple) else inside
        if wanted.uid == 0 or (wanted.uid is None and number == 0):
            raise LaunchError(
                f"container {wanted.name} would run as root, and has runAsNonRoot",
                hint="give it runAsUser",
            )

    # -- images that must stay --------------------------------------------------------------------

    def _stores(self) -> list[tuple[Store, Image]]:
        found = []
        for each in self._plan.images:
            if each.digest:
                path, *others = each.store.split(":")
                found.append((Store(path, others=tuple(others)), each))
        return found

    @property
    def _who(self) -> str:
        return f"{os.getuid()}-pod-{os.path.basename(self._step)}-{self.name}"

    def _paths_of_holds(self) -> list[str]:
        return [
            path
            for store, image in self._stores()
            for path in holds.paths(store, image.digest, self._who)
        ]

    def _hold(self) -> None:
        for store, image in self._stores():
            holds.take(store, image.digest, self._who, f"pod {self.name}")

    # -- what containers are given ----------------------------------------------------------------

    def _known_fields(self) -> dict[str, str]:
        address = _LOCAL
        memory = os.environ.get("SLURM_MEM_PER_NODE", "")
        cpus = os.environ.get("SLURM_CPUS_ON_NODE", "") or str(os.cpu_count() or 1)
        job = os.environ.get("SLURM_JOB_ID", "0")
        found = {
            "spec.nodeName": os.environ.get("SLURMD_NODENAME") or os.uname().nodename,
            "metadata.uid": f"{job}.{os.environ.get('SLURM_STEP_ID', 'batch')}.{self.name}",
        }
        for name in ("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"):
            found[name] = address
        for name, amount in (
            ("cpu", float(cpus)),
            ("memory", float(memory) * (1 << 20) if memory.isdigit() else _memory()),
        ):
            found[f"limits.{name}"] = str(amount)
        return found

    def field(self, name: str) -> str:
        """The value of a field that only the node knows."""
        resource, slash, divisor = name.partition("/")
        if slash:
            return str(-int(-float(self._fields[resource]) // float(divisor)))
        return self._fields[name]

    def environment(self, wanted: Container) -> dict[str, str]:
        """The variables of a container, but for the image's: the job's that tell where it is, and
        its own."""
        env = {n: v for n, v in os.environ.items() if n.startswith("SLURM_")}
        if wanted.resources.gpus:
            env |= {n: os.environ[n] for n in _GPU_VARIABLES if n in os.environ}
        env["HOSTNAME"] = self.pod.hostname if self.pod.network != "host" else os.uname().nodename
        if self._index is not None:
            env["JOB_COMPLETION_INDEX"] = str(self._index)
        for each in wanted.env:
            value = self.field(each.field) if each.field else plans.expand(each.value, env)
            env[each.name] = value
        env["ROADSTEAD_STEP"] = os.environ.get("ROADSTEAD_STEP", "")
        env[record.MARK] = self._step
        return env

    def arguments(self, wanted: Container, plan: step_plans.Plan) -> tuple[str, ...]:
        """What a container executes.  Raises LaunchError where there is nothing."""
        contents = plan.contents
        assert contents is not None
        entrypoint, words = contents.image.entrypoint, contents.image.cmd
        if not contents.is_image:
            words = tuple((contents.bundle.config.get("process") or {}).get("args") or ())
            if wanted.args is not None and wanted.command is None:
                raise LaunchError(
                    f"container {wanted.name} has args and no command, and a bundle has no "
                    "entrypoint",
                    hint="give the whole command as command:",
                )
        found = plans.arguments(wanted, entrypoint, words)
        if not found:
            raise LaunchError(
                f"container {wanted.name} has no command, and its image has none",
                hint="give it a command:",
            )
        env = self.environment(wanted)
        return tuple(plans.expand(each, env) for each in found)

    def next_number(self) -> int:
        """A number for a run, which no other has."""
        self._number += 1
        return self._number - 1

    # -- what happens -----------------------------------------------------------------------------

    def begun(self, unit: Unit) -> None:
        """A container's program has been started."""
        if self._plan.verbose:
            self.complain(f"container {unit.name} has been started")

    def started(self, unit: Unit, *, ready: bool) -> None:
        """A container runs, and its startup probe has succeeded."""
        self.course.statuses[unit.name].ready = ready
        self._obey(self.course.started(unit.name))
        self._write_status()

    def ready(self, unit: Unit, good: bool, why: str) -> None:
        """A container's readiness has changed."""
        self.course.statuses[unit.name].ready = good
        if why:
            self.complain(f"container {unit.name} is not ready: {why}")
        self._write_status()

    def ended(self, unit: Unit, code: int, seconds: float, sentence: str) -> None:
        """A run of a container is over."""
        self._claims.pop(unit.name, None)
        if sentence:
            self.complain(f"container {unit.name}: {sentence}")
        if self.limits.killed(unit.name):
            size = unit.wanted.resources.memory_limit >> 20
            self.complain(
                f"container {unit.name}: the kernel has killed a process of it for want of memory "
                f"(limits.memory: {size} MiB)"
            )
        orders = self.course.ended(unit.name, code, seconds)
        for order in orders:
            if isinstance(order, course.Start) and order.name == unit.name:
                self._tell_of_restart(unit, code, order.delay)
        self._obey(orders)
        self._write_status()

    def _tell_of_restart(self, unit: Unit, code: int, delay: float) -> None:
        when = f"in {delay:g} s" if delay else "now"
        self.complain(
            f"container {unit.name} has ended with exit code {code}: it is started again {when} "
            f"(restartPolicy: {unit.wanted.restart})"
        )

    def _obey(self, orders: list[course.Order]) -> None:
        for order in orders:
            if isinstance(order, course.Start):
                name = order.name
                self.loop.call_later(order.delay, lambda name=name: self._start(name))  # type: ignore[misc]
            elif isinstance(order, course.Stop):
                self.units[order.name].stop(process.TERM)
            else:
                self._code = order.code
                self.output.when_drained(self.loop.stop)

    def _start(self, name: str) -> None:
        if self.course.starts(name):
            self.units[name].start()
            self._write_status()

    def _signalled(self, signo: int) -> None:
        self._obey(self.course.stop("signal"))
        self._write_status()

    def _out_of_time(self) -> None:
        self.complain(f"it has run for {self.pod.deadline:g} s (activeDeadlineSeconds): ending it")
        self._obey(self.course.stop("deadline"))
        self._write_status()

    def notice(self, sentence: str) -> None:
        """What step/ has to say of a container."""
        if self._plan.verbose or sentence.startswith(("error:", "warning:")):
            self.complain(sentence)

    def complain(self, sentence: str) -> None:
        """Tell the user."""
        say(f"pod {self.name}: {sentence}")

    def _write_status(self) -> None:
        found = [
            {
                "name": each.name,
                "role": each.container.role,
                "state": each.state,
                "started": each.started,
                "ready": each.ready,
                "restarts": max(0, each.runs - 1),
                "code": each.code,
                "runs": each.runs,
                "due": each.due,
                "image": each.container.image,
                "prefix": self.output.label(each.name),
            }
            for each in self.course.statuses.values()
        ]
        with contextlib.suppress(OSError):
            files.write_atomically(f"{self.directory}/{STATUS}", json.dumps(found))
        self._record.update(containers=found, reason=self.course.ending)
        self._write_record()

    def _begin_record(self) -> records.Record:
        pod = self.pod
        labels = {"namespace": pod.namespace, "labels": pod.labels}
        return records.new(os.environ, pod=self.name, **labels)

    def _write_record(self) -> None:
        try:
            self._record_path = self._record_path or records.path_of(os.environ, self._record)
            records.write(self._record_path, self._record)
        except (OSError, EngineError) as error:  # the pod runs all the same
            if self._plan.verbose:
                self.complain(f"`roadstead pod ls` will not know how it is: {error}")

    # -- the end ----------------------------------------------------------------------------------

    def _clean(self, code: int) -> None:
        """End what is left, and remove what was made."""
        records.end(self._record, code)
        self._write_record()
        if self._outlet is not None:
            self._outlet.close()
        processes.end_below(self._step, _DEATH_SECONDS)  # what does not the supervisor speaks of
        if not os.path.isdir(self.directory):
            return
        self.sandbox.unmount()
        self.limits.close()
        sweep.remove_claimed({**self._left, "containers": list(self._claims.values())})
        removal.remove_tree(self.directory)


def _memory() -> float:
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
