"""Trials by SIGKILL: what runs, who is killed, and what must hold afterwards (script/trials).

Trials run a dozen at a time in one engine, so that there is always something in each of its states.
A trial that kills the controller or the spawner is felt by all of its dozen.  So what is checked is
the account: a job that did not end as its program says must be explained by a kill that can do
that.  A kill that hits one step explains one job: who was killed for whom is a matching, as a
status may have several causes.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import leaks
from tests.support.account import Account
from tests.support.bundle import make_bundle
from tests.support.components import program
from tests.support.engine import Engine, make_base, make_shims
from tests.support.product import locate

AT_A_TIME = 12
VICTIMS = ("client", "controller", "spawner", "spare", "supervisor", "runtime", "task")
# What is done with scontrol meanwhile, where there are several nodes.
ACTIONS = ("hold", "suspend", "requeue", "down", "reconfigure")
_SITE = """\
NodeName=n[1-3] CPUs=2 RealMemory=400
PartitionName=debug Nodes=ALL Default=YES
"""
_ENGINES = {
    "roadstead-ctl": "controller",
    "roadstead-spawn": "spawner",
    "roadstead-spare": "spare",
    "roadstead-step": "supervisor",
    "crun": "runtime",
    "runc": "runtime",
    "runc:[0:PARENT]": "runtime",
    "runc:[1:CHILD]": "runtime",
    "runc:[2:INIT]": "runtime",
    "srun": "client",
    "sbatch": "client",
    "salloc": "client",
    "sh": "task",
    "sleep": "task",
    "busybox": "task",
}
_PATIENCE = 60
_ALL = ("all",)
# A command that was not served yet when its controller went.
_NOT_BEGUN = ("controller ended before", "controller closed the connection", "Invalid job id")
_CALL = re.compile(r"(crun|runc) .*(create|start|state|kill|delete) ")
_CREATE = """\
RunTimeCreate="{program} {root} create --bundle %b {name}"
RunTimeStart="{program} {root} start {name}"
RunTimeQuery="{program} {root} state {name}"
RunTimeKill="{program} {root} kill {name} KILL"
RunTimeDelete="{program} {root} delete --force {name}"
"""


class Failure(Exception):
    """A trial that did not hold, and how to repeat it."""

    def __init__(self, sentence: str, repeat: str) -> None:
        super().__init__(sentence)
        self.repeat = repeat


@dataclass
class Trial:
    """One command, and one kill."""

    number: int
    form: str
    tasks: int
    code: int
    nap: float
    victim: str
    begin: float  # both in seconds after the beginning of the dozen
    kill: float
    action: str = ""
    act: float = 0.0
    process: Any = None
    killed: bool = False  # its own client was
    job: int = 0
    output: str = ""

    @property
    def label(self) -> str:
        return f"trial {self.number} ({self.form}, {self.tasks} tasks, kill the {self.victim})"


def plan(seed: int, number: int, forms: list[str]) -> Trial:
    """The trial of this number: the same for the same seed."""
    chance = random.Random(f"{seed}.{number}")
    form = chance.choice(forms)
    begin = chance.uniform(0, 0.3)
    return Trial(
        number=number,
        form=form,
        tasks=chance.choice((1, 1, 3)),
        code=chance.choice((0, 0, 3, 77)),
        nap=chance.choice((0, 0, 0.03, 0.2)),
        victim=chance.choice(VICTIMS),
        begin=begin,
        kill=begin + chance.uniform(0, 0.4),
        action=chance.choice((*ACTIONS, "")),
        act=begin + chance.uniform(0, 0.4),
    )


@dataclass
class Dozen:
    """Trials that run at the same time, and what has been done to them."""

    trials: list[Trial]
    kills: Counter[str] = field(default_factory=Counter)
    deaths: list[str] = field(default_factory=list)  # who was killed, for somebody who reads it

    def note(self, trial: Trial, pid: int, kind: str) -> None:
        """Count a kill, and write down what is about to die."""
        self.kills[kind] += 1
        about = []
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:12]
            about = [os.fsdecode(word)[:60] for word in words]
            about.append(f"< {_parent_name(pid)}")
        self.deaths.append(f"{time.time():.3f} {trial.number} {kind} {pid} {' '.join(about)}")


class Field:
    """The engine in which trials take place, with a site of three nodes or without."""

    def __init__(self, account: Account, shims: Path, *, site: bool) -> None:
        self.engine = Engine(account, shims, make_base(account))
        self.engine.variables["ROADSTEAD_KILL_WAIT"] = "1"
        # crun waits for ever where a child of its own is killed before it has made the container;
        # who waits for crun gives it up after this, and says so.
        self.engine.variables["ROADSTEAD_RUNTIME_TIMEOUT"] = f"{_PATIENCE / 3}"
        self.log = self.engine.base / "ran"
        self.log.touch()
        self.forms = ["srun", "srun", "sbatch", "sbatch steps", "salloc"]
        self.site = site
        if site:
            folder = account.mkdir(self.engine.base / "config" / "roadstead", 0o700)
            account.write(folder / "roadstead.conf", _SITE)
            self.forms += ["srun nodes", "sbatch", "sbatch steps"]
        self.bundle: Path | None = None
        if program("busybox") and program("runc"):
            self.bundle = self._make_bundle(account)
            for name in filter(program, ("crun", "runc")):
                self.forms += [f"{name} run", f"{name} create"]
                self._configure(name)
            self.forms += ["private", "sbatch contained"]

    def _make_bundle(self, account: Account) -> Path:
        base = self.engine.base
        bundle = make_bundle(account, base / "bundle")
        log = {"destination": "/ran", "type": "bind", "source": str(self.log), "options": ["bind"]}
        path = bundle / "config.json"
        import json

        config = json.loads(path.read_text())
        config["mounts"].append(log)
        path.write_text(json.dumps(config))
        (bundle / "rootfs" / "ran").touch()
        return account.own(bundle)

    def _configure(self, name: str) -> None:
        # As Slurm's samples have it, in the runtime's default place; root's is everybody's.
        root = "" if os.getuid() else f"--root {self.engine.base}/{name}"
        text = _CREATE.format(program=name, root=root, name="%n.%u.%j.%s.%t")
        (self.engine.base / f"{name}.conf").write_text(text)

    # -- commands ---------------------------------------------------------------------------------

    def start(self, trial: Trial) -> None:
        argv, env = self.command(trial)
        trial.process = self.engine.popen(argv, env=env)

    def command(self, trial: Trial) -> tuple[list[str], dict[str, str]]:
        """The command line of a trial, and what it adds to the environment."""
        body = self._body(trial, "t", str(self.log))
        contained = self._body(trial, "t", "/ran")
        many = ["-O", f"-n{trial.tasks}"]
        in_bundle = ["--container", str(self.bundle)]
        log = str(self.log)
        inner = f"srun -O -n{trial.tasks} sh -c '{self._body(trial, 's', log)}'"
        name, _, mode = trial.form.partition(" ")
        batch = ["sbatch", f"-Jtrial{trial.number}", "-o/dev/null"]
        env = {"ROADSTEAD_RUNTIME": name} if mode == "run" else {}
        if mode == "create":
            env = {"ROADSTEAD_OCI_CONF": str(self.engine.base / f"{name}.conf")}
        match trial.form:
            case "srun":
                return ["srun", *many, "sh", "-c", body], env
            case "srun nodes":
                return ["srun", "-N2", "-O", f"-n{trial.tasks + 1}", "sh", "-c", body], env
            case "sbatch":
                return [*batch, "--wrap", f"trial=0\n{body}"], env
            case "sbatch steps":
                script = f"echo {trial.number}.b.0 >> {log}\n{inner}\nexit $?"
                return [*batch, "--wrap", script], env
            case "sbatch contained":
                wrapped = contained.replace("$SLURM_PROCID", "0")
                return [*batch, *in_bundle, "--wrap", wrapped], env
            case "salloc":
                return ["salloc", "sh", "-c", f"{inner}; exit $?"], env
            case "private":
                private = "--container-writable=private"
                return ["srun", *many, *in_bundle, private, "sh", "-c", contained], env
            case _:
                return ["srun", *many, *in_bundle, "sh", "-c", contained], env

    @staticmethod
    def _body(trial: Trial, label: str, log: str) -> str:
        say = f"echo {trial.number}.{label}.${{SLURM_PROCID:-0}} >> {log}"
        return f"{say}; sleep {trial.nap}; exit {trial.code}"

    # -- kills ------------------------------------------------------------------------------------

    def kill(self, dozen: Dozen, trial: Trial) -> bool:
        """Kill whom the trial says; False where there is no such process now."""
        if trial.victim == "client" and trial.process.poll() is None:
            trial.killed = True
            dozen.note(trial, trial.process.pid, "client")
            trial.process.kill()
            return True
        wanted = (trial.victim, *(("child",) if trial.victim in ("task", "runtime") else ()))
        found = [pid for pid, kind in self.cast() if kind in wanted]
        if not found:
            return False
        pid = random.Random(trial.number).choice(found)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # so that it does not become another meanwhile
            kind = dict(self.cast()).get(pid, trial.victim)
            for each in dozen.trials:
                each.killed |= each.process is not None and each.process.pid == pid
            dozen.note(trial, pid, kind)
            os.kill(pid, signal.SIGKILL)
        return True

    def cast(self) -> Iterator[tuple[int, str]]:
        """Everybody who runs, and what part they play."""
        for each in self.engine.processes():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{each.pid}/comm").read_text().strip()
                # RunTimeCreate and its like are given to a shell.
                shell = name == "sh" and _CALL.search(each.command)
                # crun is started from a descriptor, and called by its number (host/sealed.py).
                copied = name.isdecimal() and each.command.partition(" ")[0].endswith("/crun")
                kind = "runtime" if shell or copied else _ENGINES.get(name)
                if kind == "supervisor" and _parent_name(each.pid) == "roadstead-step":
                    kind = "child"
                if kind:
                    yield each.pid, kind

    def scene(self) -> str:
        """What runs, and what the controller knows, for somebody who wants to understand it."""
        lines = []
        for each in self.engine.processes():
            with contextlib.suppress(OSError):
                directory = Path(f"/proc/{each.pid}")
                state, parent = (directory / "stat").read_text().rpartition(")")[2].split()[:2]
                where = (directory / "wchan").read_text()
                lines.append(f"{each.pid} < {parent} {state} {where} {each.command}")
        answer = self.ask(op="query", what="jobs", job_id=None, all=True)
        names = ("job_id", "name", "state", "reason", "nodes", "restarts")
        jobs = answer.get("jobs", ())
        lines += [" ".join(f"{name}={job.get(name)}" for name in names) for job in jobs]
        answer = self.ask(op="query", what="steps", job_id=None)
        lines += [str(step) for step in answer.get("steps", ())] or [str(answer)]
        return "\n".join(lines)

    # -- scontrol ---------------------------------------------------------------------------------

    def act(self, dozen: Dozen, trial: Trial) -> None:
        """Do what the trial says to one of the jobs that are there, or to a node."""
        chance = random.Random(-trial.number)
        if trial.action in ("down", "reconfigure"):
            dozen.kills[trial.action] += 1
            fields = {"nodes": f"n{chance.randint(1, 3)}", "state": "DOWN", "reason": "a trial"}
            node = {"op": "update_node", **fields}
            self.ask(**(node if trial.action == "down" else {"op": "reconfigure"}))
            return
        jobs = self.ask(op="query", what="jobs", job_id=None, all=False).get("jobs", ())
        some = [job["job_id"] for job in jobs if chance.random() < 0.4]
        self.ask(op="control", action=trial.action, jobs=some)

    def undo(self) -> None:
        """Nothing is held, stopped or down any more."""
        for _ in range(5):  # the controller may be on its way out
            done = self.ask(op="update_node", nodes="ALL", state="RESUME")
            jobs = self.ask(op="query", what="jobs", job_id=None, all=False).get("jobs", ())
            every = [job["job_id"] for job in jobs]
            done |= self.ask(op="control", action="release", jobs=every)
            done |= self.ask(op="control", action="resume", jobs=every)
            if "error" not in done:
                return

    # -- a dozen ----------------------------------------------------------------------------------

    def run(self, trials: list[Trial]) -> Dozen:
        """Start and kill as planned, until every command has ended."""
        dozen = Dozen(trials)
        agenda: list[tuple[float, int, Callable[[], None], Trial]] = []
        zero = time.monotonic()

        def attempt(trial: Trial, tries: int = 60) -> None:
            over = all(each.process and each.process.poll() is not None for each in trials)
            if self.kill(dozen, trial) or not tries or over:
                return
            later = time.monotonic() - zero + 0.004
            heapq.heappush(agenda, (later, trial.number, lambda: attempt(trial, tries - 1), trial))

        for trial in trials:
            agenda.append((trial.begin, trial.number, partial(self.start, trial), trial))
            if self.site and trial.action:
                number = trial.number + AT_A_TIME * 10**6
                agenda.append((trial.act, number, partial(self.act, dozen, trial), trial))
            agenda.append((trial.kill, trial.number, partial(attempt, trial), trial))
        heapq.heapify(agenda)
        while agenda:
            at, _, act, _ = heapq.heappop(agenda)
            time.sleep(max(0.0, zero + at - time.monotonic()))  # the moment is what is tried
            act()
        if self.site:
            self.undo()
        for trial in trials:
            done = self.engine.finish(trial.process, timeout=_PATIENCE)
            trial.output = done.stdout + done.stderr
            if found := re.search(r"Submitted batch job (\d+)", done.stdout):
                trial.job = int(found[1])
        return dozen

    def ask(self, **message: Any) -> dict[str, Any]:
        """Ask the controller, as a command does."""
        from roadstead.engines import local
        from roadstead.errors import RoadsteadError

        with self.engine.mark.inherited() as marks:
            environ = {**self.engine.account.environment, **self.engine.variables, **marks}
            environ["ROADSTEAD_OCI_CONF"] = "none"
            try:
                return local.ask(message, environ)
            except RoadsteadError as error:
                return {"error": str(error)}

    def settle(self, dozen: Dozen) -> None:
        """Wait until no job is left."""
        tries = 3  # the controller may be on its way out, or be starting again
        while (answer := self.ask(op="query", what="jobs", job_id=None, all=False)) and tries:
            if self.site and answer.get("jobs"):
                self.undo()  # what was stopped when it was requeued is held
            for job in answer.get("jobs", ()):
                self.ask(op="wait", job_id=job["job_id"])
            if answer.get("jobs") == []:
                return
            tries -= "error" in answer
        raise AssertionError(f"squeue: {answer}")

    # -- what must hold ---------------------------------------------------------------------------

    def faults(self, dozen: Dozen) -> Iterator[str]:
        """What does not hold, a sentence each."""
        ran = Counter(self.log.read_text().split())
        jobs = self.ask(op="query", what="jobs", job_id=None, all=True).get("jobs", ())
        restarts = {job["name"]: job["restarts"] for job in jobs}
        mine = {str(trial.number) for trial in dozen.trials}
        for line, times in ran.items():
            number = line.partition(".")[0]
            if number in mine and times > 1 + restarts.get(f"trial{number}", 0):
                yield f"{line} ran {times} times"
        kills, account = dozen.kills, Reckoning(dozen.kills)
        for trial in dozen.trials:
            if trial.form.startswith("sbatch") and trial.job:
                yield from self._faults_of_job(trial, account, ran)
            elif not trial.killed:
                code = trial.process.returncode
                if "Traceback" in trial.output:
                    yield f"{trial.label}: {trial.output}"
                elif trial.form.startswith("sbatch"):
                    if not _refused(trial, kills):
                        yield f"{trial.label}: not submitted: {trial.output}"
                elif code != trial.code:
                    said = f"{trial.label}: ended with {code}, not {trial.code}: {trial.output}"
                    account.ask(_causes(trial, code, kills), said)
                elif not _missing(trial, ran) or _struck(kills):
                    continue
                else:
                    yield f"{trial.label}: ended as it should, and has not run: {trial.output}"
        yield from account.unexplained()
        if (done := self.engine.run(["srun", "true"])).returncode:
            yield f"the next command: {done}"
        deadline = time.monotonic() + 5
        while (audit := self.engine.run(["roadstead", "audit"])).returncode:
            if time.monotonic() > deadline:
                break  # else a controller that has just started is at it
        if audit.returncode or audit.stdout != "nothing is left behind\n":
            yield f"roadstead audit: {audit}"
        yield from self._leaks()

    def _faults_of_job(self, trial: Trial, account: Reckoning, ran: Counter[str]) -> Iterator[str]:
        answer = self.ask(op="query", what="jobs", job_id=trial.job, all=True)
        if not answer.get("jobs"):
            yield f"{trial.label}: job {trial.job} is lost: {answer}"
            return
        (job,) = answer["jobs"]
        code = job["exit_code"] or (128 + job["exit_signal"] if job["exit_signal"] else 0)
        if code == trial.code:
            if _missing(trial, ran) and not _struck(account.kills):
                yield f"{trial.label}: job {trial.job} {job['state']}, and has not run"
        else:
            said = f"{job['state']} {job['reason']} {code}, not {trial.code}"
            causes = _causes(trial, code, account.kills)
            account.ask(causes, f"{trial.label}: job {trial.job} is {said}")

    def _leaks(self) -> Iterator[str]:
        deadline = time.monotonic() + 3
        while True:
            engine = {pid for pid, kind in self.cast() if kind in VICTIMS[1:4]}
            found = [
                leak
                for leak in self.engine.watch.find()
                if leak.kind != "process" or int(leak.what.split()[0]) not in engine
            ]
            if not found or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        for leak in found:
            yield f"left: {leak.kind} {leak.what} {leak.detail}"


def _parent_name(pid: int) -> str:
    """What the parent is called.  A child of a supervisor that has not become its task or runtime
    yet still has the supervisor's name, and ends as they do."""
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return Path(f"/proc/{parent}/comm").read_text().strip()


