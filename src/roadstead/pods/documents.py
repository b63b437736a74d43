"""Manifests from text: the documents of a YAML or JSON file.

PyYAML does it where it is installed (the extra ``pods``), at submit time and nowhere else: what
travels to the node is JSON.  A manifest that is JSON needs nothing.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any, Final

from roadstead.core.printable import printable
from roadstead.errors import RequestError

LARGEST: Final = 3 << 20  # what an API server takes
_DEEPEST: Final = 32  # the table of fields has 12 levels
_MOST: Final = 1_000_000  # of values, with each alias counted as what it stands for


def documents(name: str, text: str) -> list[tuple[str, Any]]:
    """The documents of a manifest that are not empty, each with where it is from.  Raises
    RequestError."""
    if len(text) > LARGEST:
        raise RequestError(f"{name} is larger than {LARGEST >> 20} MiB")
    try:
        found = _of_json(name, text) if text.lstrip().startswith(("{", "[")) else None
        found = _of_yaml(name, text) if found is None else found
    except RecursionError:
        raise _too_deep(name) from None
    found = [each for each in found if each is not None]
    _measure(name, found)
    found = [item for each in found for item in (each["items"] if _is_list(each) else [each])]
    if len(found) == 1:
        return [(name, found[0])]
    return [(f"{name} (document {number})", each) for number, each in enumerate(found, start=1)]


def is_manifest(text: str) -> bool:
    """Whether that is a manifest of Kubernetes, and no batch script: a key of it, at the start of a
    line, which no shell would execute."""
    if text.startswith("#!"):
        return False
    lines = text[:65536].splitlines()
    if text.lstrip().startswith("{"):
        return '"apiVersion"' in text[:65536]
    return any(line.startswith("apiVersion:") for line in lines)


def _of_json(name: str, text: str) -> list[Any] | None:
    """None where it is YAML that begins as JSON does."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise RequestError(printable(f"{name}: not JSON: {twice} is given twice"))
        return found

    try:
        return [json.loads(text, object_pairs_hook=once)]
    except ValueError:
        return None


def _is_list(node: Any) -> bool:
    return (
        isinstance(node, dict)
        and node.get("kind") == "List"
        and isinstance(node.get("items"), list)
    )


def _too_deep(name: str) -> RequestError:
    return RequestError(f"{name}: nested deeper than {_DEEPEST} levels, which no manifest is")


def _measure(name: str, found: list[Any]) -> None:
    """Aliases of aliases make a few lines as large as they like; and what is read here is walked
    by functions that call themselves.  Raises RequestError."""
    count = 0
    waiting: list[tuple[Any, int]] = [(found, 0)]
    while waiting:
        node, depth = waiting.pop()
        below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        count += len(below)
        if count > _MOST:
            raise RequestError(f"{name}: has more than {_MOST} values in it, aliases counted")
        if below and depth > _DEEPEST:
            raise _too_deep(name)
        waiting += [(each, depth + 1) for each in below]


def _of_yaml(name: str, text: str) -> list[Any]:
    if not importlib.util.find_spec("yaml"):
        # Our commands start without looking for what is installed beside the package (cli/shims).
        import site

        site.main()
    try:
        import yaml
    except ImportError:
        raise RequestError(
            f"{name}: PyYAML is not installed, which reads manifests",
            hint="pip install 'roadstead[pods]', or give the manifest as JSON",
        ) from None

    class Loader(yaml.SafeLoader):
        """SafeLoader, which lets a key be given twice and takes the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = key_node.value
                if not isinstance(key, str):
                    raise yaml.MarkedYAMLError(
                        problem="a key that is no word", problem_mark=key_node.start_mark
                    )
                if key in seen and key != "<<":
                    raise yaml.MarkedYAMLError(
                        problem=f"{key} is given twice", problem_mark=key_node.start_mark
                    )
                seen.add(key)
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    try:
        found = list(yaml.load_all(text, Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RequestError(printable(f"{where}: not YAML: {error.problem}")) from None
    except (yaml.YAMLError, ValueError) as error:
        said = printable(str(error).splitlines()[0])
        raise RequestError(f"{name}: not YAML: {said}") from None
    return found
