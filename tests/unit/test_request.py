"""Requests as clients send them: what they become, and Slurm's sentences where they cannot."""

from __future__ import annotations

from typing import Any

import pytest

from roadstead.core import request
from roadstead.core.model import ContainerRequest, Gres, JobKind, JobSpec, Stdio, StepRequest
from roadstead.core.request import Extra
from roadstead.core.site import Node, Site
from roadstead.errors import RoadsteadError

NODE = Node(name="vm", cpus=(0, 1, 2, 3), memory=4000)
SITE = Site.of(NODE, 1001, {"HOME": "/home/alice"})


def message(*argv: str, **more: Any) -> dict[str, Any]:
    return {
        "op": "run",
        "key": "k",
        "options": {},
        "argv": list(argv or ("true",)),
        "env": {"HOME": "/h", "SLURM_PROCID": "7"},
        "cwd": "/w",
        "umask": 0o22,
        "user": "alice",
        "gid": 1001,
        "terminal": None,
        "in_job": None,
        "in_step": None,
        **more,
    }


def job(kind: JobKind = "run", **options: str) -> JobSpec:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return request.job(kind, message(options=named, script="#!/bin/sh\n"), SITE, Extra())


def step(**options: str) -> StepRequest:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    body = message(options={"jobid": "7", **named}, in_job=7, in_step=3)
    return request.step(body, SITE, Extra())


def test_a_plain_run() -> None:
    assert request.job("run", message("/bin/true", "x"), SITE, Extra(group="users")) == JobSpec(
        kind="run",
        name="true",
        user="alice",
        uid=1001,
        gid=1001,
        group="users",
        cwd="/w",
        submit_dir="/w",
        submit_host="vm",
        argv=("/bin/true", "x"),
        env={"HOME": "/h"},
        partition="local",
        key="k",
    )


def test_numbers_and_times() -> None:
    spec = job(ntasks="2", cpus_per_task="2", mem="1G", time="5", job_name="n", comment="c")
    numbers = (spec.ntasks, spec.cpus_per_task, spec.memory, spec.time_limit)
    assert (*numbers, spec.name, spec.comment) == (2, 2, 1024, 300, "n", "c")
    assert spec.asked == ("ntasks", "cpus-per-task", "mem")


def test_memory_by_the_cpu_and_all_of_it() -> None:
    spec = job(ntasks="3", mem_per_cpu="100")
    assert (spec.memory, spec.memory_per_cpu) == (0, 100)
    assert job(mem="0").memory == 4000


def test_a_batch_job_has_files_and_a_name() -> None:
    spec = job("batch", open_mode="append")
    assert spec.stdio == Stdio(input="none", output="slurm-%j.out", append=True)
    assert spec.script == "#!/bin/sh\n"
    assert job("batch", export="NONE").env == {"HOME": "/home/alice", "SLURM_EXPORT_ENV": "NONE"}
    assert job("alloc").name == "interactive"


def test_directories_are_where_the_command_was_typed() -> None:
    assert job(chdir="sub").cwd == "/w/sub"
    assert job(chdir="/x").cwd == "/x"
    assert job(chdir="/x").submit_dir == "/w"


@pytest.mark.parametrize(
    ("options", "seconds"), [({}, None), ({"immediate": ""}, 1.0), ({"immediate": "60"}, 60.0)]
)
def test_immediate(options: dict[str, str], seconds: float | None) -> None:
    assert job(**options).immediate == seconds


@pytest.mark.parametrize(("value", "kills"), [("", True), ("1", True), ("0", False)])
def test_kill_on_bad_exit(value: str, kills: bool) -> None:
    assert job(kill_on_bad_exit=value).kill_on_bad_exit is kills


def test_overcommit_and_exclusive_change_what_is_needed() -> None:
    assert job(ntasks="100", overcommit="1").ntasks == 100
    assert job(exclusive="").exclusive


def test_nodes_are_reduced_to_the_tasks() -> None:
    assert job(nodes="1-4").nodes == 1
    assert job(nodes="2", ntasks="1").nodes == 1


def test_a_step() -> None:
    wanted = step(ntasks="2", overlap="1", label="1", output="all")
    assert (wanted.ntasks, wanted.overlap, wanted.exact, wanted.parent_step) == (2, True, False, 3)
    assert wanted.stdio == Stdio(label=True)
    assert step(cpus_per_task="1").exact
    assert step(exact="1").exact


def test_a_step_typed_in_another_job_has_no_parent_here() -> None:
    body = message(options={"jobid": "8"}, in_job=7, in_step=3)
    assert request.job_of_step(body) == 8
    assert request.step(body, SITE, Extra()).parent_step is None


def test_the_batch_step_shares_the_cpus_of_the_job() -> None:
    spec = job("batch", container="/b", ntasks="3")
    wanted = request.main_step(spec, {})
    assert (wanted.name, wanted.ntasks, wanted.overlap) == ("batch", 1, True)
    assert wanted.container == ContainerRequest(bundle="/b")


