"""Every column that Slurm 22.05.8 was seen to take has its row: letters of -o, names of -O."""

from __future__ import annotations

import pytest

from roadstead.cli import sinfo, squeue_columns
from roadstead.cli.table import Column

SEEN = {
    "jobs": (
        squeue_columns.JOBS,
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        """account accruetime admin_comment allocnodes allocsid arrayjobid arraytaskid associd
        batchflag batchhost boardspernode burstbuffer burstbufferstate cluster clusterfeature
        command comment container contiguous cores corespec cpus-per-task cpus-per-tres cpuspertask
        deadline delayboot dependency derivedec eligibletime endtime exit_code feature gres groupid
        groupname hetjobid hetjobidset hetjoboffset jobarrayid jobid lastschedeval licenses maxcpus
        maxnodes mcslabel mem-per-tres mincpus minmemory mintime mintmpdisk name network nice
        nodelist ntperboard ntpercore ntpernode ntpersocket numcpus numnodes numtasks origin
        originraw oversubscribe packjobid packjobidset packjoboffset partition pendingtime
        preempttime prefer priority prioritylong profile qos reason reasonlist reboot reqnodes
        reqswitch requeue reservation resizetime restartcnt schednodes sct selectjobinfo shared
        siblingsactive siblingsactiveraw siblingsviable siblingsviableraw sockets sperboard
        starttime state statecompact stderr stdin stdout submittime system_comment threads timeleft
        timelimit timeused tres tres-alloc tres-bind tres-freq tres-per-job tres-per-node
        tres-per-socket tres-per-task userid username wait4switch wckey workdir""",
    ),
    "steps": (
        squeue_columns.STEPS,
        "bijluAMNPSU",
        """arrayjobid arraytaskid cluster container cpufreq cpus-per-tres gres jobid mem-per-tres
        network nodes numcpus numtasks partition resvports starttime stepid stepname stepstate
        timelimit timeused tres-bind tres-freq tres-per-job tres-per-node tres-per-socket
        tres-per-step tres-per-task userid username""",
    ),
    "nodes": (
        sinfo.COLUMNS,
        "abcdefghlmnoprstuvwzABCDEFGHILMNOPRSTUVXYZ",
        """allocmem allocnodes available cluster comment cores cpus cpusload cpusstate defaulttime
        disk extra features features_act freemem gres gresused groups maxcpuspernode memory
        nodeaddr nodeai nodeaiot nodehost nodelist nodes oversubscribe partition partitionname port
        preemptmode priorityjobfactor prioritytier reason root share size socketcorethread sockets
        statecompact statecomplete statelong threads time timestamp user userlong version weight""",
    ),
}


@pytest.mark.parametrize("table", SEEN)
def test_every_column_of_slurm_is_there(table: str) -> None:
    columns, letters, names = SEEN[table]
    assert set(letters) <= {column.letter for column in columns}
    assert set(names.split()) <= {name for column in columns for name in column.names}


@pytest.mark.parametrize("table", SEEN)
def test_a_letter_or_a_name_means_one_column(table: str) -> None:
    columns: tuple[Column, ...] = SEEN[table][0]
    letters = [column.letter for column in columns if column.letter]
    names = [name for column in columns for name in column.names]
    assert len(letters) == len(set(letters))
    assert len(names) == len(set(names))
