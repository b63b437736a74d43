"""The plugins of srun, sbatch and salloc (plugins/ says what they are): their options, and the
calls in the command's own process, whose environment they see and change as SPANK's do by
setenv(3).

Imported only where there is a plugstack.conf (cli/attend.py looks).  Options of plugins are rows
beside ours: --help, #SBATCH lines and the environment know them.  What they were given goes to the
step in variables, as in Slurm: a script's srun has what its sbatch was given.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from roadstead.cli import options, report
from roadstead.cli.getopt_long import NO_ARG, OPTIONAL, REQUIRED
from roadstead.cli.option import LAUNCH
from roadstead.cli.option import Option as Row
from roadstead.errors import RequestError
from roadstead.plugins import ALLOCATOR, LOCAL, Option, Spank, stack

_IMAGES = ("container-image", "container")


class Plugged:
    """The plugins of one command."""

    def __init__(self, command: str, path: str, *, verbose: bool) -> None:
        """Load them and call ``init``.  Raises ConfigError, and what a required one fails with."""
        self._command, self._path = command, path
        self._context = LOCAL if command == "srun" else ALLOCATOR
        self._verbose = verbose
        self._items: dict[str, Any] = {
            "S_JOB_UID": os.getuid(), "S_JOB_GID": os.getgid(), "S_JOB_ARGV": [],
        }  # fmt: skip
        self._plugins = stack.load(path, self._say)
        self._rows: dict[str, str] = {}  # our options' names → the variables that carry them
        for plugin in self._plugins:
            self._guarded(plugin, self._initialise)
        options.add(self._row(plugin, each) for plugin in self._plugins for each in plugin.options)

    def _initialise(self, plugin: stack.Plugin) -> None:
        spank = self._spank(plugin, register=plugin.options.append)
        stack.call(plugin, "init", spank, list(plugin.args))

    def _row(self, plugin: stack.Plugin, option: Option) -> Row:
        if options.is_known(self._command, option.name) or option.name in self._rows:
            raise RequestError(
                f"plugin {plugin.name}: --{option.name} is an option that is there already"
            )
        variable = self._rows[option.name] = plugin.variable(option.name)
        arg = NO_ARG if not option.arg else OPTIONAL if option.optional else REQUIRED
        usage = f"[{plugin.name}] {option.usage}"  # Slurm's --help has them so
        return Row(option.name, "", arg, LAUNCH, variable, option.arg, usage)

    # -- before the request ---------------------------------------------------------------------

    def settle(self, components: list[tuple[dict[str, str], list[str]]]) -> None:
        """Take the plugins' options out of what was asked for into the environment, and let plugins
        change both.  Raises RoadsteadError."""
        asked, operands = components[0]
        self._items["S_JOB_ARGV"] = list(operands)
        self._verbose = self._verbose or "verbose" in asked
        for each, _ in components:
            for name, variable in self._rows.items():
                if name in each:
                    value = each.pop(name)
                    os.environ[variable] = value if self._takes_value(name) else ""
        os.environ[stack.HANDED_OVER] = self._path
        for plugin in self._plugins:
            self._guarded(plugin, lambda each: stack.heed(each, os.environ, remote=False))
        for plugin in self._plugins:
            self._guarded(plugin, self._call, "init_post_opt", asked)
        for each, _ in components:
            for name in _IMAGES:
                if name in each:
                    each[name] = self._resolved(each[name], each)
                    break

    def settle_elsewhere(self, components: list[tuple[dict[str, str], list[str]]]) -> None:
        """The same where the command becomes Slurm's own, and an agent is told of containers alone:
        it is over for us then.  Raises RoadsteadError."""
        given = [name for asked, _ in components for name in asked if name in self._rows]
        self.settle(components)
        contained = any(asked for asked, _ in components)
        if given and not contained:
            raise RequestError(
                f"--{given[0]}: where Slurm runs the job, plugins are for its containers",
                hint="add --container=…, or leave it out",
            )
        if contained and self.waits_for_numbers:
            self._say("warning: local_user_init of plugins is not called: Slurm starts the step")
        self.end()

    def _resolved(self, reference: str, asked: dict[str, str]) -> str:
        for plugin in self._plugins:
            found = self._guarded(plugin, self._call, "container_resolve", asked, reference)
            if isinstance(found, str) and found:
                return found
        return reference

    # -- afterwards -----------------------------------------------------------------------------

    @property
    def waits_for_numbers(self) -> bool:
        """Whether a plugin is to know job and step before tasks run."""
        return any(hasattr(plugin.module, "local_user_init") for plugin in self._plugins)

    def numbered(self, job_id: int, step_id: int) -> None:
        """The step has its numbers, and waits for us.  Raises RoadsteadError."""
        self._items |= {"S_JOB_ID": job_id, "S_JOB_STEPID": step_id}
        for plugin in self._plugins:
            self._guarded(plugin, self._call, "local_user_init")

    def end(self) -> None:
        """The command is about to end.  Raises RoadsteadError."""
        for plugin in self._plugins:
            self._guarded(plugin, self._call, "exit")

    # -- calls ----------------------------------------------------------------------------------

    def _takes_value(self, name: str) -> bool:
        return any(
            option.arg
            for plugin in self._plugins
            for option in plugin.options
            if option.name == name
        )

    def _call(
        self, plugin: stack.Plugin, point: str, asked: dict[str, str] | None = None, *more: Any
    ) -> Any:
        spank = self._spank(plugin, asked=asked)
        return stack.call(plugin, point, spank, list(plugin.args), *more)

    def _spank(
        self,
        plugin: stack.Plugin,
        *,
        asked: dict[str, str] | None = None,
        register: Callable[[Option], None] | None = None,
    ) -> Spank:
        return Spank(
            self._context,
            items=self._items,
            env=os.environ,
            control=stack.Control(os.environ),
            given=plugin.given(os.environ),
            say=lambda sentence: self._say(stack.signed(plugin, sentence)),
            asked=asked,
            register=register,
        )

    def _guarded(self, plugin: stack.Plugin, function: Callable[..., Any], *given: Any) -> Any:
        """Call; what an optional plugin fails with is a warning."""
        try:
            return function(plugin, *given)
        except stack.PluginFailure as failure:
            if failure.required:
                raise
            self._say(f"warning: {failure}")
        return None

    def _say(self, sentence: str) -> None:
        if self._verbose or sentence.startswith(("warning:", "error:")):
            report.write_line(f"{self._command}: {sentence}")
