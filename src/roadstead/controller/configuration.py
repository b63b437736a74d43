"""Which roadstead.conf is in force, and what it makes of this machine; which plugins hear of the
engine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from roadstead.controller import machine
from roadstead.core import siteconf
from roadstead.core.site import Site
from roadstead.core.siteconf import SiteConf
from roadstead.errors import ConfigError, EngineError
from roadstead.host import paths


def load(environ: Mapping[str, str]) -> SiteConf:
    """The site as configured, or one node and one partition.  Raises ConfigError, EngineError."""
    path = paths.site_conf(environ)
    here, login = machine.node(), machine.login(environ)
    if not path:
        return SiteConf(site=Site.of(here, os.getuid(), login))
    try:
        text = _read(path)
    except OSError as failure:
        raise ConfigError(
            f"cannot be read: {(failure.strerror or str(failure)).lower()}",
            path=path,
            hint="make it readable, or set ROADSTEAD_CONF=none",
        ) from None
    return siteconf.parse(text, path, _read, machine=here, uid=os.getuid(), login=login)


def plugstack(environ: Mapping[str, str]) -> str:
    """The plugins that are to hear of this engine; commands say what is wrong with it."""
    try:
        return paths.plugstack(environ)
    except EngineError:
        return ""


def tell_plugins(path: str, point: str) -> None:
    """Call them, in a process of its own."""
    from roadstead.plugins import alone

    alone.call_alone(path, point, {}, {})


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()
