"""--container-sync: who waits for whom, and what all hear."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roadstead.agent.meeting import There
from roadstead.core.model import TaskSpec
from roadstead.engines.slurm import meeting as beside
from roadstead.errors import EngineError, RuntimeFailure
from roadstead.host import lines
from roadstead.host.loop import Loop
from roadstead.step.life import Lives
from roadstead.step.meeting import Here


def task(procid: int) -> TaskSpec:
    return TaskSpec(procid=procid, localid=procid, argv=("true",), env={}, node="n1", nodeid=0)


class Heard:
    """What the tasks of a supervisor hear."""

    def __init__(self, *procids: int) -> None:
        self.loop = Loop()
        self.lives = Lives(self.loop)
        self.meeting = Here(procids)
        self.said: dict[int, str] = {}

    def stand(self, procid: int) -> None:
        def heard(text: str) -> None:
            self.said[procid] = text

        life = self.meeting.stand(task(procid))
        self.lives.start(life, lambda _: heard("go"), lambda error: heard(str(error)))

    def settle(self) -> dict[int, str]:
        self.loop.call_later(0.02, self.loop.stop)
        self.loop.run()
        return self.said


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard(0, 1, 2)
    yield made
    made.meeting.close()
    made.loop.close()


def test_all_go_once_all_stand(heard: Heard) -> None:
    heard.stand(0)
    heard.stand(2)
    assert heard.settle() == {}
    heard.stand(1)
    assert heard.settle() == dict.fromkeys((0, 1, 2), "go")
    heard.meeting.left(task(1))  # it has run
    heard.meeting.left(task(7))  # one that has no container


@pytest.mark.parametrize("stood", [True, False])
def test_nobody_goes_where_one_has_ended_before(heard: Heard, stood: bool) -> None:
    heard.stand(0)
    if stood:
        heard.stand(2)
    heard.meeting.left(task(2))
    heard.stand(1)
    told = heard.settle()
    assert "task 2 has no container" in told[0]
    assert told[0] == told[1]


def test_nothing_stays_open_where_it_is_given_up() -> None:
    before = set(os.listdir("/proc/self/fd"))
    made = Heard(0, 1)
    made.stand(0)
    made.settle()
    made.meeting.close()
    made.loop.close()
    assert set(os.listdir("/proc/self/fd")) == before


# -- beside srun ----------------------------------------------------------------------------------


class Srun:
    """The place beside an srun, in a thread."""

    def __init__(self) -> None:
        self.listener = lines.Listener()
        read, self.ends = os.pipe()
        self.read = read
        self.loop = Loop()
        place = beside.Place(self.loop, self.listener, "secret", read)
        self.thread = threading.Thread(target=place.run)
        self.thread.start()
        self.told = {"port": self.listener.port, "token": "secret"}

    def agent(self, procid: int, ntasks: int = 2, **told: Any) -> There:
        environ = {"SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "SLURM_PROCID": str(procid)}
        return There({**self.told, **told}, environ, ntasks)

    def close(self) -> None:
        os.close(self.ends)
        self.thread.join()
        self.loop.close()
        self.listener.close()
        os.close(self.read)


@pytest.fixture
def srun() -> Iterator[Srun]:
    made = Srun()
    yield made
    made.close()


def outcome(agent: There, procid: int) -> str:
    life = agent.stand(task(procid))
    next(life)
    try:
        life.send(agent.reap())
    except StopIteration:
        return "go"
    except RuntimeFailure as error:
        return str(error)
    finally:
        agent.close()
    raise AssertionError("it waits for something else")


def test_agents_go_once_all_stand(srun: Srun) -> None:
    first, second = srun.agent(0), srun.agent(1)
    next(first.stand(task(0)))
    assert outcome(second, 1) == "go"
    assert first.reap() == 0
    first.close()


def test_an_agent_that_ends_first_stops_all_the_others(srun: Srun) -> None:
    first = srun.agent(0)
    srun.agent(1).close()
    assert "task 1 has no container" in outcome(first, 0)
    assert "task 1 has no container" in outcome(srun.agent(0), 0)  # who comes late


def test_one_that_does_not_come_is_waited_for_no_longer_than_is_fair(
    srun: Srun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_COMING_SECONDS", 0.05)
    assert "task 1 has no container" in outcome(srun.agent(0), 0)


@pytest.mark.parametrize("told", [{"token": "guessed"}, {"token": ""}])
def test_strangers_are_not_let_in(srun: Srun, told: dict[str, str]) -> None:
    stranger = srun.agent(0, **told)
    assert "nobody is at 127.0.0.1:" in outcome(stranger, 0)


@pytest.mark.parametrize("line", ["secret", "secret x 2", "x" * 500, ""])
def test_what_is_no_greeting_ends_the_conversation(srun: Srun, line: str) -> None:
    link = lines.connect("127.0.0.1", srun.listener.port, 5)
    link.say(line)
    assert link.hear() is None
    link.close()


def test_who_says_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_GREETING_SECONDS", 0.05)
    made = Srun()
    link = lines.connect("127.0.0.1", made.listener.port, 5)
    assert link.hear() is None
    link.close()
    made.close()


def test_a_place_that_is_gone_is_told(srun: Srun) -> None:
    agent = srun.agent(0)
    os.write(srun.ends, b".")  # srun has ended
    srun.thread.join()
    srun.listener.close()
    with pytest.raises(RuntimeFailure, match=r"cannot be reached at 127\.0\.0\.1:"):
        srun.agent(1)
    agent.close()


def conf(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "slurm.conf"
    path.write_text(text)
    return {"SLURM_CONF": os.fspath(path)}


def test_the_port_is_one_that_nodes_reach(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        environ = conf(tmp_path, f"ClusterName=one\n srunportrange = {taken}-{taken}  # two\n")
        with pytest.raises(
            EngineError, match=rf"no port, in .* SrunPortRange={taken}-{taken}: none"
        ):
            beside._listener(environ)
    listener = beside._listener(environ)
    assert listener.port == taken
    listener.close()


@pytest.mark.parametrize(
    "text", ["", "#SrunPortRange=5-6\n", "SrunPortRange=\n", "SrunPortRange=x\n"]
)
def test_without_a_range_it_is_any(tmp_path: Path, text: str) -> None:
    listener = beside._listener(conf(tmp_path, text))
    assert listener.port > 0
    listener.close()


def test_the_ports_of_a_range() -> None:
    assert sorted(beside.ports("60001-60005")) == list(range(60001, 60006))
    assert beside.ports("5-4") == beside.ports("nonsense") == [0]
