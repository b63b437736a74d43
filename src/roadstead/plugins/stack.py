"""plugstack.conf: which plugins there are, in which order, and the calls down that stack.

    required  /etc/roadstead/plugins/site.py  verbose=1
    optional  greet.py                        # below the directory of this file
    required  labtools.roadstead_plugin       # a module
    include   plugstack.conf.d/*.conf

As plugstack.conf(5) of Slurm has it; what Slurm's own names are shared objects, which nothing here
can load, so it is another file.  A plugin is code that runs as the user, so each file is trusted as
a program of hers would be: it is root's or her own, nobody else can write to it, and nobody else
can put another in its place (host/paths.py, host/files.py).  What was checked is what is executed.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

from roadstead.errors import ConfigError, RoadsteadError
from roadstead.host import files, paths
from roadstead.plugins import ON_THE_WAY, POINTS, Option, SpankError

VARIABLE: Final = "ROADSTEAD_PLUGSTACK_CONF"
# How a step hears of the file that its command has read; and, as in Slurm, of the options.
HANDED_OVER: Final = f"{ON_THE_WAY}_PLUGSTACK"
_OPTION: Final = f"{ON_THE_WAY}_SLURM_SPANK_OPTION_"
_DEEPEST: Final = 16  # include in include
_REFUSED: Final = {
    "task_init_privileged": "nothing here has privileges: use task_init",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of plugstack.conf."""

    plugin: str
    required: bool
    args: tuple[str, ...]
    path: str
    line: int


@dataclass(slots=True)
class Plugin:
    """One plugin, loaded."""

    name: str
    module: ModuleType
    required: bool
    args: tuple[str, ...]
    options: list[Option] = field(default_factory=list)

    def variable(self, option: str) -> str:
        """How the option's value is handed over."""
        return _OPTION + _plain(f"{self.name}_{option}")

    def given(self, env: Mapping[str, str]) -> dict[str, str]:
        """The values of its options."""
        return {
            each.name: env[self.variable(each.name)]
            for each in self.options
            if self.variable(each.name) in env
        }


class PluginFailure(RoadsteadError):
    """What a plugin has raised; whether that is an error or a warning, who has called it knows."""

    kind = "launch"

    def __init__(self, plugin: str, point: str, what: str, *, required: bool) -> None:
        super().__init__(f"plugin {plugin}: {point}: {what}")
        self.required = required


def _plain(text: str) -> str:
    return "".join([each if each.isalnum() else "_" for each in text])


def read(path: str) -> list[Entry]:
    """The lines of a plugstack.conf and of what it includes.  Raises ConfigError."""
    return list(_entries(path, 0))


