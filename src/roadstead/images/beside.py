"""What Sarus and Shifter write beside a squashfs file: how its image is to be run.

X.squashfs   X.meta   Sarus: a JSON document with Entrypoint, Cmd, WorkingDir and Env
                      Shifter: lines FORMAT:, ENTRY:, WORKDIR: and ENV: NAME=VALUE
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any, Final

from roadstead.images.model import ImageConfig

_SUFFIX: Final = ".squashfs"
_MOST: Final = 1 << 20


def described(path: str, config: ImageConfig) -> ImageConfig:
    """``config``, with what is said beside the file at ``path``; as it is where nothing is."""
    stem, suffix = os.path.splitext(path)
    if suffix != _SUFFIX:
        return config
    try:
        with open(f"{stem}.meta", encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST)
    except OSError:
        return config
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):
        return _of_lines(text, config)
    return _of_document(known, config) if isinstance(known, dict) else config


def _of_document(known: dict[str, Any], config: ImageConfig) -> ImageConfig:
    env = known.get("Env")
    pairs = [f"{k}={v}" for k, v in env.items()] if isinstance(env, dict) else _words(env)
    return replace(
        config,
        entrypoint=tuple(_words(known.get("Entrypoint"))) or config.entrypoint,
        cmd=tuple(_words(known.get("Cmd"))) or config.cmd,
        workdir=str(known.get("WorkingDir") or "") or config.workdir,
        env=tuple(pairs) or config.env,
    )


def _of_lines(text: str, config: ImageConfig) -> ImageConfig:
    env: list[str] = []
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        if colon and key == "ENV":
            env.append(value)
        elif colon:
            found[key] = value
    entry = found.get("ENTRY", "")
    return replace(
        config,
        entrypoint=_entry(entry) or config.entrypoint,
        workdir=found.get("WORKDIR", "") or config.workdir,
        env=tuple(env) or config.env,
    )


def _entry(text: str) -> tuple[str, ...]:
    """A list as Python prints it, or words."""
    if text.startswith("[") and text.endswith("]"):
        words = [each.strip() for each in text[1:-1].split(", ") if each.strip()]
        return tuple(each.removeprefix("u").strip("'\"") for each in words)
    return tuple(text.split())


def _words(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
