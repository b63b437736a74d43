"""Our sources for Pythons from 3.9 on: what is translated means the same."""

from __future__ import annotations

import ast
import textwrap
from typing import Any

import pytest

from roadstead.core import expand
from roadstead.engines.slurm import zipapp
from roadstead.engines.slurm.lowering import Untranslatable, lower
from roadstead.errors import EngineError

DATACLASS = """
    from dataclasses import asdict, dataclass, field, replace
    @dataclass(frozen=True, slots=True{more})
    class Mount:
        "A docstring."
        source: str
        options: tuple[str, ...] = ()
        env: dict[str, str] = field(default_factory=dict, repr=False)
        @property
        def first(self) -> str:
            return self.options[0]
        def __post_init__(self) -> None:
            if self.source == "bad":
                raise ValueError(self.source)
"""
MATCH = """
    class A: pass
    def f(x, y=0):
        match x:
            case "a" | "b" if y:
                return 1
            case {"said": said}:
                return said
            case None:
                return 3
            case A():
                return 4
            case {"number": int(number)} if number > 3:
                return number
            case other:
                return [other]
    def g(a, b):
        match a, b:
            case 1, 2:
                return "both"
            case 1, _:
                return "first"
        return "none"
"""
# source, and expressions that must give the same before and after.
SAME = (
    (DATACLASS.format(more=""), (
        "Mount('a') == Mount('a')", "Mount('a') == Mount('b')", "repr(Mount('a', ('x',)))",
        "replace(Mount('a'), source='b').source", "asdict(Mount('a', ('b',)))",
        "hash(Mount('a', env=0)) == hash(Mount('a', env=0))", "Mount('a', ('b',)).first",
        "Mount('a').env is Mount('a').env", "Mount.__slots__",
    )),
    (DATACLASS.format(more=", kw_only=True"), (
        "Mount(source='a') == Mount(source='a', env={})", "Mount(source='a').options",
    )),
    (DATACLASS.format(more=", order=True"), ("Mount('a') < Mount('b')", "Mount('b') < Mount('a')")),
    (MATCH, (
        "f('a', 1)", "f('a')", "f({'said': 2})", "f({'else': 2})", "f(None)", "f(A())", "f(7)",
        "f({'number': 5})", "f({'number': 2})", "f({'number': '5'})",
        "g(1, 2)", "g(1, 3)", "g(2, 2)",
    )),
    ("from typing import Literal, get_args\nKind = Literal['a', 'b']", ("get_args(Kind)",)),
    ("from enum import StrEnum\nclass W(StrEnum):\n    A = 'a'", ("f'{W.A}'", "W('a') == 'a'")),
    ("x: int = 3\ndef f(a: int | str, *b: int) -> int | None:\n    y: str | None = None\n"
     "    return isinstance(a, int | str) and list(zip(b, b, strict=True))", ("f(x, 1, 2)",)),
    ("d = {(1, 2, 3): 'x'}\nb = (2, 3)", ("d[1, *b]", "d[*b[:0], 1, *b]")),
    ("from itertools import pairwise", ("list(pairwise([1, 2, 3]))", "list(pairwise([]))")),
)  # fmt: skip


def _run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "builtins"}  # dataclasses looks the module up
    exec(compile(source, "lowered", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize(("source", "expressions"), SAME)
def test_what_is_translated_means_the_same(source: str, expressions: tuple[str, ...]) -> None:
    source = f"from __future__ import annotations\n{textwrap.dedent(source)}"
    before, after = _run(source), _run(lower(source, "here"))
    for each in expressions:
        assert eval(each, after) == eval(each, before), each


def test_modules_of_ours_wait_until_they_are_used() -> None:
    """A name of another module, and what a function imports, is imported where it stands."""
    source = """
from roadstead.core import jsonform, names as other
from roadstead.errors import EngineError
def f():
    from roadstead.core import expand
    return expand
"""
    ours = {f"roadstead.core.{name}" for name in ("jsonform", "names", "expand")}
    made = _run(lower(source, "here", ours))
    assert [type(made[name]).__name__ for name in ("jsonform", "other")] == ["Module", "Module"]
    assert made["jsonform"].to_json((1,)) == [1]
    assert made["EngineError"] is EngineError
    assert made["f"]() is expand


def test_no_name_of_the_module_is_taken() -> None:
    """What is written out reads names that nobody else gives: one of ours had a `_plain`."""
    source = (
        textwrap.dedent(DATACLASS.format(more="")) + "\ndef _plain(): pass\ndef plain(): pass\n"
    )
    made = _run(lower(source, "here"))
    assert made["Mount"]("a") == made["Mount"]("a", env={})


def test_what_comes_after_init() -> None:
    made = _run(lower(textwrap.dedent(DATACLASS.format(more="")), "here"))
    with pytest.raises(ValueError, match="bad"):
        made["Mount"]("bad")


@pytest.mark.parametrize(
    "source",
    [
        "from dataclasses import fields",
        "match x:\n case [1, 2]: pass",
        "match x:\n case A(1): pass",
        "from dataclasses import dataclass\n@dataclass(eq=False)\nclass A: pass",
        "from dataclasses import dataclass\n@dataclass(slots=True)\nclass A(B): pass",
    ],
)
def test_what_has_no_translation_is_refused(source: str) -> None:
    with pytest.raises(Untranslatable, match="here:"):
        lower(source, "here")


def _starred_subscripts(tree: ast.AST) -> list[int]:
    """Lines with ``x[*a]``, which is 3.11's grammar though ast.parse takes it for any version."""
    indices = [each.slice for each in ast.walk(tree) if isinstance(each, ast.Subscript)]
    return [
        index.lineno
        for index in indices
        if isinstance(index, ast.Tuple) and any(isinstance(at, ast.Starred) for at in index.elts)
    ]


def test_starred_subscripts_are_seen() -> None:
    assert _starred_subscripts(ast.parse("x[a, b]\nx[a, *b]\nx[(a, *b) + ()]")) == [2]


@pytest.mark.long
def test_the_whole_node_side_is_translated() -> None:
    """To what Python 3.9 can parse.  (That it runs there: tests/e2e/test_agent_archive.py.)"""
    sources = {name: entry.path for name, entry in zipapp._sources()}
    texts = zipapp._packed(sources)
    assert {"step/plan.py", "images/layout.py", "core/model.py", "agent/boot.py"} <= texts.keys()
    assert not any(name.startswith(("cli/", "controller/")) for name in texts)
    for name, text in texts.items():
        lowered = lower(text, name)
        tree = ast.parse(lowered, name, feature_version=(3, 9))
        assert not _starred_subscripts(tree), name
        assert "import dataclasses" not in lowered, name
        assert "from typing import" not in lowered, name
