"""Which oci.conf is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roadstead.errors import ConfigError
from roadstead.oci.search import configured, find, load

RUN = 'RunTimeRun="%s"\nRunTimeKill="k"\nRunTimeDelete="d"\n'


def write(path: Path, command: str = "r") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(RUN % command, encoding="utf-8")
    return str(path)


def test_each_place_comes_before_those_after_it(tmp_path):
    root = str(tmp_path)
    environ = {"HOME": f"{root}/home", "SLURM_CONF": f"{root}/cluster/slurm.conf"}
    xdg = environ | {"XDG_CONFIG_HOME": f"{root}/xdg"}
    write(tmp_path / "etc/slurm/oci.conf")
    assert find(environ, root=root) is None
    slurm = write(tmp_path / "cluster/oci.conf")
    assert find(environ, root=root) == slurm
    site = write(tmp_path / "etc/roadstead/oci.conf")
    assert find(environ, root=root) == site
    home = write(tmp_path / "home/.config/roadstead/oci.conf")
    assert [find(environ, root=root), find(xdg, root=root)] == [home, site]
    user = write(tmp_path / "xdg/roadstead/oci.conf")
    assert find(xdg, root=root) == user
    named = write(tmp_path / "mine")
    assert find(xdg | {"ROADSTEAD_OCI_CONF": named}, root=root) == named


@pytest.mark.parametrize("environ", [{}, {"SLURM_CONF": ""}])
def test_slurm_s_own_directory_counts_where_slurm_conf_names_no_other(tmp_path, environ):
    path = write(tmp_path / "etc/slurm/oci.conf")
    assert find(environ, root=str(tmp_path)) == path


@pytest.mark.parametrize("value", ["", "none"])
def test_none_means_the_built_in_patterns_whatever_files_there_are(tmp_path, value):
    write(tmp_path / "etc/roadstead/oci.conf")
    assert configured({}, root=str(tmp_path)) is not None
    assert configured({"ROADSTEAD_OCI_CONF": value}, root=str(tmp_path)) is None


@pytest.mark.parametrize("name", ["gone", "."])
def test_a_named_file_that_is_not_one_is_an_error_not_ignored(tmp_path, name):
    write(tmp_path / "etc/roadstead/oci.conf")
    environ = {"ROADSTEAD_OCI_CONF": str(tmp_path / name)}
    with pytest.raises(
        ConfigError, match=r"\$ROADSTEAD_OCI_CONF does not name a readable"
    ) as caught:
        find(environ, root=str(tmp_path))
    assert "set it to none" in caught.value.hint


def test_a_file_that_is_there_and_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "etc/roadstead/oci.conf").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read: is a directory") as caught:
        configured({}, root=str(tmp_path))
    assert "ROADSTEAD_OCI_CONF=none" in caught.value.hint


def test_relative_names_become_absolute_and_relative_xdg_directories_do_not_count(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "roadstead/oci.conf")
    environ = {"ROADSTEAD_OCI_CONF": "roadstead/oci.conf"}
    assert find(environ, root=str(tmp_path)) == path
    assert find({"XDG_CONFIG_HOME": "."}, root=str(tmp_path)) is None


def test_load_reads_what_the_file_includes_and_keeps_every_byte(tmp_path):
    path = write(tmp_path / "oci.conf")
    (tmp_path / "more.conf").write_bytes(b"RunTimeQuery=/caf\xe9\r\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write("include more.conf\n")
    found = load(path)
    assert found.source == path
    assert os.fsencode(found.runtime_query or "") == b"/caf\xe9"


def test_a_mistake_in_the_file_carries_its_path_and_line(tmp_path):
    path = write(tmp_path / "oci.conf", "%q")
    with pytest.raises(ConfigError) as caught:
        configured({"ROADSTEAD_OCI_CONF": path})
    assert (caught.value.path, caught.value.line) == (path, 1)
