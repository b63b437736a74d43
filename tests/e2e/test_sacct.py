"""sacct, of jobs that have really run: what it tells of their ends, and of what they used."""

from __future__ import annotations

import os
import signal

from tests.support.engine import Engine
from tests.support.waiting import eventually


def rows(engine: Engine, *argv: str) -> list[list[str]]:
    said = engine.run(["sacct", "-n", "-P", *argv]).check().stdout
    return [line.split("|") for line in said.splitlines()]


def test_the_history_of_jobs(engine: Engine) -> None:
    user = engine.account.uid
    script = engine.account.write(
        engine.work / "job.sh", "#!/bin/sh\nsrun -J one true\nsrun -J two sh -c 'exit 3'\nexit 4\n"
    )
    engine.run(["sbatch", "--wait", "-J", "steps", str(script)]).check(4)
    engine.run(["srun", "-J", "direct", "sh", "-c", "kill -9 $$"]).check(137)
    engine.run(["sbatch", "--wait", "-a", "1-2", "-J", "arr", "--wrap", "exit 0"]).check()
    sleeper = engine.run(["sbatch", "--parsable", "--wrap", "sleep 100"]).check().stdout.strip()
    eventually(lambda: rows(engine, "-j", sleeper, "-X", "-o", "state") == [["RUNNING"]])
    engine.run(["scancel", sleeper]).check()
    eventually(
        lambda: rows(engine, "-j", sleeper, "-X", "-o", "state") == [[f"CANCELLED by {user}"]]
    )
    found = rows(engine, "-o", "jobid,jobname,state,exitcode,derivedexitcode")
    assert found[:6] == [
        ["1", "steps", "FAILED", "4:0", "3:0"],
        ["1.batch", "batch", "FAILED", "4:0", ""],
        ["1.0", "one", "COMPLETED", "0:0", ""],
        ["1.1", "two", "FAILED", "3:0", ""],
        ["2", "direct", "FAILED", "0:9", "0:9"],
        ["2.0", "direct", "CANCELLED", "0:9", ""],
    ]
    assert [row[0] for row in found[6:10]] == ["3_1", "3_1.batch", "3_2", "3_2.batch"]
    assert rows(engine, "-j", "3_2", "-X", "-o", "jobidraw") == [["4"]]
    assert rows(engine, "-j", "1.1", "-o", "jobid") == [["1.1"]]
    assert rows(engine, "-X", "--name", "arr,direct", "-o", "jobid") == [["2"], ["3_1"], ["3_2"]]
    now = ("-S", "now-1hour", "-E", "now", "-X", "-o", "jobid")
    assert rows(engine, *now, "-s", "F") == [["1"], ["2"]]
    assert rows(engine, *now, "-s", "ca") == [[sleeper]]
    assert rows(engine, "-s", "F", "-X") == []


def test_usage_is_what_was_used(engine: Engine) -> None:
    busy = "import time; x = bytearray(96 << 20)\nwhile time.process_time() < 0.6: pass"
    engine.run(["srun", "python3", "-c", busy]).check()
    ((cpu, peak),) = rows(engine, "-j", "1.0", "-o", "totalcpu,maxrss", "--units=K")
    assert 0.5 < float(cpu.partition(":")[2]) < 5
    assert 96 << 10 < float(peak.removesuffix("K")) < 160 << 10


def test_records_are_right_after_a_crash(engine: Engine) -> None:
    engine.leaks_are_expected = True
    done = engine.run(["sbatch", "--parsable", "-J", "survivor", "--wrap", "sleep 2; exit 7"])
    job = done.check().stdout.strip()
    eventually(lambda: rows(engine, "-j", job, "-X", "-o", "state") == [["RUNNING"]])
    said = engine.run(["roadstead", "engine", "status"]).check().stdout
    os.kill(int(said.split("controller ")[1].split(",")[0]), signal.SIGKILL)
    eventually(
        lambda: rows(engine, "-j", job, "-X", "-o", "state,exitcode") == [["FAILED", "7:0"]],
        timeout=20,
    )
    assert rows(engine, "-j", f"{job}.batch", "-o", "state,exitcode") == [["FAILED", "7:0"]]
