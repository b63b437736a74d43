"""Coming first, or to whoever has."""

from __future__ import annotations

import os
import select

import pytest

from roadstead.agent import given
from roadstead.host.door import Door, come


def test_one_takes_it_and_all_come() -> None:
    name = f"roadstead-test-{os.urandom(8).hex()}"
    with pytest.raises(ConnectionRefusedError):
        come(name)
    door = Door.taken(name)
    assert door is not None
    assert Door.taken(name) is None
    assert door.accept() is None
    visitors = [come(name) for _ in range(3)]
    for number, each in enumerate(visitors):
        each.send({"number": number})
    poll = select.poll()
    poll.register(door, select.POLLIN)
    for number, each in enumerate(visitors):
        assert poll.poll(1000)
        found = door.accept()
        assert found is not None
        message = found.receive()
        assert message is not None
        assert message[0] == {"number": number}
        found.send({"answer": number})
        answer = each.receive()
        assert answer is not None
        assert answer[0] == {"answer": number}
        found.close()
        assert each.receive() is None
        each.close()
    assert door.accept() is None
    door.close()
    again = Door.taken(name)
    assert again is not None, "nothing of it has stayed"
    again.close()


def test_who_has_gone_before_he_was_let_in() -> None:
    door = Door.taken(f"roadstead-test-{os.urandom(8).hex()}")
    assert door is not None
    come_and_gone = come(door_name(door))
    come_and_gone.close()
    found = door.accept()
    assert found is not None
    assert found.receive() is None
    found.close()
    door.close()


def door_name(door: Door) -> str:
    return str(door._socket.getsockname()[1:].decode())


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
