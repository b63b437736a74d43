"""What ranks say and hear: PMI-1 as MPICH speaks it, PMI-2 as Slurm's mpi/pmi2 documents it."""

from __future__ import annotations

import pytest

from roadstead.step import pmi


class Step:
    """An exchange whose wires are lists."""

    def __init__(self, *nodes: int) -> None:
        self.heard: dict[int, list[str]] = {number: [] for number in range(len(nodes))}
        self.aborts: list[tuple[int, int, str]] = []
        self.exchange = pmi.Exchange(
            "7.0",
            nodes,
            lambda rank, data: self.heard[rank].append(data.decode()),
            lambda *said: self.aborts.append(said),
        )

    def say(self, rank: int, text: str) -> list[str]:
        """What the rank hears when it says this."""
        before = len(self.heard[rank])
        self.exchange.ranks[rank].receive(text.encode())
        return self.heard[rank][before:]

    def first(self) -> Step:
        for rank in self.heard:
            self.say(rank, "cmd=init pmi_version=1 pmi_subversion=1\n")
        return self

    def second(self) -> Step:
        for rank in self.heard:
            self.say(rank, "cmd=init pmi_version=2 pmi_subversion=0\n")
        return self


def two(text: str) -> str:
    return f"{len(text):6}{text}"


@pytest.mark.parametrize(
    ("nodes", "mapping"),
    [
        ((0,), "(vector,(0,1,1))"),
        ((0, 0, 0), "(vector,(0,1,3))"),
        ((0, 0, 1, 1), "(vector,(0,2,2))"),
        ((0, 0, 1), "(vector,(0,1,2),(1,1,1))"),
        ((0, 1, 0, 1), "(vector,(0,2,1),(0,2,1))"),
        ((1, 0, 1, 1), "(vector,(1,1,1),(0,1,1),(1,1,2))"),
    ],
)
def test_mapping(nodes: tuple[int, ...], mapping: str) -> None:
    assert pmi.mapping_of(nodes) == mapping


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("cmd=get_maxes", "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024 rc=0"),
        ("cmd=get_appnum", "cmd=appnum appnum=0 rc=0"),
        ("cmd=get_my_kvsname", "cmd=my_kvsname kvsname=7.0 rc=0"),
        ("cmd=get_universe_size", "cmd=universe_size size=2 rc=0"),
        ("cmd=put kvsname=7.0 key=a value=b c", "cmd=put_result rc=0 msg=success"),
        ("cmd=put kvsname=7.0 key= value=b", "cmd=put_result rc=-1 msg=invalid_key_or_value"),
        (
            "cmd=get kvsname=7.0 key=PMI_process_mapping",
            "cmd=get_result rc=0 msg=success value=(vector,(0,1,2))",
        ),
        ("cmd=get kvsname=7.0 key=x", "cmd=get_result rc=-1 msg=key_x_not_found value=unknown"),
        ("cmd=getbyidx kvsname=7.0 idx=9", "cmd=getbyidx_results rc=-1 reason=no_more_keyvals"),
        ("cmd=publish_name service=s port=p", "cmd=publish_result info=ok rc=0"),
        ("cmd=lookup_name service=t", "cmd=lookup_result info=fail rc=-1"),
        ("cmd=finalize", "cmd=finalize_ack rc=0"),
    ],
)
def test_version_1(said: str, heard: str) -> None:
    assert Step(0, 0).first().say(0, f"{said}\n") == [f"{heard}\n"]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("cmd=job-getid;", "cmd=job-getid-response;rc=0;jobid=7.0;"),
        ("cmd=kvs-put;key=a;value=b;;c;", "cmd=kvs-put-response;rc=0;"),
        ("cmd=kvs-get;key=x;", "cmd=kvs-get-response;rc=0;found=FALSE;"),
        (
            "cmd=info-getjobattr;key=PMI_process_mapping;thrid=3;",
            "cmd=info-getjobattr-response;thrid=3;rc=0;found=TRUE;value=(vector,(0,1,2));",
        ),
        ("cmd=finalize;", "cmd=finalize-response;rc=0;"),
    ],
)
def test_version_2(said: str, heard: str) -> None:
    assert Step(0, 0).second().say(0, two(said)) == [two(heard)]


def test_values_are_passed_on() -> None:
    step = Step(0, 0).second()
    step.say(0, two("cmd=kvs-put;key=a;value=b;;c;"))
    assert step.say(1, two("cmd=kvs-get;key=a;")) == [
        two("cmd=kvs-get-response;rc=0;found=TRUE;value=b;;c;")
    ]


def test_nobody_leaves_a_barrier_before_the_last_has_come() -> None:
    for step, come, go in (
        (Step(0, 0).first(), "cmd=barrier_in\n", "cmd=barrier_out rc=0\n"),
        (Step(0, 0).second(), two("cmd=kvs-fence;"), two("cmd=kvs-fence-response;rc=0;")),
    ):
        assert step.say(1, come) == []
        assert step.say(0, come) == [go]
        assert step.heard[1][-1] == go


def test_an_attribute_of_the_node_is_waited_for_there_only() -> None:
    step = Step(0, 0, 1).second()
    assert step.say(1, two("cmd=info-getnodeattr;key=k;wait=TRUE;")) == []
    step.say(2, two("cmd=info-putnodeattr;key=k;value=other;"))
    step.say(0, two("cmd=info-putnodeattr;key=k;value=v;"))
    assert step.heard[1][-1] == two("cmd=info-getnodeattr-response;rc=0;found=TRUE;value=v;")


def test_statements_may_come_in_pieces() -> None:
    step = Step(0).second()
    text = two("cmd=job-getid;")
    assert step.say(0, text[:9]) == []
    assert len(step.say(0, text[9:] + text)) == 2


def test_spawn_is_refused() -> None:
    step = Step(0).first()
    assert step.say(0, "mcmd=spawn\nnprocs=1\nexecname=x\n") == []
    assert step.say(0, "endcmd\n")[0].startswith("cmd=spawn_result rc=-1")
    assert "rc=-1" in Step(0).second().say(0, two("cmd=spawn;ncmds=1;"))[0]


def test_abort() -> None:
    step = Step(0, 0).first()
    step.say(1, "cmd=abort exitcode=7 message=it is over\n")
    assert step.aborts == [(1, 7, "it is over")]


@pytest.mark.parametrize("said", ["GET / HTTP/1.1\n", "x" * 70000])
def test_not_pmi(said: str) -> None:
    with pytest.raises(pmi.ProtocolError):
        Step(0).say(0, said)


@pytest.mark.parametrize("said", ["abcdef", "999999", "    10cmd=what;;"])
def test_not_pmi_2(said: str) -> None:
    with pytest.raises(pmi.ProtocolError):
        Step(0).second().say(0, said)
