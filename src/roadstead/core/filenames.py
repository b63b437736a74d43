"""The ``%`` patterns in the names of a step's input, output and error files.

As in "filename pattern" of sbatch(1) and "IO Redirection" of srun(1), and as Slurm 22.05 does where
the manual is silent (seen on a real one): a backslash anywhere turns substitution off for the whole
name and is removed itself; an unknown ``%q`` stays as it is; a width pads numbers with zeros, up to
ten digits, and is ignored for names; the step of a batch script is the word "batch", and its %J has
no step.
"""

from __future__ import annotations

from dataclasses import dataclass

_MAX_WIDTH = 10
_NO_ARRAY = 0xFFFFFFFE  # slurm.h: NO_VAL, which is what %a prints outside an array


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the patterns stand for, for one task.  ``step_id`` may be a word, "batch"."""

    job_id: int
    step_id: str
    node: str
    user: str
    job_name: str
    task_id: int = 0
    node_id: int = 0
    array_job_id: int | None = None
    array_task_id: int | None = None


def expand(pattern: str, names: Names) -> str:
    """The file name that ``pattern`` means for one task; ``none`` is /dev/null."""
    if pattern == "none":
        return "/dev/null"
    if "\\" in pattern:
        return pattern.replace("\\", "")
    out: list[str] = []
    for text, letter, width in _pieces(pattern):
        out.append(text if not letter else _value(letter, width, names, text))
    return "".join(out)


def unique(pattern: str) -> bool:
    """Whether each task gets a file of its own: the pattern has %t.

    With %n or %N alone the tasks of a node share one.
    """
    return "\\" not in pattern and any(letter == "t" for _, letter, _ in _pieces(pattern))


def _pieces(pattern: str) -> list[tuple[str, str, int]]:
    """The pattern as (text, letter, width); ``letter`` is empty for literal text."""
    pieces: list[tuple[str, str, int]] = []
    index = 0
    while index < len(pattern):
        percent = pattern.find("%", index)
        if percent < 0:
            pieces.append((pattern[index:], "", 0))
            break
        if percent > index:
            pieces.append((pattern[index:percent], "", 0))
        end = percent + 1
        while end < len(pattern) and pattern[end] in "0123456789":
            end += 1
        letter = pattern[end : end + 1]
        digits = pattern[percent + 1 : end].lstrip("0")
        width = _MAX_WIDTH if len(digits) > 2 else min(int(digits or 0), _MAX_WIDTH)
        pieces.append((pattern[percent : end + 1], letter, width))
        index = end + 1
    return pieces


def _value(letter: str, width: int, names: Names, unknown: str) -> str:
    job = str(names.job_id).zfill(width)
    match letter:
        case "%":
            return "%"
        case "j":
            return job
        case "J":
            return job if names.step_id == "batch" else f"{job}.{names.step_id}"
        case "A":
            return str(names.array_job_id or names.job_id).zfill(width)
        case "a":
            return str(_NO_ARRAY if names.array_task_id is None else names.array_task_id).zfill(
                width
            )
        case "s":
            return names.step_id.zfill(width) if names.step_id.isdigit() else names.step_id
        case "n":
            return str(names.node_id).zfill(width)
        case "t":
            return str(names.task_id).zfill(width)
        case "N":
            return names.node.partition(".")[0]
        case "u":
            return names.user
        case "x":
            return names.job_name
        case _:
            return unknown