def _missing(trial: Trial, ran: Counter[str]) -> bool:
    """Whether a task that must have run, as it was not killed, did not."""
    label = "s" if trial.form in ("sbatch steps", "salloc") else "t"
    tasks = 1 if trial.form in ("sbatch", "sbatch contained") else trial.tasks
    return any(not ran[f"{trial.number}.{label}.{task}"] for task in range(tasks))


def _refused(trial: Trial, kills: Counter[str]) -> bool:
    return any(words in trial.output for words in _NOT_BEGUN) and _struck(kills)


def _struck(kills: Counter[str]) -> bool:
    return bool(kills["controller"] or kills["spawner"] or kills["reconfigure"])


def _causes(trial: Trial, code: int, kills: Counter[str]) -> tuple[str, ...]:
    """What may account for this status: kinds of processes whose kill hits one step, or ``_ALL``
    for what hits all of a dozen."""
    by_srun = trial.form in ("sbatch steps", "salloc")
    if code == 1 and _struck(kills):
        # srun's own word, or in a script, where we do not see what it said.
        if by_srun or any(words in trial.output for words in _NOT_BEGUN):
            return _ALL
        return ()
    if kills["down"] and not trial.form.startswith("sbatch") and code in (1, 137, 143):
        return _ALL  # all that ran on the node; a batch job runs again
    if code == 125:
        # A spare that has just been sent its step, and has not read it, takes it with it; so does
        # a spawner.
        return ("supervisor", "runtime", "spare", "spawner", "child")
    if code in (137, -9):
        return ("task", "runtime", "child", *(("client",) if by_srun else ()))
    if code in (143, 1) and by_srun:  # salloc's job ends with its client, a script's srun too
        return ("supervisor", "client")
    return ()


