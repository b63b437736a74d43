"""A program that attacks a controller's socket, run as its user: LIBRARY SOCKET.

Standard library only, and seeded: what it sends is the same each time.  It ends well if the
controller that answers at the end is the one that answered first.
"""

from __future__ import annotations

import json
import os
import random
import sys

sys.path.insert(0, sys.argv[1])

import contextlib
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket

from roadstead.core.reactor import REQUESTS
from roadstead.host import wire

PATH = sys.argv[2]
ODD = [
    None, True, 0, -1, 1, 2**31, 2**63, 2**200, 1.5, float("inf"), float("nan"), "", "x", "1",
    "9" * 20, "9" * 5000, "a\0b", "\ud800", "\udce9", "../x", "%x%j", "\n\x1b[31m", [], ["a", 1],
    {}, {"a": 1}, {"\0": "x"}, {"a=b": "c"}, {"": "c"}, {"x": {"y": {}}}, "1:2:3",
    "UNLIMITED", "٣",
    [[[[[[[[]]]]]]]],
]  # fmt: skip
OPTIONS = (
    "job-name", "ntasks", "cpus-per-task", "mem", "mem-per-cpu", "jobid", "nodes", "time",
    "partition", "container", "container-id", "container-env-policy", "chdir", "export", "hold",
    "immediate", "wait", "comment", "mpi", "open-mode", "output", "error", "input",
)  # fmt: skip
RANDOM = random.Random(3)


def ping() -> int:
    connection = wire.connect(PATH)
    connection.send({"v": wire.VERSION, "op": "ping"})
    received = connection.receive()
    assert received is not None
    connection.close()
    return int(received[0]["pid"])


def raw(data: bytes, fds: tuple[int, ...] = (), more: bytes = b"") -> None:
    sock = socket(AF_UNIX, SOCK_SEQPACKET)
    sock.connect(PATH)
    packed = b"".join(fd.to_bytes(4, "little") for fd in fds)
    sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, packed)] if fds else [])
    if more:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.send(more)
    sock.close()


def message(op: object) -> dict[str, object]:
    texts = [value for value in ODD if isinstance(value, str)]
    options = {RANDOM.choice(OPTIONS): RANDOM.choice(texts) for _ in range(RANDOM.randrange(4))}
    body: dict[str, object] = {
        "v": wire.VERSION, "op": op, "key": "", "options": options, "argv": ["true"],
        "env": {"PATH": "/bin"}, "cwd": os.getcwd(), "umask": 18, "user": "u", "gid": 1,
        "terminal": RANDOM.choice([None, {"rows": 1, "columns": 1}]), "in_job": None,
        "in_step": None, "script": "#!/bin/true\n", "job_id": RANDOM.randrange(9), "what": "jobs",
        "step_id": None, "all": True, "signal": 15, "jobs": ["1"], "rows": 1, "columns": 1,
    }  # fmt: skip
    for _ in range(RANDOM.randrange(4)):
        body[RANDOM.choice([name for name in body if name != "v"])] = RANDOM.choice(ODD)
    return body


def every_request() -> None:
    """Each request, with fields of the wrong kind; those that start something with descriptors."""
    null = os.open(os.devnull, os.O_RDWR)
    operations: list[object] = [name for name in REQUESTS if name != "stop"]
    for number in range(600):
        op = RANDOM.choice(operations) if number % 9 else RANDOM.choice(ODD)
        data = json.dumps(message(op)).encode()  # which has words for infinity, and wire has not
        more = json.dumps(message(RANDOM.choice(operations))).encode()
        fds = (null,) * (3 if op == "run" else RANDOM.randrange(3))
        raw(data, fds, more if number % 5 == 0 else b"")


def noise() -> None:
    for data in (b"{", b"[]", b"\xff", b"nope", b"{} {}", b"[" * 100_000, b'{"memfd":1}', b"0"):
        raw(data)
    for _ in range(50):
        raw(RANDOM.randbytes(RANDOM.randrange(1, 200)))
    whole = wire.dumps(message("submit")).encode()
    for end in range(1, len(whole), 40):  # half a message
        raw(whole[:end])


def bodies() -> None:
    """Messages in a memfd: sizes that lie, what cannot be read at a place, deep nests, 1 GB."""
    small = os.memfd_create("small")
    os.write(small, b'{"v":1,"op":"ping"}')
    deep = os.memfd_create("deep")
    os.write(deep, b'{"v":' + b"[" * 500_000)
    huge = os.memfd_create("huge")
    os.ftruncate(huge, 1 << 30)
    pipe, _ = os.pipe()
    directory = os.open("/", os.O_RDONLY)
    path_only = os.open("/etc/hostname", os.O_PATH)
    for fd in (small, deep, huge, pipe, directory, path_only):
        for size in (b"19", b"18", b"500005", b"60000000", b"1073741824", b"-1", b"0", b"true"):
            raw(b'{"memfd":' + size + b"}", (fd, small))
    raw(b"{}", (small,) * 17)
    raw(b"{}", (small,) * 200)


def crowd() -> None:
    """Idle connections, each with descriptors, and one that asks and never listens."""
    idle = [wire.connect(PATH) for _ in range(300)]
    deaf = wire.connect(PATH)
    try:
        for _ in range(2000):
            deaf.send({"v": wire.VERSION, "op": "query", "what": "config"}, wait=False)
    except BlockingIOError:
        pass
    ping()
    for connection in [*idle, deaf]:
        connection.close()


def versions() -> None:
    """Another version of the protocol gets an answer that says so, and nothing done."""
    for version in (0, 2, "1", None, []):
        connection = wire.connect(PATH)
        connection.send({"v": version, "op": "stop", "now": True})
        received = connection.receive()
        assert received is not None
        assert "the controller speaks protocol" in received[0]["sentence"], received[0]
        connection.close()


def replay() -> None:
    """The same request twice is one job."""
    body = {**message("submit"), "key": "the-same-key", "options": {"hold": ""}}
    body |= {"argv": ["x"], "env": {}, "cwd": "/tmp", "umask": 18, "user": "u", "gid": 1}
    body |= {"op": "submit", "terminal": None, "script": "#!/bin/true\n"}
    answers = []
    for _ in range(3):
        connection = wire.connect(PATH)
        connection.send(body)
        answers.append(connection.receive())
        connection.close()
    jobs = {answer[0].get("job_id") for answer in answers if answer is not None}
    assert len(jobs) == 1, answers
    assert None not in jobs, answers


first = ping()
for attack in (noise, bodies, every_request, crowd, versions, replay):
    attack()
    assert ping() == first, attack.__name__
print("same controller")
