"""Which ``oci.conf`` is read: the first that exists.

1. ``$ROADSTEAD_OCI_CONF``.  ``none``, or nothing, means: read no file, use the built-in patterns.
2. the user's, ``$XDG_CONFIG_HOME/roadstead/oci.conf`` or ``~/.config/roadstead/oci.conf``
3. the site's, ``/etc/roadstead/oci.conf``
4. Slurm's own, beside ``slurm.conf``: in the directory of ``$SLURM_CONF``, else ``/etc/slurm``

Slurm takes any failure of stat(2) for absence and then runs the job on the host.  Here a file that
was named outright must be readable, and one that is there must be usable; a directory that we
may not look into holds no file for us.  Which environment counts is the caller's to say.
"""

from __future__ import annotations

import os

from roadstead.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from roadstead.oci.conf import OciConf

VARIABLE = "ROADSTEAD_OCI_CONF"
NONE = "none"


def find(environ: Mapping[str, str], *, root: str = "/", slurms: bool = True) -> str | None:
    """The absolute path of the file to read, or None.  ``root`` is where /etc is looked for;
    without ``slurms`` Slurm's own file is not: it is for slurmstepd, which calls us."""
    named = environ.get(VARIABLE)
    if named is None:
        return next(
            (path for path in _candidates(environ, root, slurms) if os.path.exists(path)), None
        )
    if named in ("", NONE):
        return None
    path = os.path.abspath(named)
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise ConfigError(
            f"${VARIABLE} does not name a readable file",
            path=path,
            hint=f"set it to a readable oci.conf, unset it, or set it to {NONE}",
        )
    return path


def load(path: str) -> OciConf:
    """Read and check the file at ``path``."""
    try:
        text = _read(path)
    except OSError as failure:
        raise ConfigError(
            f"cannot be read: {(failure.strerror or str(failure)).lower()}",
            path=path,
            hint=f"make it readable, or set {VARIABLE}={NONE} to use the built-in patterns",
        ) from None
    from roadstead.oci.conf import parse  # clients look whether there is a file, mostly in vain

    return parse(text, path, _read)


def configured(environ: Mapping[str, str], *, root: str = "/") -> OciConf | None:
    """The configuration in force, or None when there is no file: the built-in patterns apply."""
    path = find(environ, root=root)
    return None if path is None else load(path)


def _candidates(environ: Mapping[str, str], root: str, slurms: bool) -> Iterator[str]:
    config, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(config):  # the XDG specification: a relative value is to be ignored
        yield os.path.join(config, "roadstead", "oci.conf")
    elif os.path.isabs(home):
        yield os.path.join(home, ".config", "roadstead", "oci.conf")
    yield os.path.join(root, "etc", "roadstead", "oci.conf")
    if not slurms:
        return
    slurm_conf = environ.get("SLURM_CONF") or os.path.join(root, "etc", "slurm", "slurm.conf")
    yield os.path.join(os.path.dirname(os.path.abspath(slurm_conf)), "oci.conf")


def _read(path: str) -> str:
    # A path or an argument may hold any byte; what is not UTF-8 survives to execve(2) this way.
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()
