"""What the commands that ask are answered: which jobs, steps, nodes … a query is about.

What is said of each is in views.py, and of many jobs in listing.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from roadstead.core import course, het, hostlist, listing, views
from roadstead.core.events import Facts
from roadstead.core.state import State
from roadstead.core.views import View
from roadstead.errors import EngineError

_PAGE: Final = 500  # some 50 ms, in which others wait
_LONG_PAGE: Final = 10_000


def answer(state: State, query: Mapping[str, Any], facts: Facts, at: float) -> View:
    """The fields of the "answer" to a ``query`` request."""
    if type(query.get("job_id")) not in (int, type(None)):
        raise EngineError("malformed request: job_id")
    match query.get("what"):
        case "jobs":
            return {"now": at, **_jobs(state, query, facts, at)}
        case "steps":
            return {"now": at, "steps": list(_steps(state, query))}
        case "nodes":
            return {
                "now": at,
                "nodes": [views.node(state, each, facts) for each in state.site.nodes],
            }
        case "partitions":
            found = [views.partition(state, each) for each in state.site.partitions]
            return {"now": at, "partitions": found}
        case "priorities":
            return {"now": at, "priorities": list(views.priorities(state, at))}
        case "licenses":
            return {"now": at, "licenses": views.licenses(state)}
        case "config":
            return {"now": at, "config": views.config(state), "pending": len(state.queue)}
        case what:
            raise EngineError(f"malformed request: what={what}")


def _jobs(state: State, query: Mapping[str, Any], facts: Facts, at: float) -> View:
    """The job that is asked for, or a page of all of them: those behind job ``after``.

    ``more`` says where the next page begins.  A hundred thousand jobs in one answer would be more
    than a message holds, and would keep everybody else waiting.
    """
    wanted, after = query.get("job_id"), query.get("after")
    if wanted is not None:
        found = [state.jobs[wanted]] if wanted in state.jobs else []
        array = state.arrays.get(wanted)
        if array is not None:
            found = [state.jobs[number] for number in array.live.values()]
        if found and array is None and not het.is_led(found[0].spec):
            found = [state.jobs[each] for each in het.members(found[0]) if each in state.jobs]
        found = sorted([*facts.ended_jobs, *found], key=lambda each: each.id)
        script = {} if facts.script is None else {"script": facts.script}
        return {"jobs": [views.job(state, each, at) | script for each in found]}
    if type(after) not in (int, type(None)):
        raise EngineError("malformed request: after")
    page = list(facts.ended_jobs) if query.get("all") and after is None else []
    # Numbers only grow, and a job keeps its place: the jobs are in the order of their numbers.
    left = iter(state.jobs) if after is None else (n for n in state.jobs if n > after)
    fields = query.get("fields")
    page += [state.jobs[n] for n in islice(left, _PAGE if fields is None else _LONG_PAGE)]
    last = page[-1].id if page else None
    states = query.get("states")
    if isinstance(states, list):
        page = [each for each in page if each.state.word in states]
    if fields is not None:
        answer: View = {"groups": listing.groups(state, page, fields, at)}
    else:
        answer = {"jobs": [views.job(state, each, at) for each in page]}
    if query.get("expected"):
        _foretell(state, answer["jobs"], at)
    if next(left, None) is not None:
        answer["more"] = last
    return answer


def _foretell(state: State, jobs: list[View], at: float) -> None:
    """Say of those that wait when and where they are expected to start (squeue --start)."""
    planned = {each.job_id: each for each in course.expected(state, at)}
    for view in jobs:
        if view["job_id"] in planned:
            found = planned[view["job_id"]]
            view["start_time"] = found.start
            view["planned_nodes"] = hostlist.fold([slot.node.name for slot in found.slots])


def _steps(state: State, query: Mapping[str, Any]) -> Iterator[View]:
    wanted = query.get("job_id")
    for each in state.steps.values() if wanted is None else state.steps_of(wanted):
        yield views.step(state, each)
