"""Our sources as every Python from 3.9 on runs them, and as they start fastest.

The node side travels to machines whose Python is not ours to choose, and starts once for each task:
there an import counts.  So what is packed (zipapp.py) is not what is installed, but the same
program after this translation of its syntax tree:

* ``match`` becomes if and elif (3.10);
* a dataclass becomes the class that ``dataclass`` would have made, written out: ``slots`` and
  ``kw_only`` need 3.10, and making a class at every start costs a millisecond, ``dataclasses``
  itself fifteen;
* annotations, ``typing``, docstrings and ``TYPE_CHECKING`` blocks go: nothing reads them there;
* modules of ours, and those of the standard library that take long, are imported when they are
  used: a task needs half of what its modules name;
* ``zip(strict=…)`` (3.10) loses its check, which the tests of the installed program have made;
* ``x[a, *b]`` (3.11) becomes ``x[(a, *b) + ()]``;
* an assertion stays.

What the written-out classes share is agent/plain.py, what stands for modules until they are used is
agent/lazy.py.  Whatever has no translation here is refused
when the archive is built, never when it runs.

Pure.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

PLAIN: Final = "roadstead.agent.plain"
# What is imported from agent/plain.py instead; of these modules nothing else is.
_REPLACED: Final = {"dataclasses": {"replace", "asdict", "is_dataclass"}, "typing": {"get_args"}}
_DROPPED: Final = {"dataclasses": {"dataclass", "field"}, "typing": {"cast"}}
# What newer Pythons have in modules that are imported as they are.
_MOVED: Final = {"enum": {"StrEnum"}, "itertools": {"pairwise"}}
# What stands in agent/lazy.py for modules, and for names of modules, that take long to import.
LAZY: Final = "roadstead.agent.lazy"
_LAZY_MODULES: Final = {
    *("contextlib", "copy", "ctypes", "enum", "heapq", "importlib", "json", "re", "resource"),
    *("socket", "struct", "termios"),
}
_LAZY_NAMES: Final = {
    "contextlib": {"contextmanager", "nullcontext", "suppress"},
    "functools": {"partial"},
}
_SELVES: Final = {"bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple"}
_AFTER: Final = "__post_init__"
_DATACLASS: Final = {"frozen", "slots", "kw_only", "order"}
_FIELD: Final = {"default", "default_factory", "repr", "compare"}


class Untranslatable(Exception):
    """A construct that has no translation here: add one to this module, or write it otherwise."""


def lower(source: str, where: str, ours: Collection[str] = ()) -> str:
    """The module ``source``, translated.  ``where`` names it in errors; ``ours`` are the modules
    that are packed with it, which it imports when it uses them.  Raises Untranslatable."""
    tree = ast.parse(source, where)
    lowered = ast.fix_missing_locations(_Lowering(where, tree, ours).visit(tree))
    return ast.unparse(lowered) + "\n"


def _aliases(tree: ast.Module) -> set[str]:
    """The names at the module's top that are types and nothing else: they are not evaluated."""
    generic = {"dict", "frozenset", "list", "set", "tuple"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("collections.abc", "typing"):
            generic |= {each.asname or each.name for each in node.names} - {"Literal"}
    found = set()
    for node in tree.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        value, name = node.value, node.targets[0].id
        if isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name):
            for_types = value.value.id in generic
        elif isinstance(value, ast.Call):
            for_types = ast.unparse(value.func) == "TypeVar"
        else:  # A = B | C, where a constant would be A_B = …
            united = isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
            for_types = united and name.strip("_")[:1].isupper() and not name.isupper()
        if for_types:
            found.add(name)
    return found