def _entries(path: str, depth: int) -> Iterator[Entry]:
    if depth > _DEEPEST:
        raise ConfigError("includes itself, or includes too deeply", path=path)
    directory = os.path.dirname(path)
    for number, line in enumerate(_trusted(path).splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ConfigError(str(error).lower(), path=path, line=number) from None
        if not words:
            continue
        word, *rest = words
        if word not in ("required", "optional", "include") or not rest:
            raise ConfigError(
                f"not a line of a plugstack.conf: {line.strip()}",
                path=path,
                line=number,
                hint="required|optional PLUGIN [argument…], or include FILES",
            )
        if word != "include":
            yield Entry(
                _located(rest[0], directory), word == "required", tuple(rest[1:]), path, number
            )
            continue
        for pattern in rest:
            for found in sorted(glob.glob(os.path.join(directory, pattern))):
                yield from _entries(found, depth + 1)


def _located(name: str, directory: str) -> str:
    """A path, or the dotted name of a module."""
    return os.path.join(directory, name) if "/" in name or name.endswith(".py") else name


def _trusted(path: str) -> str:
    why = paths.exchangeable(path, by_owners=True)
    if why:
        raise ConfigError(f"not safe: {why}", path=path, hint="chmod go-w it")
    return files.read_trusted(path)


def load(path: str, warn: Callable[[str], None]) -> list[Plugin]:
    """Load the plugins of a plugstack.conf, in its order.  One that is optional and cannot be
    loaded is left out, with a warning.  Raises ConfigError."""
    found: list[Plugin] = []
    for entry in read(path):
        try:
            found.append(_load(entry))
        except RoadsteadError as error:
            if entry.required:
                raise
            warn(f"warning: optional plugin left out: {error}")
    return found


def _load(entry: Entry) -> Plugin:
    if entry.plugin.endswith(".py") or "/" in entry.plugin:
        name = os.path.basename(entry.plugin).removesuffix(".py")
        module = ModuleType(f"roadstead_plugin_{_plain(name)}")
        module.__file__ = entry.plugin
        text = _trusted(entry.plugin)
        sys.modules[module.__name__] = module  # dataclasses look for their module there

        def execute() -> None:
            exec(compile(text, entry.plugin, "exec"), module.__dict__)
    else:
        name = entry.plugin.rpartition(".")[2]
        module = ModuleType(name)
        origin = _origin(entry)

        def execute() -> None:
            nonlocal module
            module = importlib.import_module(entry.plugin)

        _trusted(origin)
    try:
        execute()
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise ConfigError(
            f"plugin {name}: {described(error)}", path=entry.path, line=entry.line
        ) from None
    name = str(getattr(module, "NAME", name))
    for point, why in _REFUSED.items():
        if hasattr(module, point):
            raise ConfigError(
                f"plugin {name}: {point} is not called: {why}", path=entry.path, line=entry.line
            )
    options = list(getattr(module, "OPTIONS", ()))
    if not all(isinstance(each, Option) for each in options):
        raise ConfigError(
            f"plugin {name}: OPTIONS is not a list of Option", path=entry.path, line=entry.line
        )
    return Plugin(name, module, entry.required, entry.args, options)


def _origin(entry: Entry) -> str:
    """The file of a module: where this package is, or where programs of this Python's are
    installed, which the engine's own interpreters do not look into (python -IS)."""
    for attempt in ("as it is", "with site-packages"):
        if attempt == "with site-packages":
            import site

            site.main()
        try:
            spec = importlib.util.find_spec(entry.plugin)
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin:
            return spec.origin
    raise ConfigError(
        f"{entry.plugin}: no module of this name is installed for {sys.executable}",
        path=entry.path,
        line=entry.line,
        hint="name its file by a path",
    )


def call(plugin: Plugin, point: str, *given: Any) -> Any:
    """Call a plugin at a point; None where it has no such function.  Raises PluginFailure."""
    function = getattr(plugin.module, point, None)
    if function is None:
        return None
    try:
        answer = function(*given)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise PluginFailure(
            plugin.name, point, described(error), required=plugin.required
        ) from None
    if type(answer) is int and answer < 0:
        raise PluginFailure(plugin.name, point, f"returned {answer}", required=plugin.required)
    return answer


def heed(plugin: Plugin, env: Mapping[str, str], *, remote: bool) -> None:
    """Call the callbacks of the options that were given.  Raises PluginFailure."""
    given = plugin.given(env)
    for option in plugin.options:
        if option.callback is None or option.name not in given:
            continue
        try:
            option.callback(given[option.name], remote)
        except (Exception, SystemExit) as error:
            # Of an optional plugin too: the user has typed it, and is not to find it ignored.
            what = described(error)
            raise PluginFailure(plugin.name, f"--{option.name}", what, required=True) from None


def points(plugins: list[Plugin]) -> list[str]:
    """Those that any of the plugins has a function for."""
    return [each for each in POINTS if any(hasattr(plugin.module, each) for plugin in plugins)]


def described(error: BaseException) -> str:
    """An exception in a sentence: what a plugin says itself, or what happened, and where."""
    if isinstance(error, (SpankError, RoadsteadError)):
        return str(error)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return what
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    return f"{what} ({last.filename}:{last.lineno})" if last is not None else what


class Control(MutableMapping[str, str]):
    """The variables of the job's prolog and epilog that an environment carries to them."""

    def __init__(self, env: MutableMapping[str, str]) -> None:
        self._env = env

    def __getitem__(self, name: str) -> str:
        return self._env[ON_THE_WAY + name]

    def __setitem__(self, name: str, value: str) -> None:
        self._env[ON_THE_WAY + name] = value

    def __delitem__(self, name: str) -> None:
        del self._env[ON_THE_WAY + name]

    def __iter__(self) -> Iterator[str]:
        for name in self._env:
            if name.startswith(ON_THE_WAY) and not name.startswith(f"{ON_THE_WAY}_"):
                yield name.removeprefix(ON_THE_WAY)

    def __len__(self) -> int:
        return len(list(iter(self)))


def signed(plugin: Plugin, sentence: str) -> str:
    """What a plugin says, with its name; what it is, a warning or an error, comes first."""
    for word in ("warning: ", "error: "):
        if sentence.startswith(word):
            return f"{word}plugin {plugin.name}: {sentence.removeprefix(word)}"
    return f"plugin {plugin.name}: {sentence}"
