"""Who may import whom, and who may touch what: the architecture, held by reading the imports.

    cli → engines → (step, systems, images, oci, plugins) → core → errors
    controller → (step, plugins) → core
    host: used by all but core, imports none of them

A room may import the rooms below it and itself.  `step` stands over `systems`, `images` and `oci`,
which it puts to use, and `plugins` over none of them.  Imports for annotations count here: they are
knowledge as well.  For contact with the world they do not: nothing of theirs runs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"

_NODE = {"systems", "images", "oci", "plugins", "core", "host", "errors"}
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "host": {"errors"},
    "core": {"errors"},
    "oci": {"core", "host", "errors"},
    "images": {"oci", "core", "host", "errors"},
    "systems": {"images", "oci", "core", "host", "errors"},
    "plugins": {"core", "host", "errors"},
    "step": _NODE,
    "pods": {"step", *_NODE},
    "daemons": {"step", *_NODE},
    "doctor": {"step", "systems", "plugins", "images", "oci", "core", "host", "errors"},
    "agent": {"pods", "daemons", "doctor", "step", *_NODE},
    "engines": {"agent", "pods", "daemons", "doctor", "step", *_NODE},
    "cli": {"engines", "agent", "doctor", "daemons", "pods", "step", *_NODE},
    "controller": {"step", *_NODE},
    "api": {"cli", "engines", "agent", "doctor", "daemons", "pods", "step", *_NODE},
    "__init__": {"api", "engines", "errors"},  # the names for programs, imported when used
    "__main__": {"cli", "errors"},
}

# Contact with the world has one door each.
DOOR: dict[str, str] = {
    "subprocess": "host",
    "_posixsubprocess": "host",
    "multiprocessing": "host",
    "ctypes": "host",
    "socket": "host",
    "_socket": "host",
    "signal": "host",
    "_signal": "host",
    "sqlite3": "controller",
}
# os functions that start a program or replace this one.
LAUNCHES = ("exec", "fork", "popen", "posix_spawn", "spawn", "system")

PURE = ("core/", "oci/conf.py", "oci/patterns.py", "cli/options")
IMPURE = {
    *("os", "posix", "io", "pathlib", "shutil", "tempfile", "glob"),
    *("time", "_thread", "threading", "random", "secrets"),
    *("socket", "_socket", "select", "selectors", "signal", "_signal"),
    *("subprocess", "_posixsubprocess", "sqlite3"),
}


class Import(NamedTuple):
    """One imported name, in full."""

    name: str
    line: int
    for_types: bool


@cache
def modules() -> list[Path]:
    return sorted((SOURCE / "roadstead").rglob("*.py"))


def place(path: Path) -> str:
    """The file's path inside the package, for people: `core/model.py`."""
    return path.relative_to(SOURCE / "roadstead").as_posix()


def room(path: Path) -> str:
    """`core` for core/model.py, `errors` for errors.py."""
    return place(path).partition("/")[0].removesuffix(".py")


def _guarded(tree: ast.Module) -> set[ast.AST]:
    """Everything under `if TYPE_CHECKING:`."""
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    guards = [node for node in tests if ast.unparse(node.test).endswith("TYPE_CHECKING")]
    return {inner for guard in guards for part in guard.body for inner in ast.walk(part)}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), path)


@cache
def imports(path: Path) -> list[Import]:
    """Every import of a module, wherever it stands."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    tree = parsed(path)
    guarded = _guarded(tree)
    package = ["roadstead", *place(path).split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, node in guarded)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{origin}.{alias.name}", node.lineno, node in guarded)


def rooms() -> list[str]:
    return sorted({room(path) for path in modules()})


def of(name: str) -> list[Path]:
    """The modules of a room."""
    return [path for path in modules() if room(path) == name]


each_room = pytest.mark.parametrize("name", rooms())


@each_room
def test_imports_point_down(name: str) -> None:
    # The versions, `from roadstead import __version__`, are for everybody.
    allowed = {name, "__version__", "SLURM_VERSION"} | BELOW.get(name, set())
    wrong = [
        f"{place(path)}:{each.line} imports {each.name}"
        for path in of(name)
        for each in imports(path)
        if each.name.startswith("roadstead.") and each.name.split(".")[1] not in allowed
    ]
    assert wrong == []


@each_room
def test_the_world_is_touched_in_one_place(name: str) -> None:
    wrong = [
        f"{place(path)}:{each.line} imports {each.name}"
        for path in of(name)
        for each in imports(path)
        if not each.for_types and DOOR.get(each.name.split(".")[0], name) != name
    ]
    assert wrong == []


@pytest.mark.parametrize("name", sorted({*rooms()} - {"host"}))
def test_programs_are_started_in_host_alone(name: str) -> None:
    launches = tuple(f"os.{each}" for each in LAUNCHES)
    wrong = [
        f"{place(path)}:{node.lineno} calls {called}"
        for path in of(name)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (called := ast.unparse(node.func)).startswith(launches)
    ]
    assert wrong == []


def test_the_pure_is_pure() -> None:
    wrong = [
        f"{place(path)}:{each.line} imports {each.name}"
        for path in modules()
        if place(path).startswith(PURE)
        for each in imports(path)
        if not each.for_types and each.name.split(".")[0] in IMPURE
    ]
    assert wrong == []


def test_every_room_has_a_rule() -> None:
    assert {room(path) for path in modules()} - {"__init__"} <= BELOW.keys()


def test_the_rules_have_no_circle() -> None:
    for upper, lower in BELOW.items():
        assert not any(upper in BELOW[each] for each in lower), upper


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Inside a room neither, and however late: what is for annotations alone does not count."""

    def named(path: Path) -> str:
        name = "roadstead." + place(path).removesuffix(".py").replace("/", ".")
        return name.removesuffix(".__init__")

    known = {named(path) for path in modules()}
    graph: dict[str, set[str]] = {}
    for path in modules():
        names = [each.name for each in imports(path) if not each.for_types]
        # Of `from roadstead.step import plan` the module is meant, of `from …plan import Plan` too.
        found = {name if name in known else name.rpartition(".")[0] for name in names} & known
        mine = named(path)
        graph[mine] = {each for each in found if not f"{mine}.".startswith(f"{each}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


# What pip installs with an extra, for the one part that needs it (docs/dependencies.md).
EXTRAS = {("api", "cloudpickle"), ("pods", "yaml")}


def test_nothing_is_installed_beside_the_product() -> None:
    """Standard library only: whatever else is imported would be a dependency."""
    foreign = {
        f"{place(path)}:{each.line} imports {each.name}"
        for path in modules()
        for each in imports(path)
        if (top := each.name.split(".")[0]) not in {*sys.stdlib_module_names, "roadstead"}
        and (room(path), top) not in EXTRAS
    }
    assert foreign == set()
