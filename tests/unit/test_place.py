"""A supervisor's process is used again only if it is what it was."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from roadstead.host import fork
from roadstead.oci import config
from roadstead.oci.bundle import Bundle
from roadstead.oci.idmap import IdMap
from roadstead.step.place import Place


def _as_it_was() -> None:
    place = Place.of_this_process()
    os.umask(0o777)
    os.chdir("/tmp")
    assert place.restored()
    assert os.umask(0) == place.umask
    assert os.getcwd() == "/"


def _a_descriptor_more() -> None:
    place = Place.of_this_process()
    os.dup(0)
    assert not place.restored()


def _a_child_more() -> None:
    place = Place.of_this_process()
    child = fork.run_in_child(lambda: None)
    assert not place.restored()
    os.waitpid(child, 0)


@pytest.mark.parametrize("body", [_as_it_was, _a_descriptor_more, _a_child_more])
def test_restored(body: Callable[[], None]) -> None:
    _, status = os.waitpid(fork.run_in_child(body), 0)
    assert status == 0


def test_a_user_namespace_that_is_there_has_its_mappings() -> None:
    bundle = Bundle("/b", {"root": {"path": "rootfs"}}, "/b/rootfs")
    one = IdMap(((0, 1000, 1),), 0)
    change = config.Change(
        rootfs="/b/rootfs",
        args=("true",),
        env={},
        uids=one,
        gids=one,
        user_namespace="/proc/7/fd/3",
    )
    written, _ = config.rewrite(bundle, change)
    assert written["linux"]["namespaces"][0] == {"type": "user", "path": "/proc/7/fd/3"}
    assert "uidMappings" not in written["linux"]
    assert "gidMappings" not in written["linux"]
