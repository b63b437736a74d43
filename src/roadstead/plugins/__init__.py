"""What a plugin is made of: this file is the whole interface.  docs/plugins.md shows it at work.

A plugin is a Python file, or a module that can be imported, which a line of plugstack.conf names.
It is SPANK's idea (spank(7)) in Python: functions of these names are called at their moments, each
with a ``Spank`` and the list of the arguments that the line of plugstack.conf has:

    def task_init(spank, args): ...

A function that a plugin has not got is not called.  What it raises, or a negative number that it
returns, is an error: of a ``required`` plugin it fails the command or the step, of an ``optional``
one it is a warning.  Both name the plugin.

    context     point               when, and what an error does
    local, allocator (srun; sbatch and salloc), in the command's own process:
                init                before options are read: here options may be registered
                init_post_opt       options are known; ``asked`` may be changed
                container_resolve   (spank, args, reference) → another reference, a path of a
                                    bundle, or None; the first answer counts
                local_user_init     (srun) the job and the step have their numbers, and no task runs
                exit                the command is about to end
    job_script, on the node, in a process of its own:
                job_prolog          before the first step of a job
                job_epilog          after its last one; the job ends when this has
    remote, on the node, in a process beside the step's supervisor:
                init, init_post_opt the step is about to be set up
                user_init           the same moment: there are no privileges to drop
                task_init           (1) before each task; its environment and command may be changed
                bundle_ready        (spank, args, config) the task's config.json, to be changed
                task_post_fork      the task has a pid; a container's program does not run yet
                container_created   (1) (spank, args, state) the container is there, and its program
                                    does not run yet: not before this has returned
                container_exited    (spank, args, status) the container is gone
                task_exit           the task's status is known (S_TASK_EXIT_STATUS)
                exit                all tasks have ended, and nothing of them is left
    slurmd, in a process of its own:
                slurmd_init, slurmd_exit
                                    the user's engine starts, and ends

(1) in a child of that process: tasks do not wait for each other, and what is kept in variables of
the plugin is lost, as in SPANK, where this is the task's own process.

``task_init_privileged`` is refused: nothing here has privileges.  Everything is the user's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from roadstead import SLURM_VERSION

LOCAL, REMOTE, ALLOCATOR, SLURMD, JOB_SCRIPT = CONTEXTS = (
    "local", "remote", "allocator", "slurmd", "job_script",
)  # fmt: skip

POINTS: Final = (
    *("init", "job_prolog", "init_post_opt", "local_user_init", "user_init", "task_init"),
    *("task_post_fork", "task_exit", "job_epilog", "slurmd_init", "slurmd_exit", "exit"),
    *("container_resolve", "bundle_ready", "container_created", "container_exited"),
)
# Those that are called for a task, or for what belongs to one.
TASK_POINTS: Final = (
    *("task_init", "task_post_fork", "task_exit"),
    *("bundle_ready", "container_created", "container_exited"),
)
# Those that are called in a process of their own.
APART: Final = ("task_init", "container_created", "job_prolog", "job_epilog")

# -- items: SPANK's, by SPANK's names ------------------------------------------------------------

S_JOB_UID: Final = "S_JOB_UID"
S_JOB_GID: Final = "S_JOB_GID"
S_JOB_ID: Final = "S_JOB_ID"
S_JOB_STEPID: Final = "S_JOB_STEPID"
S_JOB_NNODES: Final = "S_JOB_NNODES"
S_JOB_NODEID: Final = "S_JOB_NODEID"
S_JOB_LOCAL_TASK_COUNT: Final = "S_JOB_LOCAL_TASK_COUNT"
S_JOB_TOTAL_TASK_COUNT: Final = "S_JOB_TOTAL_TASK_COUNT"
S_JOB_NCPUS: Final = "S_JOB_NCPUS"
S_JOB_ARGV: Final = "S_JOB_ARGV"
S_JOB_ENV: Final = "S_JOB_ENV"
S_JOB_SUPPLEMENTARY_GIDS: Final = "S_JOB_SUPPLEMENTARY_GIDS"
S_JOB_ARRAY_ID: Final = "S_JOB_ARRAY_ID"
S_JOB_ARRAY_TASK_ID: Final = "S_JOB_ARRAY_TASK_ID"
S_JOB_ALLOC_MEM: Final = "S_JOB_ALLOC_MEM"
S_STEP_CPUS_PER_TASK: Final = "S_STEP_CPUS_PER_TASK"
S_TASK_ID: Final = "S_TASK_ID"
S_TASK_GLOBAL_ID: Final = "S_TASK_GLOBAL_ID"
S_TASK_EXIT_STATUS: Final = "S_TASK_EXIT_STATUS"
S_TASK_PID: Final = "S_TASK_PID"
S_JOB_LOCAL_TO_GLOBAL_ID: Final = "S_JOB_LOCAL_TO_GLOBAL_ID"
S_JOB_GLOBAL_TO_LOCAL_ID: Final = "S_JOB_GLOBAL_TO_LOCAL_ID"
S_SLURM_VERSION: Final = "S_SLURM_VERSION"
S_SLURM_RESTART_COUNT: Final = "S_SLURM_RESTART_COUNT"
# What SPANK lacks.
S_NODE_NAME: Final = "S_NODE_NAME"  # of the task, or of the step's first node
S_STEP_DIRECTORY: Final = "S_STEP_DIRECTORY"  # the step's own, 0700; it goes when the step does
S_CONTAINER: Final = "S_CONTAINER"  # what --container was given; "" without
S_CONTAINER_ID: Final = "S_CONTAINER_ID"  # by which the runtime knows the task's container
S_CONTAINER_BUNDLE: Final = "S_CONTAINER_BUNDLE"  # the directory of the task's config.json
S_CONTAINER_ROOTFS: Final = "S_CONTAINER_ROOTFS"

# -- errors: SPANK's, by SPANK's names ------------------------------------------------------------

ESPANK_ERROR: Final = "ESPANK_ERROR"
ESPANK_BAD_ARG: Final = "ESPANK_BAD_ARG"
ESPANK_NOT_TASK: Final = "ESPANK_NOT_TASK"
ESPANK_ENV_EXISTS: Final = "ESPANK_ENV_EXISTS"
ESPANK_ENV_NOEXIST: Final = "ESPANK_ENV_NOEXIST"
ESPANK_NOT_REMOTE: Final = "ESPANK_NOT_REMOTE"
ESPANK_NOT_LOCAL: Final = "ESPANK_NOT_LOCAL"
ESPANK_NOEXIST: Final = "ESPANK_NOEXIST"
ESPANK_NOT_AVAIL: Final = "ESPANK_NOT_AVAIL"

# Environment of the job's prolog and epilog: SPANK_NAME there, SLURM_SPANK_NAME on the way (Slurm
# has it so too).
ON_THE_WAY: Final = "SLURM_SPANK_"
IN_SCRIPTS: Final = "SPANK_"


class SpankError(Exception):
    """What an item, a variable or an option cannot be; ``code`` is SPANK's name for it."""

    def __init__(self, sentence: str, code: str = ESPANK_ERROR) -> None:
        super().__init__(sentence)
        self.code = code