def test_container_options() -> None:
    assert job(container="/b").container == ContainerRequest(bundle="/b")
    assert job(
        container="/b",
        container_id="x",
        container_writable="private",
        container_env_policy="clean",
        container_hooks="run",
    ).container == ContainerRequest(
        bundle="/b", id="x", writable="private", env_policy="clean", hooks="run"
    )
    assert job(container="/b", container_readonly="1").container == ContainerRequest(
        bundle="/b", readonly=True
    )
    assert job(container_id="only-a-label").container is None


RUN = "Unable to allocate resources: "


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"ntasks": "0"}, "request", 'Invalid numeric value "0" for --ntasks.'),
        ({"time": "x"}, "usage", "Invalid --time specification"),
        ({"mem": "x"}, "usage", "Invalid --mem specification"),
        ({"mem": "1", "mem_per_cpu": "1"}, "request", "--mem and --mem-per-cpu are mutually"),
        ({"nodes": "2"}, "request", f"{RUN}Node count specification invalid"),
        ({"nodes": "0"}, "request", f"{RUN}Node count specification invalid"),
        ({"ntasks": "5"}, "request", f"{RUN}More processors requested than permitted"),
        ({"ntasks": "513", "overcommit": "1"}, "request", "--ntasks=513: a node runs at most 512"),
        ({"cpus_per_task": "5"}, "request", f"{RUN}More processors requested than permitted"),
        ({"ntasks": "3", "ntasks_per_node": "2"}, "request", f"{RUN}More processors"),
        ({"mem": "5G"}, "request", f"{RUN}Requested node configuration is not available"),
        ({"partition": "x"}, "request", f"{RUN}invalid partition specified: x"),
        ({"immediate": "x"}, "request", 'Invalid numeric value "x" for --immediate.'),
        ({"open_mode": "x"}, "usage", "Invalid --open-mode specification"),
        ({"mpi": "openmpi"}, "request", "Invalid MPI type 'openmpi'"),
        ({"container": "b"}, "request", "--container=b: not an absolute path"),
        ({"container_readonly": "1"}, "request", "--container-readonly needs --container"),
        (
            {"container": "/b", "container_readonly": "1", "container_writable": ""},
            "request",
            "--container-readonly and --container-writable contradict each other",
        ),
        ({"container": "/b", "container_writable": "x"}, "usage", "Invalid --container-writable"),
        ({"container": "/b", "container_hooks": "x"}, "usage", "Invalid --container-hooks"),
    ],
)
def test_refused(options: dict[str, str], kind: str, sentence: str) -> None:
    with pytest.raises(RoadsteadError) as caught:
        job(**options)
    assert str(caught.value).startswith(sentence)
    assert caught.value.kind == kind


def test_sentences_begin_as_the_commands_do() -> None:
    for kind, words in (("batch", "Batch job submission failed"), ("alloc", "Job submit/allocate")):
        with pytest.raises(RoadsteadError, match=f"^{words}"):
            job(kind, partition="x")  # type: ignore[arg-type]


def test_a_step_says_how_many_nodes_and_has_a_task_on_each() -> None:
    assert (step(nodes="2").nodes, step(nodes="2").ntasks) == (2, 2)
    body = message(options={"jobid": "7", "ntasks-per-node": "2"})
    assert request.step(body, SITE, Extra(), 3).ntasks == 6


@pytest.mark.parametrize(
    ("options", "gres"),
    [
        ({}, None),
        ({"gres": "none"}, ()),
        ({"gres": "gpu:a:2"}, (Gres(name="gpu", type="a", count=2),)),
        ({"gpus": "2"}, (Gres(name="gpu", count=2),)),
        ({"gpus_per_node": "3"}, (Gres(name="gpu", count=3),)),
        ({"gpus_per_task": "1", "ntasks": "4"}, (Gres(name="gpu", count=4),)),
        ({"gpus": "4", "nodes": "2"}, (Gres(name="gpu", count=2),)),
    ],
    ids=str,
)
def test_what_a_step_has_of_its_jobs_devices(
    options: dict[str, str], gres: tuple[Gres, ...] | None
) -> None:
    assert step(**options).gres == gres


@pytest.mark.parametrize(
    "broken",
    [
        {"options": None},
        {"options": {"time": 5}},
        {"argv": "x"},
        {"argv": [1]},
        {"env": {"A": 1}},
        {"cwd": None},
        {"umask": -1},
        {"gid": True},
        {"terminal": 1},
        {"terminal": {"rows": 1}},
        {"key": "k" * 65},
        {"key": "é"},
    ],
)
def test_a_malformed_message_is_named_and_raises_nothing_else(broken: dict[str, Any]) -> None:
    with pytest.raises(RoadsteadError, match="malformed request"):
        request.job("run", message(**broken), SITE, Extra())