def _docless(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    said = first.value if isinstance(first, ast.Expr) else None
    return body[1:] if isinstance(said, ast.Constant) and isinstance(said.value, str) else body


class _Lowering(ast.NodeTransformer):
    def __init__(self, where: str, tree: ast.Module, ours: Collection[str]) -> None:
        self._where = where
        self._ours = ours
        self._in_function = 0
        self._aliases = _aliases(tree)
        self._asked = _asked(tree)
        self._subjects = 0
        self._written_out = False
        self._late = False
        self._is_lazy_itself = where.endswith(LAZY.rpartition(".")[2] + ".py")

    def refuse(self, node: ast.AST, what: str) -> Untranslatable:
        return Untranslatable(f"{self._where}:{getattr(node, 'lineno', 0)}: {what}")

    # -- modules, functions, annotations ------------------------------------------------------

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        node.body = _docless(node.body)
        if self._written_out:
            names = [ast.alias(name="plain", asname="__plain__")]
            node.body.insert(0, ast.ImportFrom(module="roadstead.agent", names=names, level=0))
        if self._late:
            names = [ast.alias(name="Module", asname="__Module__")]
            node.body.insert(0, ast.ImportFrom(module=LAZY, names=names, level=0))
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        arguments = node.args
        for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            each.annotation = None
        for one in (arguments.vararg, arguments.kwarg):
            if one is not None:
                one.annotation = None
        self._in_function += 1
        self.generic_visit(node)
        self._in_function -= 1
        node.body = _docless(node.body) or [ast.Pass()]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        self.generic_visit(node)
        return ast.Assign(targets=[node.target], value=node.value)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        target = node.targets[0]
        value = node.value
        if isinstance(target, ast.Name) and target.id in self._aliases:
            return ast.Assign(targets=[target], value=ast.Constant(value=None))
        if isinstance(value, ast.Subscript) and ast.unparse(value.value) == "Literal":
            words = value.slice  # what plain.get_args gives is what it was given
            node.value = words if isinstance(words, ast.Tuple) else ast.Tuple([words], ast.Load())
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        if ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return [self.visit(each) for each in node.orelse] or None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        index = node.slice
        if isinstance(index, ast.Tuple) and any(isinstance(at, ast.Starred) for at in index.elts):
            # In parentheses 3.9 takes it as well, but ast.unparse leaves them out.
            node.slice = ast.BinOp(left=index, op=ast.Add(), right=ast.Tuple([], ast.Load()))
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = ast.unparse(node.func)
        if called == "zip":
            node.keywords = [each for each in node.keywords if each.arg != "strict"]
        elif called in ("cast", "typing.cast"):
            return node.args[1]
        elif called in ("isinstance", "issubclass") and isinstance(node.args[1], ast.BinOp):
            node.args[1] = ast.Tuple(elts=_united(node.args[1]), ctx=ast.Load())
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        kept = [each for each in node.names if each.name not in ("typing", "dataclasses")]
        moved = [each for each in node.names if each.name == "dataclasses"]
        late = [each for each in kept if each.name in _LAZY_MODULES and not self._is_lazy_itself]
        kept = [each for each in kept if each not in late]
        found: list[ast.stmt] = [ast.Import(names=kept)] if kept else []
        if late:
            found.append(ast.ImportFrom(module=LAZY, names=late, level=0))
        if moved:
            renamed = ast.alias(name="plain", asname=moved[0].asname or "dataclasses")
            found.append(ast.ImportFrom(module="roadstead.agent", names=[renamed], level=0))
        return found or None  # type: ignore[return-value]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | list[ast.stmt] | None:
        module = node.module or ""
        late = [each for each in node.names if f"{module}.{each.name}" in self._ours]
        if late and not self._in_function:  # else it is imported where it is used, as it is
            self._late = True
            node.names = [each for each in node.names if each not in late]
            made = [ast.parse(_stand_in(module, each)).body[0] for each in late]
            return [*([node] if node.names else []), *made]
        if module == "__future__":
            return None
        if module == "collections.abc":  # for annotations, save what is asked with isinstance
            node.names = [each for each in node.names if each.name in self._asked]
            return node if node.names else None
        if module == "typing":
            wanted = _REPLACED["typing"]  # the rest is for annotations
            node.names = [each for each in node.names if each.name in wanted]
        if module == "contextlib":
            node.names = [
                each
                for each in node.names
                if not each.name.startswith("Abstract") or each.name in self._asked
            ]
        for there, table in ((PLAIN, _MOVED), (LAZY, _LAZY_NAMES)):
            if module in table and not self._is_lazy_itself:
                moved = [each for each in node.names if each.name in table[module]]
                node.names = [each for each in node.names if each not in moved]
                found: list[ast.stmt] = [node] if node.names else []
                if moved:
                    found.append(ast.ImportFrom(module=there, names=moved, level=0))
                return found
        if module in _REPLACED:
            names = [each for each in node.names if each.name not in _DROPPED[module]]
            wrong = [each.name for each in names if each.name not in _REPLACED[module]]
            if wrong:
                raise self.refuse(node, f"from {module} import {', '.join(wrong)}")
            return ast.ImportFrom(module=PLAIN, names=names, level=0) if names else None
        return node

    # -- classes ------------------------------------------------------------------------------

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.bases = [each for each in node.bases if not _is_for_types(each)]
        node.body = _docless(node.body)
        how = [each for each in node.decorator_list if _is_dataclass(each)]
        if how:
            node.decorator_list = [each for each in node.decorator_list if each not in how]
            self._write_out(node, _flags(how[0]))
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def _write_out(self, node: ast.ClassDef, flags: set[str]) -> None:
        """Make of a dataclass what ``dataclass`` makes of it."""
        if flags - _DATACLASS or node.bases:
            raise self.refuse(node, "a dataclass of a kind that was not needed so far")
        fields = [_Field(each, self) for each in node.body if isinstance(each, ast.AnnAssign)]
        rest = [each for each in node.body if not isinstance(each, ast.AnnAssign)]
        after = any(isinstance(each, ast.FunctionDef) and each.name == _AFTER for each in rest)
        self._written_out = True
        names = repr(tuple([field.name for field in fields]))
        factories = [f"{each.name!r}: {each.factory}" for each in fields if each.factory]
        parts = [
            f"__slots__ = {names}" if "slots" in flags else "",
            f"__dataclass_fields__ = {names}",
            f"__hints__ = { ({field.name: field.hint for field in fields})!r}",
            f"_compared = {tuple([field.name for field in fields if field.compared])!r}",
            f"_shown = {tuple([field.name for field in fields if field.shown])!r}",
            f"_factories = {{{', '.join(factories)}}}" if factories else "",
            "__eq__ = __plain__.equal",
            f"__hash__ = {'__plain__.hashed' if 'frozen' in flags else 'None'}",
            "__repr__ = __plain__.shown",
            "__lt__ = __plain__.less" if "order" in flags else "",
        ]
        made = ast.parse("\n".join(part for part in parts if part)).body
        node.body = [*made, _init(fields, keywords="kw_only" in flags, after=after), *rest]

    # -- match --------------------------------------------------------------------------------

    def visit_Match(self, node: ast.Match) -> list[ast.stmt]:
        self.generic_visit(node)
        parts = {
            len(case.pattern.patterns)
            for case in node.cases
            if isinstance(case.pattern, ast.MatchSequence)
        }
        if parts and not (
            isinstance(node.subject, ast.Tuple) and {len(node.subject.elts)} == parts
        ):
            raise self.refuse(node, "a sequence that is not written as one")
        self._subjects += 1
        subject = f"_subject{self._subjects}"
        made: list[ast.stmt] = [
            ast.Assign(targets=[ast.Name(id=subject, ctx=ast.Store())], value=node.subject)
        ]
        chain: list[ast.stmt] = []
        for case in reversed(node.cases):
            test, bound = self._pattern(case.pattern, ast.Name(id=subject, ctx=ast.Load()))
            if case.guard is not None:
                # The names are bound in the body; the guard reads what they will be.
                guard = _Renamed(bound).visit(case.guard)
                test = _all([*([test] if test is not None else []), guard])
            body = [*bound, *case.body]
            chain = body if test is None else [ast.If(test=test, body=body, orelse=chain)]
        return [*made, *chain]

    def _pattern(
        self, pattern: ast.pattern, subject: ast.expr
    ) -> tuple[ast.expr | None, list[ast.stmt]]:
        """The test that a pattern is, None for one that always holds, and what it binds."""
        match pattern:
            case ast.MatchValue():
                return _compare(subject, ast.Eq(), pattern.value), []
            case ast.MatchSingleton():
                return _compare(subject, ast.Is(), ast.Constant(value=pattern.value)), []
            case ast.MatchOr():
                values = [self._pattern(each, subject) for each in pattern.patterns]
                if any(bound or test is None for test, bound in values):
                    raise self.refuse(pattern, "names in alternatives")
                tests = [test for test, _ in values if test is not None]
                return ast.BoolOp(op=ast.Or(), values=tests), []
            case ast.MatchAs(pattern=None):
                return None, _bind(pattern.name, subject)
            case ast.MatchClass(kwd_patterns=[]):
                return self._class(pattern, subject)
            case ast.MatchSequence():
                return self._sequence(pattern, subject)
            case ast.MatchMapping(rest=None):
                return self._mapping(pattern, subject)
            case _:
                raise self.refuse(pattern, f"case {ast.unparse(pattern)}")

    def _class(self, pattern: ast.MatchClass, subject: ast.expr) -> tuple[ast.expr, list[ast.stmt]]:
        """A type; one with something in it must be one of those that match themselves (PEP 634)."""
        kind = ast.unparse(pattern.cls)
        if pattern.patterns and (len(pattern.patterns) > 1 or kind not in _SELVES):
            raise self.refuse(pattern, f"case {ast.unparse(pattern)}")
        name = ast.Name(id="isinstance", ctx=ast.Load())
        test = ast.Call(func=name, args=[subject, pattern.cls], keywords=[])
        if not pattern.patterns:
            return test, []
        more, bound = self._pattern(pattern.patterns[0], subject)
        return _all([test, *([more] if more is not None else [])]), bound

    def _sequence(
        self, pattern: ast.MatchSequence, subject: ast.expr
    ) -> tuple[ast.expr | None, list[ast.stmt]]:
        """Of a subject that is written as a tuple of as many."""
        tests: list[ast.expr] = []
        bound: list[ast.stmt] = []
        for number, inner in enumerate(pattern.patterns):
            part = ast.Subscript(value=subject, slice=ast.Constant(value=number), ctx=ast.Load())
            test, more = self._pattern(inner, part)
            tests += [test] if test is not None else []
            bound += more
        return (_all(tests) if tests else None), bound

    def _mapping(
        self, pattern: ast.MatchMapping, subject: ast.expr
    ) -> tuple[ast.expr, list[ast.stmt]]:
        kind = ast.Name(id="dict", ctx=ast.Load())
        is_dict = ast.Name(id="isinstance", ctx=ast.Load())
        tests: list[ast.expr] = []
        tests.append(ast.Call(func=is_dict, args=[subject, kind], keywords=[]))
        bound: list[ast.stmt] = []
        for name, inner in zip(pattern.keys, pattern.patterns, strict=True):
            tests.append(_compare(name, ast.In(), subject))
            value = ast.Subscript(value=subject, slice=name, ctx=ast.Load())
            test, more = self._pattern(inner, value)
            tests += [test] if test is not None else []
            bound += more
        return _all(tests), bound


class _Renamed(ast.NodeTransformer):
    """Names replaced by what they are bound to."""

    def __init__(self, bound: list[ast.stmt]) -> None:
        self._values = {
            each.targets[0].id: each.value
            for each in bound
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
        }

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._values.get(node.id, node)


class _Field:
    """One field of a dataclass; ``default`` and ``factory`` are expressions, "" for none."""

    def __init__(self, node: ast.AnnAssign, lowering: _Lowering) -> None:
        assert isinstance(node.target, ast.Name)
        self.name = node.target.id
        self.hint = ast.unparse(node.annotation)
        self.default = ast.unparse(node.value) if node.value is not None else ""
        self.factory = ""
        self.shown = self.compared = True
        value = node.value
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
            said = {str(each.arg): ast.unparse(each.value) for each in value.keywords}
            if set(said) - _FIELD or value.args:
                raise lowering.refuse(node, ast.unparse(value))
            self.default, self.factory = said.get("default", ""), said.get("default_factory", "")
            self.shown, self.compared = "repr" not in said, "compare" not in said


def _init(fields: list[_Field], *, keywords: bool, after: bool) -> ast.stmt:
    """The ``__init__`` with these fields."""
    parameters, body = ["self", *(["*"] if keywords and fields else [])], ["pass"]
    for field in fields:
        name, value = field.name, field.name
        default = f"={field.default}" if field.default else ""
        if field.factory:
            default = "=__plain__.MISSING"
            value = f"self._factories[{name!r}]() if {name} is __plain__.MISSING else {name}"
        parameters.append(f"{name}{default}")
        body.append(f"self.{name} = {value}")
    if after:
        body.append(f"self.{_AFTER}()")
    lines = "\n".join(f"    {line}" for line in (body[1:] or body))
    return ast.parse(f"def __init__({', '.join(parameters)}):\n{lines}\n").body[0]


def _stand_in(module: str, alias: ast.alias) -> str:
    return f"{alias.asname or alias.name} = __Module__('{module}.{alias.name}')"


def _flags(decorator: ast.expr) -> set[str]:
    assert isinstance(decorator, ast.Call)
    return {str(each.arg) for each in decorator.keywords}


def _is_dataclass(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "dataclass"


def _is_for_types(node: ast.expr) -> bool:
    return ast.unparse(node).partition("[")[0] in ("Protocol", "Generic")


def _asked(tree: ast.Module) -> set[str]:
    """The names that the module asks isinstance about, or derives from."""
    asked: list[ast.expr] = []
    for each in ast.walk(tree):
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "isinstance":
            asked.append(each.args[1])
        elif isinstance(each, ast.ClassDef):
            asked += each.bases
    return {node.id for kinds in asked for node in ast.walk(kinds) if isinstance(node, ast.Name)}


def _united(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_united(node.left), *_united(node.right)]
    return [node]


def _all(tests: list[ast.expr]) -> ast.expr:
    return tests[0] if len(tests) == 1 else ast.BoolOp(op=ast.And(), values=tests)


def _bind(name: str | None, value: ast.expr) -> list[ast.stmt]:
    if name is None:
        return []
    return [ast.Assign(targets=[ast.Name(id=name, ctx=ast.Store())], value=value)]


def _compare(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> ast.expr:
    return ast.Compare(left=left, ops=[operator], comparators=[right])