class Option:
    """An option that a plugin adds to srun, sbatch and salloc: ``--name``, or ``--name=ARG``.

    ``arg`` is the word for its value in --help, "" for an option without one; with ``optional`` the
    value may be left out.  ``callback(value, remote)`` is called when the option was given, in the
    command and again in the step; it refuses a value by raising.  ``name`` is a long name.
    """

    def __init__(
        self,
        name: str,
        usage: str,
        arg: str = "",
        *,
        optional: bool = False,
        callback: Callable[[str, bool], object] | None = None,
    ) -> None:
        if not name.replace("-", "").isalnum() or not name.isascii() or name.startswith("-"):
            raise SpankError(f"{name!r} is not the name of an option", ESPANK_BAD_ARG)
        self.name, self.usage, self.arg = name, usage, arg
        self.optional, self.callback = optional, callback


class Spank:
    """What a plugin asks and changes.  One is made for each call; do not keep it."""

    def __init__(
        self,
        context: str,
        *,
        items: Mapping[str, Any],
        env: MutableMapping[str, str],
        control: MutableMapping[str, str],
        given: Mapping[str, str],
        say: Callable[[str], None],
        asked: dict[str, str] | None = None,
        in_task: bool = False,
        register: Callable[[Option], None] | None = None,
    ) -> None:
        self.context = context
        self._items, self._env, self._control, self._given = items, env, control, given
        self._say, self._asked, self._in_task, self._register = say, asked, in_task, register
        self.prefix: list[str] = []

    def remote(self) -> bool:
        """Whether this is on the node, in a step."""
        return self.context == REMOTE

    def get_item(self, name: str, *key: int) -> Any:
        """An item of the job, the step or the task; ``key`` is the number that S_JOB_LOCAL_TO_…
        translates.  Raises SpankError for what there is not, here or at all."""
        if name == S_SLURM_VERSION:
            return SLURM_VERSION
        if name == S_JOB_SUPPLEMENTARY_GIDS:
            return os.getgroups()
        if name == S_JOB_ENV:
            return dict(self._env)
        if name not in globals() or not name.startswith("S_"):
            raise SpankError(f"{name}: no such item", ESPANK_BAD_ARG)
        if name not in self._items:
            about_a_task = name.startswith(("S_TASK_", "S_CONTAINER_"))
            code = ESPANK_NOT_TASK if about_a_task and not self._in_task else ESPANK_NOT_AVAIL
            raise SpankError(f"{name} is not known in this context or at this point", code)
        found = self._items[name]
        if not key:
            return found
        if not isinstance(found, dict) or str(key[0]) not in found:
            raise SpankError(f"{name}: nothing has number {key[0]}", ESPANK_NOEXIST)
        return found[str(key[0])]

    # The environment: of the task, in task_init; of all tasks of the step, before; of the job or
    # step that is asked for, in a command.

    def getenv(self, name: str) -> str:
        """The value of a variable.  Raises SpankError (ESPANK_ENV_NOEXIST)."""
        if name not in self._env:
            raise SpankError(f"{name} is not set", ESPANK_ENV_NOEXIST)
        return self._env[name]

    def setenv(self, name: str, value: str, overwrite: bool = True) -> None:
        """Set a variable.  Raises SpankError (ESPANK_ENV_EXISTS) for one that is, unless it may be
        overwritten."""
        _set(self._env, name, value, overwrite)

    def unsetenv(self, name: str) -> None:
        """Take a variable away, if it is there."""
        self._env.pop(name, None)

    def job_control_getenv(self, name: str) -> str:
        """A variable of the job's prolog and epilog, by its name without SPANK_."""
        if name not in self._control:
            raise SpankError(f"{name} is not set", ESPANK_ENV_NOEXIST)
        return self._control[name]

    def job_control_setenv(self, name: str, value: str, overwrite: bool = True) -> None:
        """Set a variable that job_prolog and job_epilog find as SPANK_name.  Commands only."""
        self._in_a_command()
        if name.startswith("_"):
            raise SpankError(f"{name}: names with _ before are not a plugin's", ESPANK_BAD_ARG)
        _set(self._control, name, value, overwrite)

    def job_control_unsetenv(self, name: str) -> None:
        """Take such a variable away.  Commands only."""
        self._in_a_command()
        self._control.pop(name, None)

    def prepend_task_argv(self, *words: str) -> None:
        """Put words before the task's command: what they name runs it.  In task_init only."""
        if not self._in_task or self.context != REMOTE:
            raise SpankError("only a task that is about to start has a command", ESPANK_NOT_TASK)
        self.prefix = [*words, *self.prefix]

    def option_register(self, option: Option) -> None:
        """Add an option, beside those in the plugin's ``OPTIONS``.  In init only."""
        if self._register is None:
            raise SpankError("options are registered in init", ESPANK_NOT_AVAIL)
        self._register(option)

    def option_getopt(self, name: str) -> str | None:
        """The value that one of the plugin's options was given: "" where it was given none, None
        where it was not given."""
        return self._given.get(name)

    @property
    def asked(self) -> dict[str, str]:
        """The options of the command, by their long names: ``asked["container-mounts"]``.  A flag
        is "1".  Commands only; what is changed here is as if the user had typed it."""
        if self._asked is None:
            raise SpankError("options are a command's", ESPANK_NOT_LOCAL)
        return self._asked

    def info(self, sentence: str) -> None:
        """Tell the user, if she asks for more (-v)."""
        self._say(sentence)

    def warning(self, sentence: str) -> None:
        """Tell the user."""
        self._say(f"warning: {sentence}")

    def error(self, sentence: str) -> None:
        """Tell the user of something that went wrong.  To fail, raise."""
        self._say(f"error: {sentence}")

    def _in_a_command(self) -> None:
        if self.context not in (LOCAL, ALLOCATOR):
            raise SpankError("the job's prolog has run, or is about to", ESPANK_NOT_LOCAL)


def _set(env: MutableMapping[str, str], name: str, value: str, overwrite: bool) -> None:
    if not name or "=" in name or "\0" in name + value:
        raise SpankError(f"{name!r} cannot be a variable", ESPANK_BAD_ARG)
    if name in env and not overwrite:
        raise SpankError(f"{name} is set", ESPANK_ENV_EXISTS)
    env[name] = value
