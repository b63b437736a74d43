"""Trials by SIGKILL on the image store: imports, removals and clean-ups are killed at any moment.

After each kill the store is looked at: whatever is in it is what was unpacked, to the last file;
the next import succeeds, and what comes out is the same as ever; and nothing of what was killed is
left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from roadstead.images import inventory
from roadstead.images.store import Store
from tests.support import layouts, leaks
from tests.support.components import ROOT
from tests.support.trials import Failure

# What is killed: an import (most of them), or what takes away.
_VERBS = (("pull",), ("pull",), ("pull",), ("gc", "--quota=0"), ("rm",))


def run(seed: int, numbers: Sequence[int], keep: bool) -> None:
    """These trials.  Raises Failure."""
    if not numbers:
        return
    base = Path(tempfile.mkdtemp(prefix=leaks.PREFIX))
    try:
        trial = _Trials(base, seed)
        for number in numbers:
            try:
                trial.run(number)
            except AssertionError as error:
                repeat = f"--kind image --seed {seed} --first {number} --count 1"
                raise Failure(f"trial {number}: {error}", repeat) from None
    finally:
        if not keep:
            leaks.remove(base)


class _Trials:
    def __init__(self, base: Path, seed: int) -> None:
        self._seed = seed
        self._layout = layouts.write(base / "layout", layouts.random_layers(seed, 4, 120, 20_000))
        other = layouts.random_layers(seed + 1, 1, 60, 20_000)
        first = layouts.random_layers(seed, 4, 120, 20_000)[:2]  # shared with the other image
        layouts.write(self._layout, [*first, *other], tag="other")
        self._store = base / "store"
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(base),
            "PYTHONPATH": os.fspath(ROOT / "src"),
            "ROADSTEAD_IMAGES": os.fspath(self._store),
        }
        began = time.monotonic()
        self._pull("latest")
        self._whole = time.monotonic() - began
        self._pull("other")
        self._expected = {tag: self._tree(tag) for tag in ("latest", "other")}

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "roadstead", "image", *words]

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            self._command(*words), env=self._env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"image {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _pull(self, tag: str) -> str:
        return self._run("pull", f"oci:{self._layout}:{tag}").strip()

    def run(self, number: int) -> None:
        generator = random.Random(f"{self._seed} {number}")
        verb = generator.choice(_VERBS)
        tag = generator.choice(["latest", "other"])
        if verb == ("pull",):
            if generator.random() < 0.8:
                shutil.rmtree(self._store, ignore_errors=True)
            verb = ("pull", f"oci:{self._layout}:{tag}")
        elif verb == ("rm",):
            verb = ("rm", self._pull(tag))
        self._kill(verb, generator)
        self._look()
        for each in ("latest", "other"):
            self._pull(each)
            assert self._tree(each) == self._expected[each], f"{each} is not what it was"
        self._run("gc")
        left = [*os.listdir(self._store / "work"), *os.listdir(self._store / "locks")]
        assert set(left) <= {"importing"}, f"left behind: {left}"
        assert "2 images are as unpacked" in self._run("verify")

    def _kill(self, verb: Sequence[str], generator: random.Random) -> None:
        """Kill the command, or one of the processes that unpack for it, at a moment of its life."""
        process = subprocess.Popen(
            self._command(*verb),
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(generator.random() * self._whole * 1.1)
        victim = process.pid
        if generator.random() < 0.3:
            children = _children(process.pid)
            victim = generator.choice(children) if children else victim
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        process.wait(timeout=60)

    def _look(self) -> None:
        """All that is believed is true."""
        if not self._store.exists():
            return
        store = Store(os.fspath(self._store))
        for digest, _ in store.images():
            store.load(digest)
        layers = self._store / "layers"
        for layer in layers.iterdir() if layers.exists() else ():
            wrong = inventory.differences(f"{layer}/root", f"{layer}/{inventory.NAME}")
            assert not wrong, f"layer {layer.name}: {wrong}"
            store.described(f"sha256:{layer.name}")

    def _tree(self, tag: str) -> str:
        """A digest of all that an image's layers hold."""
        store = Store(os.fspath(self._store))
        found = hashlib.sha256()
        for lower in store.load(self._pull(tag)).lowers:
            for top, folders, names in os.walk(lower):
                folders.sort()
                for name in sorted([*folders, *names]):
                    path = os.path.join(top, name)
                    seen = os.lstat(path)
                    found.update(f"{path[len(lower) :]} {seen.st_mode}".encode())
                    if stat.S_ISREG(seen.st_mode):  # directories without an entry have a new time
                        found.update(f"{seen.st_mtime}".encode())
                        found.update(Path(path).read_bytes())
        return found.hexdigest()


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
