"""scontrol create, update and delete partition: what roadstead.conf says, changed until it is read
again (scontrol reconfigure), and kept in the journal until then.

A partition that jobs wait or run in cannot be deleted.  What is changed counts from the next turn
of the scheduler on; what runs goes on.
"""

from __future__ import annotations

from typing import Final

from roadstead.core import course, siteconf
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core.effects import Effects
from roadstead.core.site import Partition
from roadstead.core.state import State
from roadstead.errors import EngineError, RequestError


def on_set_partition(state: State, effects: Effects, event: on.Message) -> None:
    """Make a partition, or change one."""
    name, create, pairs = _name(event), event.body.get("create"), event.body.get("pairs")
    if not isinstance(pairs, dict) or not all(isinstance(each, str) for each in pairs.values()):
        raise EngineError("malformed request: pairs")
    old = state.site.partition(name)
    if create and old is not None:
        raise RequestError(f"Partition {name} exists already", hint="scontrol update changes it")
    if create:
        old = Partition(name=name, nodes=())
        pairs = {"nodes": "ALL", "minnodes": "1", **pairs}
    elif old is None:
        raise RequestError(f"Invalid partition name specified: {name}", hint="sinfo lists them")
    assert old is not None
    found = siteconf.changed_partition(old, pairs, state.site)
    _put(state, effects, name, found)
    # Who waits may have another place now.
    state.queue.fill([state.place_of(state.jobs[job_id]) for job_id in list(state.queue)])
    effects.reply(event.client, "done")
    course.run_queue(state, effects, event.at)


def on_delete_partition(state: State, effects: Effects, event: on.Message) -> None:
    """Delete a partition that no job needs."""
    name = _name(event)
    if state.site.partition(name) is None:
        raise RequestError(f"Invalid partition name specified: {name}", hint="sinfo lists them")
    for job in state.jobs.values():
        if name in job.spec.partition.split(","):
            raise RequestError(
                f"Partition is in use: job {job.id} needs {name}",
                hint="cancel its jobs, or move them: scontrol update JobId=… Partition=…",
            )
    _put(state, effects, name, None)
    effects.reply(event.client, "done")


def _put(state: State, effects: Effects, name: str, found: Partition | None) -> None:
    before = state.site.partitions
    state.put_partition(name, found)
    effects(do.SavePartition(name, found))
    for each in state.site.partitions:
        if each.name != name and each not in before:  # it was the default
            effects(do.SavePartition(each.name, each))


def _name(event: on.Message) -> str:
    name = event.body.get("name")
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set(", ="):
        raise RequestError(f"Invalid partition name: {name}")
    return name


REQUESTS: Final = {"set_partition": on_set_partition, "delete_partition": on_delete_partition}