class Reckoning:
    """Which kill accounts for which status: a matching."""

    def __init__(self, kills: Counter[str]) -> None:
        self.kills = kills
        self._asked: list[tuple[tuple[str, ...], str]] = []
        self._given: dict[tuple[str, int], int] = {}  # a kill, and whom it accounts for

    def ask(self, causes: tuple[str, ...], sentence: str) -> None:
        """There is something to explain; what to say if nothing does."""
        if causes != _ALL:
            self._asked.append((causes, sentence))

    def unexplained(self) -> Iterator[str]:
        for at, (_, sentence) in enumerate(self._asked):
            if not self._give(at, set()):
                yield sentence

    def _give(self, at: int, seen: set[tuple[str, int]]) -> bool:
        """Find a kill for this one, if need be by finding another for who has it."""
        for cause in self._asked[at][0]:
            for number in range(self.kills[cause]):
                kill = (cause, number)
                if kill in seen:
                    continue
                seen.add(kill)
                if kill not in self._given or self._give(self._given[kill], seen):
                    self._given[kill] = at
                    return True
        return False


def run(seed: int, numbers: range, keep: bool) -> None:
    """Run the trials of these numbers.  Raises Failure at the first dozen that does not hold."""
    if not numbers:
        return
    account = Account.current()
    product = locate(account)
    shims = make_shims(product, account)
    # One dozen in the machine as it is, one in a site of several nodes.
    fields = [Field(account, shims, site=site) for site in (False, True)]
    try:
        for first in range(numbers.start, numbers.stop, AT_A_TIME):
            last = min(first + AT_A_TIME, numbers.stop)
            _dozen(fields[first // AT_A_TIME % 2], seed, range(first, last), keep)
    finally:
        for field in fields:
            if not (keep and field.engine.leaks_are_expected):
                field.engine.close()
        leaks.remove(shims)
        product.remove()


def _dozen(field: Field, seed: int, numbers: range, keep: bool) -> None:
    repeat = f"--seed {seed} --kind kill --first {numbers.start} --count {len(numbers)}"
    try:
        with _at_most(_PATIENCE * 2):
            dozen = field.run([plan(seed, number, field.forms) for number in numbers])
            field.settle(dozen)
            faults = list(field.faults(dozen))
    except (AssertionError, TimeoutError) as error:
        faults, dozen = [f"{type(error).__name__}: {error}"], Dozen([])
    if faults:
        field.engine.leaks_are_expected = True
        killed = "\n".join(dozen.deaths)
        where = f"\nkept: {field.engine.base}\n{killed}\n{field.scene()}" if keep else ""
        said = "\n".join(faults)
        raise Failure(f"seed {seed}, killed {dict(dozen.kills)}:\n{said}{where}", repeat)


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(signo: int, frame: object) -> None:
        raise TimeoutError(f"not settled in {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
