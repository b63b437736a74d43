"""The PMI wire protocol, versions 1 and 2, without its wires: what a rank says and what it hears.

An MPI library of the MPICH family (MPICH, Intel MPI, MVAPICH2, Cray's) finds its rank by asking on
the descriptor that PMI_FD names.  The first line says which of the two protocols follows: lines of
``key=value`` words, or six digits with the length of ``key=value;`` fields after them.  The
statements, their replies and limits are those of MPICH's simple_pmi and of Slurm's mpi/pmi2.

All ranks of a step meet in one ``Exchange``; nothing here reads, writes or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

# PMI-1's get_maxes, with the numbers that MPICH's own server gives.
_NAME, _KEY, _VALUE = 256, 64, 1024
_LENGTH: Final = 6  # the digits before each statement of PMI-2
_LONGEST: Final = 1 << 16  # of a statement; a rank that says more is not one of MPICH's
_MAPPING: Final = "PMI_process_mapping"
_NO_SPAWN: Final = "srun starts no further processes: ask for all tasks with --ntasks"

Fields = dict[str, str]


class ProtocolError(Exception):
    """A rank does not speak PMI, or speaks it wrongly."""


def mapping_of(nodes: Sequence[int]) -> str:
    """PMI_process_mapping: which ranks share a node, and so its memory; ``nodes`` has each rank's.

    ``(vector,(0,2,3))``: from node 0 on, two nodes with three ranks each.
    """
    runs: list[list[int]] = []  # a node and how many ranks in a row it has
    for node in nodes:
        if runs and runs[-1][0] == node:
            runs[-1][1] += 1
        else:
            runs.append([node, 1])
    blocks: list[list[int]] = []
    for node, ranks in runs:
        last = blocks[-1] if blocks else None
        if last is not None and last[2] == ranks and last[0] + last[1] == node:
            last[1] += 1
        else:
            blocks.append([node, 1, ranks])
    words = ",".join(f"({first},{count},{ranks})" for first, count, ranks in blocks)
    return f"(vector,{words})"


class Exchange:
    """What the ranks of one step tell each other.

    ``nodes`` has the node of each rank; ``send`` is called with a rank and what it is to read, and
    ``abort`` with a rank, an exit code and what it said, when it wants the step to end.
    """

    def __init__(
        self,
        job: str,
        nodes: Sequence[int],
        send: Callable[[int, bytes], None],
        abort: Callable[[int, int, str], None],
    ) -> None:
        self.job = job
        self.size = len(nodes)
        self.nodes = tuple(nodes)
        self._send = send
        self._abort = abort
        self._space: Fields = {_MAPPING: mapping_of(nodes)}
        self._of_nodes: dict[tuple[int, str], str] = {}
        self._names: Fields = {}
        self._arrived: set[int] = set()
        self._waiting: list[tuple[int, int, str, Fields]] = []  # for an attribute of their node
        self.ranks = [Rank(self, number) for number in range(self.size)]

    def say(self, rank: int, data: bytes) -> None:
        self._send(rank, data)

    def abort(self, rank: int, code: int, words: str) -> None:
        self._abort(rank, code, words)

    def put(self, key: str, value: str) -> None:
        self._space[key] = value

    def get(self, key: str) -> str | None:
        return self._space.get(key)

    def at(self, index: int) -> tuple[str, str] | None:
        """The pair of this number (PMI-1's getbyidx)."""
        pairs = list(self._space.items())
        return pairs[index] if 0 <= index < len(pairs) else None

    def publish(self, service: str, port: str | None) -> bool:
        """Note where a service is, or with None that it is no more; whether that could be done."""
        if port is None:
            return self._names.pop(service, None) is not None
        if service in self._names:
            return False
        self._names[service] = port
        return True

    def published(self, service: str) -> str | None:
        return self._names.get(service)

    # -- together -----------------------------------------------------------------------------

    def arrive(self, rank: int) -> None:
        """A rank is at the barrier; the last one to come lets all of them go on."""
        self._arrived.add(rank)

        if len(self._arrived) < self.size:
            return
        arrived, self._arrived = sorted(self._arrived), set()
        for rank in arrived:
            self.ranks[rank].released()

    def put_of_node(self, rank: int, key: str, value: str) -> None:
        node = self.nodes[rank]
        self._of_nodes[node, key] = value
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            if entry[1:3] == (node, key):
                self.ranks[entry[0]].answer_node(value, entry[3])
            else:
                self._waiting.append(entry)

    def get_of_node(self, rank: int, key: str, fields: Fields, *, wait: bool) -> None:
        value = self._of_nodes.get((self.nodes[rank], key))
        if value is None and wait:
            self._waiting.append((rank, self.nodes[rank], key, fields))
        else:
            self.ranks[rank].answer_node(value, fields)


class Rank:
    """One rank's side of the conversation."""

    def __init__(self, exchange: Exchange, number: int) -> None:
        self._exchange = exchange
        self.number = number
        self.version = 0  # of the protocol, once it has said which
        self.finished = False
        self._buffer = b""
        self._thread = ""  # of the barrier that it waits at
        self._spawning = False

    def receive(self, data: bytes) -> None:
        """Understand what has come, and answer.  Raises ProtocolError."""
        self._buffer += data
        while (statement := self._next()) is not None:
            if self.version == 2:
                self._second(statement)
            else:
                self._first(statement)

    def _next(self) -> str | None:
        """The next whole statement."""
        if self.version == 2:
            head = self._buffer[:_LENGTH]
            if len(head) < _LENGTH:
                return None
            if not head.strip().isdigit():
                raise ProtocolError(f"{head!r} is no length")
            end = _LENGTH + int(head)
            if end > _LONGEST:
                raise ProtocolError(f"a statement of {end} bytes")
            if len(self._buffer) < end:
                return None
            statement, self._buffer = self._buffer[_LENGTH:end], self._buffer[end:]
        else:
            line, newline, rest = self._buffer.partition(b"\n")
            if len(line) > _LONGEST:
                raise ProtocolError("a line without an end")
            if not newline:
                return None
            statement, self._buffer = line, rest
        return statement.decode(errors="surrogateescape")

    def _line(self, text: str) -> None:
        self._exchange.say(self.number, f"{text}\n".encode(errors="surrogateescape"))

    # -- version 1 ----------------------------------------------------------------------------

    def _first(self, line: str) -> None:
        if self._spawning:
            self._spawn_line(line)
            return
        fields = _words(line)
        command = fields.pop("cmd", "")
        if line.startswith("mcmd="):
            self._spawning = True
        elif command == "init":
            self._init(fields)
        elif command in _FIRST:
            _FIRST[command](self, fields)
        else:
            raise ProtocolError(f"{line[:80]!r} is no statement of PMI")

    def _init(self, fields: Fields) -> None:
        wanted = fields.get("pmi_version", "")
        if wanted not in ("1", "2"):
            self._line("cmd=response_to_init pmi_version=2 pmi_subversion=0 rc=-1")
            return
        minor = "1" if wanted == "1" else "0"
        self._line(f"cmd=response_to_init pmi_version={wanted} pmi_subversion={minor} rc=0")
        self.version = int(wanted)

    def _spawn_line(self, line: str) -> None:
        if line == "endcmd":
            self._spawning = False
            self._line(f"cmd=spawn_result rc=-1 msg={_NO_SPAWN.replace(' ', '_')}")

    def _maxes(self, _: Fields) -> None:
        self._line(f"cmd=maxes kvsname_max={_NAME} keylen_max={_KEY} vallen_max={_VALUE} rc=0")

    def _appnum(self, _: Fields) -> None:
        self._line("cmd=appnum appnum=0 rc=0")

    def _universe(self, _: Fields) -> None:
        self._line(f"cmd=universe_size size={self._exchange.size} rc=0")

    def _name_of_space(self, _: Fields) -> None:
        self._line(f"cmd=my_kvsname kvsname={self._exchange.job} rc=0")

    def _put(self, fields: Fields) -> None:
        key, value = fields.get("key", ""), fields.get("value", "")
        if not key or len(key) > _KEY or len(value) > _VALUE:
            self._line("cmd=put_result rc=-1 msg=invalid_key_or_value")
            return
        self._exchange.put(key, value)
        self._line("cmd=put_result rc=0 msg=success")

    def _get(self, fields: Fields) -> None:
        key = fields.get("key", "")
        value = self._exchange.get(key)
        if value is None:
            self._line(f"cmd=get_result rc=-1 msg=key_{key}_not_found value=unknown")
        else:
            self._line(f"cmd=get_result rc=0 msg=success value={value}")

    def _get_by_index(self, fields: Fields) -> None:
        index = fields.get("idx", "")
        pair = self._exchange.at(int(index)) if index.isdecimal() else None
        if pair is None:
            self._line("cmd=getbyidx_results rc=-1 reason=no_more_keyvals")
        else:
            self._line(
                f"cmd=getbyidx_results rc=0 nextidx={int(index) + 1} key={pair[0]} val={pair[1]}"
            )

    def _no_more_spaces(self, _: Fields) -> None:
        self._line("cmd=newkvs rc=-1 msg=one_space_for_all")

    def _no_space_goes(self, _: Fields) -> None:
        self._line("cmd=kvs_destroyed rc=0")

    def _barrier(self, _: Fields) -> None:
        self._exchange.arrive(self.number)

    def _publish(self, fields: Fields) -> None:
        done = self._exchange.publish(fields.get("service", ""), fields.get("port", ""))
        self._line(f"cmd=publish_result info={'ok' if done else 'fail'} rc={0 if done else -1}")

    def _unpublish(self, fields: Fields) -> None:
        done = self._exchange.publish(fields.get("service", ""), None)
        self._line(f"cmd=unpublish_result info={'ok' if done else 'fail'} rc={0 if done else -1}")

    def _lookup(self, fields: Fields) -> None:
        port = self._exchange.published(fields.get("service", ""))
        answer = "info=fail rc=-1" if port is None else f"info=ok port={port} rc=0"
        self._line(f"cmd=lookup_result {answer}")

    def _finalize(self, _: Fields) -> None:
        self.finished = True
        self._line("cmd=finalize_ack rc=0")

    def _abort(self, fields: Fields) -> None:
        code = fields.get("exitcode", "1")
        words = fields.get("message") or fields.get("error_msg") or fields.get("msg") or ""
        self._exchange.abort(self.number, int(code) if code.isdecimal() else 1, words)

    # -- version 2 ----------------------------------------------------------------------------

    def _second(self, statement: str) -> None:
        fields = _fields(statement)
        command = fields.pop("cmd", "")
        if command not in _SECOND:
            raise ProtocolError(f"{command[:80]!r} is no statement of PMI-2")
        _SECOND[command](self, fields)

    def _reply(self, command: str, asked: Fields, rc: int = 0, /, **said: str) -> None:
        self._reply_to(command, asked.get("thrid", ""), rc, said)

    def _reply_to(self, command: str, thread: str, rc: int, said: Fields) -> None:
        pairs = {"cmd": f"{command}-response", **({"thrid": thread} if thread else {})}
        pairs |= {"rc": str(rc), **said}
        text = "".join(f"{name}={value.replace(';', ';;')};" for name, value in pairs.items())
        body = text.encode(errors="surrogateescape")
        self._exchange.say(self.number, b"%6d" % len(body) + body)

    def _full_init(self, asked: Fields) -> None:
        said = {
            "pmi-version": "2", "pmi-subversion": "0", "rank": str(self.number),
            "size": str(self._exchange.size), "appnum": "0", "debugged": "FALSE",
            "pmiverbose": "FALSE",
        }  # fmt: skip
        self._reply_to("fullinit", asked.get("thrid", ""), 0, said)

    def _finalize_2(self, asked: Fields) -> None:
        self.finished = True
        self._reply("finalize", asked)

    def _abort_2(self, asked: Fields) -> None:
        code = asked.get("exitcode", "1")
        words = asked.get("msg", "")
        self._exchange.abort(self.number, int(code) if code.isdecimal() else 1, words)

    def _job_id(self, asked: Fields) -> None:
        self._reply("job-getid", asked, jobid=self._exchange.job)

    def _job_attribute(self, asked: Fields) -> None:
        known = {
            "universeSize": str(self._exchange.size),
            "hasNameServ": "TRUE",
            _MAPPING: self._exchange.get(_MAPPING) or "",
        }
        self._found("info-getjobattr", known.get(asked.get("key", "")), asked)

    def _found(self, command: str, value: str | None, asked: Fields) -> None:
        if value is None:
            self._reply(command, asked, found="FALSE")
        else:
            self._reply(command, asked, found="TRUE", value=value)

    def _put_node(self, asked: Fields) -> None:
        self._reply("info-putnodeattr", asked)
        self._exchange.put_of_node(self.number, asked.get("key", ""), asked.get("value", ""))

    def _get_node(self, asked: Fields) -> None:
        wait = asked.get("wait", "").upper() == "TRUE"
        self._exchange.get_of_node(self.number, asked.get("key", ""), asked, wait=wait)

    def answer_node(self, value: str | None, asked: Fields) -> None:
        self._found("info-getnodeattr", value, asked)

    def _kvs_put(self, asked: Fields) -> None:
        self._exchange.put(asked.get("key", ""), asked.get("value", ""))
        self._reply("kvs-put", asked)

    def _kvs_get(self, asked: Fields) -> None:
        self._found("kvs-get", self._exchange.get(asked.get("key", "")), asked)

    def _fence(self, asked: Fields) -> None:
        self._thread = asked.get("thrid", "")
        self._exchange.arrive(self.number)

    def _name_publish(self, asked: Fields) -> None:
        done = self._exchange.publish(asked.get("name", ""), asked.get("port", ""))
        self._reply("name-publish", asked, 0 if done else -1)

    def _name_unpublish(self, asked: Fields) -> None:
        done = self._exchange.publish(asked.get("name", ""), None)
        self._reply("name-unpublish", asked, 0 if done else -1)

    def _name_lookup(self, asked: Fields) -> None:
        self._found("name-lookup", self._exchange.published(asked.get("name", "")), asked)

    def _spawn(self, asked: Fields) -> None:
        self._reply("spawn", asked, -1, errmsg=_NO_SPAWN)

    def _connect(self, asked: Fields) -> None:
        self._reply("job-connect", asked, -1, errmsg="one job cannot connect to another")

    def _disconnect(self, asked: Fields) -> None:
        self._reply("job-disconnect", asked, -1, errmsg="no job is connected")

    # -- both ---------------------------------------------------------------------------------

    def released(self) -> None:
        """All ranks have come to the barrier."""
        if self.version == 2:
            self._reply_to("kvs-fence", self._thread, 0, {})
        else:
            self._line("cmd=barrier_out rc=0")


_FIRST: Final[dict[str, Callable[[Rank, Fields], None]]] = {
    "abort": Rank._abort,
    "barrier_in": Rank._barrier,
    "create_kvs": Rank._no_more_spaces,
    "destroy_kvs": Rank._no_space_goes,
    "finalize": Rank._finalize,
    "get": Rank._get,
    "get_appnum": Rank._appnum,
    "get_maxes": Rank._maxes,
    "get_my_kvsname": Rank._name_of_space,
    "get_universe_size": Rank._universe,
    "getbyidx": Rank._get_by_index,
    "lookup_name": Rank._lookup,
    "publish_name": Rank._publish,
    "put": Rank._put,
    "unpublish_name": Rank._unpublish,
}
_SECOND: Final[dict[str, Callable[[Rank, Fields], None]]] = {
    "abort": Rank._abort_2,
    "finalize": Rank._finalize_2,
    "fullinit": Rank._full_init,
    "info-getjobattr": Rank._job_attribute,
    "info-getnodeattr": Rank._get_node,
    "info-putnodeattr": Rank._put_node,
    "job-connect": Rank._connect,
    "job-disconnect": Rank._disconnect,
    "job-getid": Rank._job_id,
    "kvs-fence": Rank._fence,
    "kvs-get": Rank._kvs_get,
    "kvs-put": Rank._kvs_put,
    "name-lookup": Rank._name_lookup,
    "name-publish": Rank._name_publish,
    "name-unpublish": Rank._name_unpublish,
    "spawn": Rank._spawn,
}


def _words(line: str) -> Fields:
    """The words of a line of PMI-1; a value that ends the line may have spaces."""
    fields: Fields = {}
    while line := line.lstrip(" "):
        name, _, rest = line.partition("=")
        if name in ("value", "message", "msg", "error_msg"):
            fields[name] = rest
            break
        value, _, line = rest.partition(" ")
        fields[name] = value
    return fields


def _fields(statement: str) -> Fields:
    """The fields of a statement of PMI-2; a semicolon that belongs to a value is doubled."""
    fields: Fields = {}
    for field in statement.replace(";;", "\0").split(";"):
        name, equals, value = field.partition("=")
        if equals:
            fields[name] = value.replace("\0", ";")
    return fields
