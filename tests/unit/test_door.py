"""Coming first, or to whoever has."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from roadstead.agent import given
from roadstead.host import fork, process, wire
from roadstead.host.door import Door, come, trusted

SECRET = "known to us"


@pytest.fixture
def name() -> str:
    return f"roadstead-test-{os.urandom(8).hex()}"


def test_one_takes_it_and_all_come(name: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        come(name)
    door = Door.taken(name)
    assert door is not None
    assert Door.taken(name) is None
    assert door.accept(SECRET) is None
    visitors = [come(name) for _ in range(3)]
    poll = select.poll()
    poll.register(door, select.POLLIN)
    for number, each in enumerate(visitors):
        assert poll.poll(1000)
        found = door.accept(SECRET)
        assert found is not None
        assert trusted(heard(each), SECRET)
        each.send({"number": number})
        assert heard(found) == {"number": number}
        found.close()
        assert each.receive() is None
        each.close()
    assert door.accept(SECRET) is None
    door.close()
    again = Door.taken(name)
    assert again is not None, "nothing of it has stayed"
    again.close()


def heard(connection: wire.Connection) -> Any:
    found = connection.receive()
    return found and found[0]


def test_who_has_gone_before_he_was_let_in(name: str) -> None:
    door = Door.taken(name)
    assert door is not None
    come(name).close()
    assert door.accept(SECRET) is None
    door.close()


@pytest.mark.parametrize("said", [None, {}, {"secret": 1}, {"secret": ""}, {"secret": "known to"}])
def test_who_does_not_know_the_secret_is_not_trusted(said: object) -> None:
    assert not trusted(said, SECRET)
    assert trusted({"secret": SECRET}, SECRET)


def test_what_is_no_connection_is_thrown_away(name: str, tmp_path: Path) -> None:
    door = Door.taken(name)
    assert door is not None
    before = set(os.listdir("/proc/self/fd"))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other,
        open(tmp_path / "file", "w") as file,
    ):
        sender.connect(f"\0{name}")
        sender.send(b"nothing")
        for each in (file, other, sender):
            socket.send_fds(sender, [b"me"], [each.fileno()])
        socket.send_fds(sender, [b"me"], [file.fileno()] * 3)
        for _ in range(5):
            assert door.accept(SECRET) is None
    assert set(os.listdir("/proc/self/fd")) == before
    door.close()


@pytest.mark.root
def test_a_stranger_is_turned_away_unread(name: str) -> None:
    door = Door.taken(name)
    assert door is not None

    def stranger() -> None:
        os.setresuid(65534, 65534, 65534)
        connection = come(name)
        assert connection.receive() is None

    child = process.adopt(fork.run_in_child(stranger))
    poll = select.poll()
    poll.register(door, select.POLLIN)
    assert poll.poll(5000)
    assert door.accept(SECRET) is None
    assert child.reap() == 0
    door.close()


@pytest.mark.parametrize(
    ("text", "node", "count"),
    [
        ("3", 0, 3),
        ("2(x3),1", 0, 2),
        ("2(x3),1", 2, 2),
        ("2(x3),1", 3, 1),
        ("4,2(x2),1", 2, 2),
        ("4,2(x2),1", 3, 1),
        ("", 0, 1),
        ("x", 0, 1),
        ("2", 5, 1),
    ],
)
def test_the_tasks_of_a_node(text: str, node: int, count: int) -> None:
    environ = {"SLURM_STEP_TASKS_PER_NODE": text, "SLURM_NODEID": str(node)}
    assert given.tasks_here(environ) == count
