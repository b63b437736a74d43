"""Manifests from text: the documents of a YAML or JSON file.

PyYAML does it where it is installed (the extra ``pods``), at submit time and nowhere else: what
travels to the node is JSON.  A manifest that is JSON needs nothing.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from roadstead.errors import RequestError

_LARGEST = 8 << 20


def documents(name: str, text: str) -> list[tuple[str, Any]]:
    """The documents of a manifest that are not empty, each with where it is from.  Raises
    RequestError."""
    if len(text) > _LARGEST:
        raise RequestError(f"{name} is larger than {_LARGEST >> 20} MiB")
    found = _of_json(text) if text.lstrip().startswith(("{", "[")) else _of_yaml(name, text)
    found = [each for each in found if each is not None]
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


def _of_json(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [None]
    return found["items"] if _is_list(found) else [found]


def _is_list(node: Any) -> bool:
    return isinstance(node, dict) and node.get("kind") == "List" and "items" in node


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
        raise RequestError(f"{where}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RequestError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
    return [item for each in found for item in (each["items"] if _is_list(each) else [each])]
