"""The reactor: a state, an event, the effects, and nothing left over."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.controller.journal import Journal
from roadstead.core import answers
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import lifecycle as life
from roadstead.core.effects import Effect, Effects
from roadstead.core.lifecycle import Word
from roadstead.core.model import BATCH_STEP, INTERACTIVE_STEP, ExitRecord, Reason, TaskExit
from roadstead.core.reactor import react
from roadstead.core.request import Extra
from roadstead.core.site import Node, Site
from roadstead.core.state import Settings, State

NODE = Node(name="vm", cpus=(0, 1), memory=1000)
SETTINGS = Settings(runtime="/run/r", version="0")
ALLOCATION = -1
ACTIONS = ("hold", "release", "requeue", "suspend", "resume")
FINAL = ("exit", "error", "submitted")


def record(key: life.StepKey, code: int = 0, reason: Reason = "program") -> ExitRecord:
    signal = code - 128 if code > 128 else 0
    task = TaskExit(procid=0, code=code, signal=signal, reason=reason)
    return ExitRecord(job_id=key[0], step_id=key[1], tasks=(task,), started_at=1.0, ended_at=2.0)


class JournalInMemory(Journal):
    """It has no log that would need room; and there is one for each of some hundred worlds."""

    def __init__(self) -> None:
        super().__init__(":memory:")

    def _make_room(self) -> None:
        pass


def _by_name(ended: tuple[life.Job, ...]) -> dict[int, tuple[life.Job, ...]]:
    found: dict[int, tuple[life.Job, ...]] = {}
    for job in ended:
        group = job.spec.array or job.spec.het
        for name in {job.id, job.id if group is None else group.job_id}:
            found[name] = (*found.get(name, ()), job)
    return found


class World:
    """A reactor with all that is around it: clients, supervisors, timers, a journal."""

    def __init__(self) -> None:
        self.journal = JournalInMemory()
        self.at = 100.0
        self.clients = 0
        self.supervisors: set[life.StepKey] = set()
        self.timers: dict[on.TimerName, float] = {}
        self.replies: dict[int, list[dict[str, Any]]] = {}
        self.launched: list[do.Launch] = []
        self.done: list[Effect] = []
        self.boot()

    def boot(self) -> None:
        self.state = State(Site.of(NODE, 1), SETTINGS)
        self.timers.clear()

    def react(self, event: on.Event) -> list[Effect]:
        effects = Effects()
        react(self.state, effects, event)
        recorded = effects.take()
        self.journal.commit(recorded)
        self.done += recorded
        for effect in recorded:
            self._perform(effect)
        return recorded

    def _perform(self, effect: Effect) -> None:
        match effect:
            case do.Launch():
                self.supervisors.add((effect.spec.job_id, effect.spec.step_id))
                self.launched.append(effect)
            case do.Reply():
                self.replies.setdefault(effect.client, []).append(effect.message)
            case do.SetTimer():
                self.timers[effect.timer] = effect.at
            case do.CancelTimer():
                self.timers.pop(effect.timer, None)

    def say(self, op: str, client: int = 0, **fields: Any) -> int:
        """A client says something; its number (a new client's, by default)."""
        if not client:
            self.clients += 1
            client = self.clients
        body = {"op": op, "argv": ["x"], "env": {"A": "b"}, "cwd": "/w", "umask": 18, "gid": 1}
        if op != "cancel":
            body["user"] = "u"
        body |= {**fields, "options": _named(fields.get("options", {}))}
        ended = self.journal.jobs_ended_since(0)
        wanted = fields.get("job_id")
        facts = on.Facts(
            extra=Extra(client_pid=70 + client, client_start="s"),
            known=self.journal.job_of_key(fields.get("key") or "none"),
            ended_jobs=tuple(job for job in ended if wanted in (None, job.id)),
            named=_by_name(ended),
        )
        self.react(on.Message(at=self.at, client=client, body=body, facts=facts))
        return client

    def submit(self, key: str = "", **options: str) -> int:
        fields = {"script": "#!/bin/sh\n", "options": options, "key": key}
        answers = self.heard(self.say("submit", **fields))
        return int(answers[0]["job_id"])

    def run(self, **options: str) -> int:
        return self.say("run", options=options)

    def step(self, job_id: int, parent: int | None = None, **options: str) -> int:
        options["jobid"] = str(job_id)
        return self.say("run", options=options, in_job=job_id, in_step=parent)

    def ended(self, key: life.StepKey, code: int = 0, reason: Reason = "program") -> list[Effect]:
        self.supervisors.discard(key)
        return self.react(on.Exited(at=self.at, step=key, record=record(key, code, reason)))

    def gone(self, client: int) -> list[Effect]:
        return self.react(on.ClientGone(at=self.at, client=client))

    def cancel(self, *names: str, **fields: Any) -> dict[str, Any]:
        return self.heard(self.say("cancel", jobs=list(names), **fields))[0]

    def control(self, action: str, *jobs: int, **fields: Any) -> list[dict[str, Any]]:
        """What scontrol asks; the errors."""
        answer = self.heard(self.say("control", action=action, jobs=list(jobs), **fields))[0]
        errors: list[dict[str, Any]] = answer.get("errors", [answer])
        return errors

    def due(self, timer: on.TimerName) -> list[Effect]:
        del self.timers[timer]
        return self.react(on.Due(at=self.at, timer=timer))

    def restart(self) -> list[Effect]:
        found = self.journal.load()
        self.boot()
        return self.react(
            on.Restored(
                at=self.at,
                jobs=found.jobs,
                steps=found.steps,
                next_job_id=found.next_job_id,
                next_step_ids=found.next_step_ids,
                conditions=found.conditions,
                partitions=found.partitions,
                kept=found.kept,
            )
        )

    def heard(self, client: int) -> list[dict[str, Any]]:
        return self.replies.pop(client, [])

    def told(self, client: int) -> list[str]:
        return [answer["event"] for answer in self.heard(client)]

    def word(self, job_id: int) -> str:
        job = self.state.jobs.get(job_id) or self.journal.job(job_id)
        assert job is not None
        return job.state.word.value

    def outcome(self, job_id: int) -> life.Outcome:
        job = self.journal.job(job_id)
        assert job is not None
        assert isinstance(job.state, life.JobEnded)
        return job.state.outcome


def _named(options: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in options.items()}


def kinds(effects: list[Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


@pytest.fixture
def world() -> World:
    return World()


# -- batch jobs ------------------------------------------------------------------------------------


def test_a_submission_is_saved_answered_and_started(world: World) -> None:
    body = {
        "op": "submit", "key": "k", "options": {}, "argv": ["b.sh"], "script": "#!/bin/sh\n",
        "env": {"A": "b"}, "cwd": "/w", "umask": 18, "user": "u", "gid": 1,
    }  # fmt: skip
    effects = world.react(on.Message(at=5.0, client=1, body=body))
    assert kinds(effects) == ["SavePayload", "Save", "Reply", "Save", "SaveStep", "Launch"]
    assert effects[0] == do.SavePayload(1, {"A": "b"}, "#!/bin/sh\n")
    assert effects[2] == do.Reply(1, {"event": "submitted", "job_id": 1})
    launch = effects[-1]
    assert isinstance(launch, do.Launch)
    assert (launch.client, launch.payload) == (None, 1)
    spec = launch.spec
    assert (spec.step_id, spec.cpus, spec.deadline) == (BATCH_STEP, (0,), None)
    assert spec.directory == f"/run/r/steps/1.{BATCH_STEP}"
    assert "A" not in spec.env, "the user's variables come from the journal"
    assert spec.env["ENVIRONMENT"] == "BATCH"


def test_the_same_submission_twice_is_one_job(world: World) -> None:
    first = world.submit(key="k")
    assert world.submit(key="k") == first
    world.ended((first, BATCH_STEP))
    assert world.submit(key="k") == first
    assert world.submit(key="other") == first + 1


@pytest.mark.parametrize(
    ("code", "word", "reason"),
    [
        (0, "COMPLETED", "None"),
        (3, "FAILED", "NonZeroExitCode"),
        (137, "FAILED", "NonZeroExitCode"),
    ],
)
def test_a_batch_job_ends_as_its_script_does(
    world: World, code: int, word: str, reason: str
) -> None:
    job_id = world.submit()
    effects = world.ended((job_id, BATCH_STEP), code)
    assert kinds(effects) == ["SaveStep", "Forget", "Save", "Save", "SetTimer"]
    signal = code - 128 if code > 128 else 0
    expected = life.Outcome(
        word=Word(word), code=0 if signal else code, signal=signal, reason=reason
    )
    assert world.outcome(job_id) == expected


def test_steps_of_a_batch_job_do_not_outlive_its_script(world: World) -> None:
    job_id = world.submit()
    srun = world.step(job_id)
    effects = world.ended((job_id, BATCH_STEP), 3)
    assert do.Terminate((job_id, 0), "cancelled", 15) in effects
    assert world.word(job_id) == "COMPLETING"
    world.ended((job_id, 0), 143, "cancelled")
    assert world.told(srun) == ["exit"]
    assert world.outcome(job_id).code == 3


def test_an_end_frees_the_cpus_for_the_next_job(world: World) -> None:
    first, second, third = (world.submit(ntasks="2"), world.submit(ntasks="2"), world.submit())
    assert [world.word(job_id) for job_id in (first, second, third)] == [
        "RUNNING",
        *["PENDING"] * 2,
    ]
    world.ended((first, BATCH_STEP))
    assert [world.word(job_id) for job_id in (second, third)] == ["RUNNING", "PENDING"]
    assert world.launched[-1].spec.cpus == (0, 1)


def test_a_time_limit(world: World) -> None:
    job_id = world.submit(time="1")
    assert world.timers == {("limit", job_id, ALLOCATION): 160.0}
    assert world.launched[0].spec.deadline == 160.0
    effects = world.due(("limit", job_id, ALLOCATION))
    assert do.Terminate((job_id, BATCH_STEP), "timeout", 15) in effects
    world.ended((job_id, BATCH_STEP), 143, "timeout")
    assert world.outcome(job_id) == life.Outcome(word=Word.TIMEOUT, signal=15, reason="TimeLimit")


def test_waiting_for_a_job(world: World) -> None:
    job_id = world.submit()
    early = world.say("wait", job_id=job_id, step_id=None)
    world.ended((job_id, BATCH_STEP), 7)
    late = world.say("wait", job_id=job_id, step_id=None)
    for client in (early, late):
        (answer,) = world.heard(client)
        assert (answer["event"], answer["code"], answer["state"]) == ("exit", 7, "FAILED")
    assert world.told(world.say("wait", job_id=99, step_id=None)) == ["error"]


# -- srun ------------------------------------------------------------------------------------------


def test_a_run_is_a_job_and_its_step_in_one_turn(world: World) -> None:
    srun = world.run(ntasks="2")
    launch = world.launched[0]
    assert (launch.client, launch.payload, launch.spec.step_id) == (srun, None, 0)
    assert launch.spec.env["A"] == "b"
    assert launch.spec.env["SLURM_NTASKS"] == "2"
    world.react(on.Started(at=101.0, step=(1, 0), pid=7))
    world.react(on.Noticed(step=(1, 0), sentence="hi"))
    world.ended((1, 0), 3)
    started, notice, ended = world.heard(srun)
    assert started == {"event": "started", "job_id": 1, "step_id": 0, "node": "vm"}
    assert notice == {"event": "notice", "sentence": "hi"}
    assert (ended["event"], ended["code"], ended["record"]["tasks"][0]["code"]) == ("exit", 3, 3)
    assert world.word(1) == "FAILED"


def test_a_run_that_must_wait_is_told_why(world: World) -> None:
    world.submit(ntasks="2")
    second, third = world.run(), world.run()
    assert [world.heard(client)[0]["reason"] for client in (second, third)] == [
        "Resources",
        "Priority",
    ]


def test_a_run_whose_client_goes_is_ended(world: World) -> None:
    srun = world.run()
    assert do.Terminate((1, 0), "cancelled", 15) in world.gone(srun)
    world.ended((1, 0), 143, "cancelled")
    assert world.outcome(1) == life.Outcome(word=Word.CANCELLED, signal=15)


def test_a_waiting_run_whose_client_goes_is_withdrawn(world: World) -> None:
    world.submit(ntasks="2")
    assert kinds(world.gone(world.run())) == ["Save"]
    assert world.word(2) == "CANCELLED"


def test_signals_go_to_the_clients_own_step(world: World) -> None:
    srun = world.run()
    effects = Effects()
    body = {"op": "signal", "signal": 10}
    react(world.state, effects, on.Message(at=1.0, client=srun, body=body))
    react(world.state, effects, on.Message(at=1.0, client=99, body=body))
    assert effects.take() == [do.Signal((1, 0), 10)]
    world.say("terminate", srun)
    assert world.word(1) == "RUNNING", "the job ends when the step has"
    assert world.state.steps[1, 0].state.word is Word.COMPLETING


def test_no_patience(world: World) -> None:
    world.submit(ntasks="2")
    (answer,) = world.heard(world.run(immediate=""))
    assert answer["sentence"] == "Unable to allocate resources: Requested nodes are busy"
    patient = world.run(immediate="60")
    assert world.told(patient) == ["pending"]
    world.due(("patience", 3, ALLOCATION))
    assert world.told(patient) == ["error"]
    assert world.word(3) == "CANCELLED"


def test_a_held_job_waits_for_its_release(world: World) -> None:
    held = world.run(hold="1")
    assert world.told(held) == ["notice", "pending"]
    world.run()
    assert [world.word(1), world.word(2)] == ["PENDING", "RUNNING"]
    assert world.told(world.say("control", action="release", jobs=[1])) == ["done"]
    assert world.word(1) == "RUNNING"
    assert [world.told(world.say("unhold", job_id=n)) for n in (1, 9)] == [["error"], ["error"]]


def test_an_error_is_an_answer(world: World) -> None:
    (answer,) = world.heard(world.run(time="x"))
    assert answer["event"] == "error"
    assert answer["kind"] == "usage"
    assert answer["sentence"] == "Invalid --time specification"
    assert world.told(world.say("nonsense")) == ["error"]


# -- steps -----------------------------------------------------------------------------------------


def test_a_step_waits_for_the_one_before_it(world: World) -> None:
    job_id = world.submit(ntasks="2")
    first, second = world.step(job_id), world.step(job_id)
    sentence = "Job 1 step creation temporarily disabled, retrying (Requested nodes are busy)"
    assert world.heard(second) == [{"event": "notice", "sentence": sentence}]
    world.ended((job_id, 0))
    assert world.told(first) == ["exit"]
    assert world.heard(second)[0]["sentence"] == "Step created for job 1"
    assert world.launched[-1].client == second


def test_a_step_of_a_step_does_not_wait_for_it(world: World) -> None:
    world.run()
    world.step(1, parent=0, container="/b")
    assert [launch.spec.step_id for launch in world.launched] == [0, 1]
    assert world.launched[1].spec.container is not None


def test_a_jobs_container_is_not_its_steps(world: World) -> None:
    job_id = world.submit(container="/b")
    world.step(job_id)
    assert [launch.spec.container is None for launch in world.launched] == [False, True]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ntasks": "3"}, "Unable to create step for job 1: More processors requested than"),
        ({"mem": "500"}, "Unable to create step for job 1: Memory required by task is not"),
        ({"immediate": ""}, "Unable to create step for job 1: Requested nodes are busy"),
        ({"nodes": "2"}, "Only allocated 1 nodes asked for 2"),
    ],
)
def test_steps_that_cannot_be(world: World, options: dict[str, str], sentence: str) -> None:
    job_id = world.submit(ntasks="2", mem="100")
    world.step(job_id)
    (answer,) = world.heard(world.step(job_id, **options))
    assert answer["sentence"].startswith(sentence)


def test_steps_need_a_running_job(world: World) -> None:
    (answer,) = world.heard(world.step(77))
    assert answer["sentence"] == "Unable to confirm allocation for job 77: Invalid job id specified"
    world.submit(hold="1")
    (answer,) = world.heard(world.step(1))
    assert answer["sentence"] == "Unable to create step for job 1: Job is pending execution"


# -- salloc ----------------------------------------------------------------------------------------


def test_an_allocation_lasts_until_it_is_released(world: World) -> None:
    salloc = world.say("allocate")
    (granted,) = world.heard(salloc)
    assert granted["event"] == "granted"
    assert granted["env"]["SLURM_JOB_ID"] == "1"
    world.step(1)
    world.say("release", salloc)
    assert world.told(salloc) == [], "a step is still there"
    effects = world.ended((1, 0), 143, "cancelled")
    assert effects[-1] == do.Close(salloc)
    assert world.told(salloc) == ["done"]
    assert world.outcome(1) == life.Outcome(word=Word.COMPLETED)


@pytest.mark.parametrize("how", ["gone", "owner", "limit", "cancel"])
def test_an_allocation_can_be_taken_away(world: World, how: str) -> None:
    salloc = world.say("allocate", options={"time": "1"})
    world.heard(salloc)
    if how == "gone":
        world.gone(salloc)
    elif how == "owner":
        assert do.WatchOwner(1, 70 + salloc, "s") in world.restart()
        world.react(on.OwnerGone(at=101.0, job_id=1))
    elif how == "limit":
        world.due(("limit", 1, ALLOCATION))
        assert world.told(salloc) == ["revoked", "done"]
    else:
        world.cancel("1")
        assert world.told(salloc) == ["revoked", "done"]
    assert world.word(1) == ("TIMEOUT" if how == "limit" else "CANCELLED")
    assert world.state.pool.nodes["vm"].cpus == NODE.cpus


def test_an_allocation_can_be_kept(world: World) -> None:
    salloc = world.say("allocate")
    world.say("keep", salloc)
    world.gone(salloc)
    assert not any(isinstance(effect, do.WatchOwner) for effect in world.restart())
    assert world.word(1) == "RUNNING"


def test_the_interactive_step(world: World) -> None:
    world.say("allocate")
    world.say("run", options={"jobid": "1"}, interactive=True, in_job=1)
    assert world.launched[0].spec.step_id == INTERACTIVE_STEP
    world.step(1)
    assert world.launched[1].spec.step_id == 0, "it takes no CPU away"
    assert "SLURM_STEP_ID" not in world.launched[0].spec.env


# -- scancel ---------------------------------------------------------------------------------------


def test_cancelling_a_running_job_ends_its_steps(world: World) -> None:
    job_id = world.submit()
    answer = world.cancel(str(job_id))
    assert (answer["cancelled"], answer["errors"]) == (["1"], [])
    assert world.word(job_id) == "COMPLETING"
    world.ended((job_id, BATCH_STEP), 0, "cancelled")
    assert world.outcome(job_id) == life.Outcome(word=Word.CANCELLED, signal=15)


def test_cancelling_a_waiting_run_tells_its_client(world: World) -> None:
    world.submit(ntasks="2")
    srun = world.run()
    world.cancel("2")
    assert world.told(srun) == ["pending", "notice", "error"]


def test_cancelling_a_step_leaves_its_job(world: World) -> None:
    job_id = world.submit(ntasks="2")
    world.step(job_id)
    waiting = world.step(job_id)
    world.cancel(f"{job_id}.1", f"{job_id}.0")
    assert world.told(waiting) == ["notice", "notice", "error"]
    assert world.state.steps[job_id, 0].state.word is Word.COMPLETING
    assert world.word(job_id) == "RUNNING"


@pytest.mark.parametrize(
    ("fields", "signalled"),
    [
        ({"signal": 10}, [do.Signal((1, 0), 10)]),
        ({"signal": 10, "batch": True}, [do.Signal((1, BATCH_STEP), 10, batch_only=True)]),
        ({"signal": 10, "full": True}, [do.Signal((1, BATCH_STEP), 10), do.Signal((1, 0), 10)]),
        ({"signal": 9}, [do.Terminate((1, BATCH_STEP), "cancelled", 9)]),
    ],
)
def test_whom_a_signal_reaches(
    world: World, fields: dict[str, Any], signalled: list[Effect]
) -> None:
    world.step(world.submit())
    effects = Effects()
    body = {"op": "cancel", "jobs": ["1"], **fields}
    react(world.state, effects, on.Message(at=1.0, client=9, body=body))
    found = [each for each in effects.take() if isinstance(each, do.Signal | do.Terminate)]
    assert found[: len(signalled)] == signalled


def test_filters(world: World) -> None:
    world.submit(job_name="a", ntasks="2")
    world.submit(job_name="b")
    world.submit(job_name="b", hold="1")
    assert world.cancel(state="PD", name="b")["cancelled"] == ["2", "3"]
    assert world.cancel(user="nobody")["cancelled"] == []
    assert world.cancel(state="running")["cancelled"] == ["1"]


def test_what_cannot_be_cancelled(world: World) -> None:
    world.submit(hold="1")
    world.cancel("1")
    assert world.cancel("99")["errors"] == [
        {
            "job": "99",
            "sentence": "Kill job error on job id 99: Invalid job id specified",
            "quiet": True,
        }
    ]
    assert not world.cancel("1", signal=10)["errors"][0]["quiet"]
    assert "on job step id 1.0" in world.cancel("1.0")["errors"][0]["sentence"]
    for names in (["abc"], ["1.x"], ["1_x"], []):
        assert world.told(world.say("cancel", jobs=names)) == ["error"]


# -- queries, stop ---------------------------------------------------------------------------------


def test_queries(world: World) -> None:
    world.submit(output="out.%j", ntasks="2", mem="100", time="5")
    world.submit()
    world.step(1)
    (answer,) = world.heard(world.say("query", what="jobs"))
    first, second = answer["jobs"]
    assert (first["job_id"], first["state"], first["cpu_ids"]) == (1, "RUNNING", [0, 1])
    assert (first["stdout"], first["stderr"], first["stdin"]) == (
        "/w/out.1",
        "/w/out.1",
        "/dev/null",
    )
    assert (first["memory"], first["time_limit"], first["end_time"]) == (100, 300, 400.0)
    assert (second["state"], second["reason"], second["start_time"]) == (
        "PENDING",
        "Resources",
        None,
    )
    (answer,) = world.heard(world.say("query", what="steps"))
    assert [step["step_id"] for step in answer["steps"]] == [BATCH_STEP, 0]
    (answer,) = world.heard(world.say("query", what="nodes"))
    assert (answer["nodes"][0]["state"], answer["nodes"][0]["memory_alloc"]) == ("ALLOCATED", 100)
    (answer,) = world.heard(world.say("query", what="partitions"))
    assert answer["partitions"][0]["alloc_cpus"] == 2
    (answer,) = world.heard(world.say("query", what="config"))
    assert answer["config"]["EnforcePartLimits"] == "ALL"
    assert world.told(world.say("query", what="x")) == ["error"]


def test_an_ended_job_is_shown_from_the_journal(world: World) -> None:
    job_id = world.submit()
    world.ended((job_id, BATCH_STEP), 3)
    (answer,) = world.heard(world.say("query", what="jobs", job_id=job_id))
    (view,) = answer["jobs"]
    assert (view["state"], view["exit_code"], view["reason"]) == ("FAILED", 3, "NonZeroExitCode")


def test_stopping(world: World) -> None:
    job_id = world.submit(ntasks="2")
    world.submit()
    stop = world.say("stop")
    assert world.told(stop) == []
    assert world.told(world.run()) == ["error"]
    effects = world.ended((job_id, BATCH_STEP))
    assert effects[-2:] == [do.Reply(stop, {"event": "done"}), do.Quit()]
    assert world.word(2) == "PENDING", "the next controller's"


# -- restart ---------------------------------------------------------------------------------------


def test_what_runs_is_adopted_and_what_waits_goes_on_waiting(world: World) -> None:
    running, waiting = world.submit(ntasks="2", time="1"), world.submit()
    effects = world.restart()
    assert do.Adopt((running, BATCH_STEP)) in effects
    assert world.timers == {("limit", running, ALLOCATION): 160.0}
    world.ended((running, BATCH_STEP))
    assert world.word(waiting) == "RUNNING"


def test_what_waited_with_its_client_is_withdrawn(world: World) -> None:
    job_id = world.submit(ntasks="2")
    world.step(job_id)
    world.step(job_id)
    world.run()
    world.restart()
    assert world.word(2) == "CANCELLED"
    assert set(world.state.steps) == {(job_id, BATCH_STEP), (job_id, 0)}
    assert world.state.new_step_id(job_id) == 2


def test_a_client_that_comes_back_owns_its_step_again(world: World) -> None:
    world.run()
    world.restart()
    srun = world.say("wait", job_id=1, step_id=0)
    watcher = world.say("wait", job_id=1, step_id=0)
    world.gone(watcher)
    assert world.state.steps[1, 0].state.word is Word.RUNNING
    world.gone(srun)
    assert world.state.steps[1, 0].state.word is Word.COMPLETING


def test_a_step_that_was_being_ended_is_told_again(world: World) -> None:
    world.gone(world.run())
    world.restart()
    effects = world.react(on.Started(at=101.0, step=(1, 0), pid=7, adopted=True))
    assert effects == [do.Terminate((1, 0), "cancelled", 15)]


def test_a_batch_script_that_never_began_begins_now(world: World) -> None:
    job_id = world.submit()
    world.restart()
    effects = world.react(on.Vanished(at=101.0, step=(job_id, BATCH_STEP), begun=False))
    assert kinds(effects) == ["Launch"]
    assert effects[0].payload == job_id  # type: ignore[union-attr]


def test_a_killed_supervisor_is_our_failure_not_the_programs(world: World) -> None:
    srun = world.run()
    world.react(on.Vanished(at=101.0, step=(1, 0), begun=True))
    (answer,) = world.heard(srun)
    assert answer["code"] == 125
    assert answer["record"]["tasks"][0]["reason"] == "roadstead"
    assert world.outcome(1) == life.Outcome(word=Word.FAILED, code=125, reason="SystemFailure")


# -- any sequence ----------------------------------------------------------------------------------


@dataclass
class Story:
    """A world in which anything may happen next; ``check`` holds after each sentence."""

    world: World = field(default_factory=World)
    clients: list[int] = field(default_factory=list)
    told: dict[int, int] = field(default_factory=dict)

    def happen(self, what: int, which: int, option: int) -> None:
        world = self.world
        jobs = list(world.state.jobs) or [1]
        job_id = jobs[which % len(jobs)]
        ntasks = str(1 + option % 2)
        steps = sorted(world.supervisors)
        match what:
            case 0:
                world.submit(ntasks=ntasks, **({"time": "1"} if option > 4 else {}))
            case 1:
                self.clients.append(world.run(ntasks=ntasks))
            case 2:
                self.clients.append(world.say("allocate", options={"ntasks": ntasks}))
            case 3:
                extra = [{}, {"exact": "1"}, {"overlap": "1"}][option % 3]
                parent = option - 4 if option > 4 else None
                self.clients.append(world.step(job_id, parent, ntasks=ntasks, **extra))
            case 4 if self.clients:
                world.gone(self.clients.pop(which % len(self.clients)))
            case 5 if self.clients:
                world.say("release", self.clients[which % len(self.clients)])
            case 6:
                world.cancel(str(job_id) if option % 2 else f"{job_id}.{option % 3}")
            case 7 if steps:
                reason: Reason = "cancelled" if option > 5 else "program"
                world.ended(steps[which % len(steps)], option % 3, reason)
            case 8 if steps:
                key = steps[which % len(steps)]
                world.supervisors.discard(key)
                world.react(on.Vanished(at=world.at, step=key, begun=bool(option % 2)))
            case 9 if world.timers:
                world.due(sorted(world.timers)[which % len(world.timers)])
            case 10 if option % 4 == 0:
                world.restart()
                self.clients.clear()
            case 11:
                world.control(ACTIONS[option % len(ACTIONS)], job_id)
            case 12:
                words = {"state": ["DOWN", "RESUME", "DRAIN"][option % 3], "reason": "r"}
                world.say("update_node", nodes="vm", **words)
            case 14:
                world.submit(ntasks=ntasks, array=f"0-{option}%{1 + which % 3}")
            case 13:
                world.control("update", job_id, changes={"timelimit": str(option), "nice": "5"})
            case 15:
                self._ask_for_components(option, ntasks)
            case 16:
                other = {"options": {"het-group": "1", "jobid": str(job_id)}, "argv": ["y"]}
                options = {"het-group": "0", "jobid": str(job_id)}
                client = world.say(
                    "run", options=options, in_job=job_id, in_step=which - 1 if which else None,
                    components=[other],
                )  # fmt: skip
                self.clients.append(client)
            case 17:
                world.cancel(f"{job_id}+{option % 3}")

    def _ask_for_components(self, option: int, ntasks: str) -> None:
        """A heterogeneous job of each kind."""
        others = [{"options": {"ntasks": "1"}, "argv": ["y"]}] * (1 + option % 2)
        op = ("submit", "run", "allocate")[option % 3]
        options = {"ntasks": ntasks, "overcommit": "1"}
        if option > 5:
            options["time"] = "1"
        fields = {"script": "#!/bin/sh\n"} if op == "submit" else {}
        client = self.world.say(op, options=options, components=others, **fields)
        if op != "submit":
            self.clients.append(client)

    def check(self) -> None:
        world, state = self.world, self.world.state
        found = world.journal.load()
        assert {job.id: job for job in found.jobs} == state.jobs
        bare = {
            key: replace(s, request=replace(s.request, env={})) for key, s in state.steps.items()
        }
        for job in state.jobs.values():
            if job.spec.het is not None and job.spec.het.offset:
                assert job.id not in state.queue, "the first of them waits for all"
                ends = isinstance(job.state, life.JobCompleting)
                assert ends or job.spec.het.job_id in state.jobs, "none outlives the first of them"
        assert {step.key: step for step in found.steps} == bare
        running = {key for key, s in state.steps.items() if s.state.word is not Word.PENDING}
        assert running == world.supervisors, "a running step has a supervisor, and no other has"
        for key, step in state.steps.items():
            assert step.state.word is not Word.PENDING or key in state.owners
        taken = list(state.pool.nodes["vm"].cpus)
        for job in state.jobs.values():
            if isinstance(job.state, life.JobPending):
                first = job.id if job.spec.het is None else job.spec.het.job_id
                owners = {(first, 0), (first, ALLOCATION)} & state.owners.keys()
                assert job.spec.kind == "batch" or owners
            else:
                taken += job.state.allocation.shares[0].cpus  # type: ignore[union-attr]
        assert sorted(taken) == list(NODE.cpus)
        for client, told in world.replies.items():
            final = [answer for answer in told if answer["event"] in FINAL]
            assert len(final) <= 1, (client, told)

    def end(self) -> None:
        """Everybody goes, everything ends."""
        for client in self.clients:
            self.world.gone(client)
        for job in list(self.world.state.jobs.values()):
            if job.spec.kind == "alloc":
                self.world.react(on.OwnerGone(at=self.world.at, job_id=job.id))
        self.world.say("update_node", nodes="vm", state="RESUME")
        for job_id in list(self.world.state.jobs):
            self.world.control("release", job_id)
        while self.world.supervisors:
            self.world.ended(sorted(self.world.supervisors)[0])
            self.check()
        state = self.world.state
        left = (
            *(state.jobs, state.steps, state.seats, state.owners, state.watchers, state.keys),
            state.arrays,
        )
        assert not any(left), left


@given(st.lists(st.tuples(st.integers(0, 17), st.integers(0, 7), st.integers(0, 7)), max_size=16))
@settings(max_examples=80, deadline=None)
@pytest.mark.long
def test_no_sequence_of_events_leaves_a_step_neither_ended_nor_owned(
    events: list[tuple[int, int, int]],
) -> None:
    story = Story()
    for event in events:
        story.happen(*event)
        story.check()
    story.end()
    story.world.journal.close()


def test_a_long_queue_is_told_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_PAGE", 3)
    numbers = [world.submit(ntasks="2") for _ in range(7)]
    seen: list[int] = []
    after: dict[str, int] = {}
    for page in (3, 3, 1):
        (answer,) = world.heard(world.say("query", what="jobs", **after))
        assert len(answer["jobs"]) == page
        seen += [view["job_id"] for view in answer["jobs"]]
        after = {"after": answer.get("more", 0)}
    assert seen == numbers
    assert after == {"after": 0}, "there is no more"


# -- job arrays ------------------------------------------------------------------------------------


def of_array(world: World) -> list[tuple[int, str]]:
    """The elements that have not ended: their numbers, and what they are."""
    found = [job for job in world.state.jobs.values() if job.spec.array]
    return [(job.spec.array.task_id, job.state.word) for job in found if job.spec.array]


def test_an_array_is_a_job_for_each_number_with_one_script(world: World) -> None:
    first = world.submit(array="3-9:3", ntasks="2")
    assert of_array(world) == [(3, "RUNNING"), (6, "PENDING"), (9, "PENDING")]
    world.ended((first, BATCH_STEP))
    (launched,) = world.launched[-1:]
    assert (launched.spec.job_id, launched.payload) == (first + 1, first)
    env = launched.spec.env
    assert (env["SLURM_ARRAY_JOB_ID"], env["SLURM_ARRAY_TASK_ID"]) == (str(first), "6")
    assert (env["SLURM_ARRAY_TASK_COUNT"], env["SLURM_ARRAY_TASK_STEP"]) == ("3", "3")
    assert world.journal.payload(first)[1] == "#!/bin/sh\n", "the others need it"
    world.ended((first + 1, BATCH_STEP))
    world.ended((first + 2, BATCH_STEP))
    world.due(("payload", first, ALLOCATION))
    assert world.journal.payload(first) == ({}, "")
    assert world.state.arrays == {}


@pytest.mark.parametrize("restart", [False, True])
def test_no_more_of_an_array_are_out_than_it_allows(world: World, restart: bool) -> None:
    first = world.submit(array="0-3%1")
    other = world.submit()
    assert [word for _, word in of_array(world)] == ["RUNNING", "PENDING", "PENDING", "PENDING"]
    assert world.word(other) == "RUNNING", "there is room for somebody else"
    if restart:
        world.restart()
    world.control("hold", first + 1)
    world.ended((first, BATCH_STEP))
    assert of_array(world) == [(1, "PENDING"), (2, "RUNNING"), (3, "PENDING")]
    world.cancel(f"{first}_2")
    world.ended((first + 2, BATCH_STEP), 143, "cancelled")
    assert of_array(world) == [(1, "PENDING"), (3, "RUNNING")]
    world.control("release", first + 1)
    world.ended((first + 3, BATCH_STEP))
    assert of_array(world) == [(1, "RUNNING")]


def test_an_array_is_cancelled_as_one(world: World) -> None:
    first = world.submit(array="0-3", hold="1")
    world.cancel(f"{first}_[1,3]")
    assert [number for number, _ in of_array(world)] == [0, 2]
    world.cancel(str(first))
    assert of_array(world) == []


def test_a_filter_cancels_each_element_once(world: World) -> None:
    world.submit(array="0-3", hold="1")
    answer = world.cancel(state="PD")
    assert (answer["cancelled"], answer["errors"]) == (["1", "2", "3", "4"], [])
