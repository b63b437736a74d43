"""``--image`` and ``--volume`` of Shifter's plugin for Slurm, and ``srun shifter COMMAND``.

With Shifter the two options of a job say in which image those of its steps run that call
``shifter``; a batch script and other steps are on the node.  So for sbatch and salloc they become
variables, which srun reads where its command's first word is ``shifter``.  Given to srun itself
they are about its own command, with that word or without.  A real shifter(1) on PATH is left alone.
"""

from __future__ import annotations

import os

from roadstead.core import shifter
from roadstead.errors import RequestError, UsageError
from roadstead.host import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_VARIABLES: Final = {  # as SPANK names what was given to plugins
    "image": "SLURM_SPANK_SHIFTER_IMAGE",
    "volume": "SLURM_SPANK_SHIFTER_VOLUME",
}


def apply(command: str, options: dict[str, str], operands: list[str]) -> list[str]:
    """Change ``options`` to what they mean; the command that is to be run.  Raises UsageError,
    RequestError."""
    given = {name: options.pop(name) for name in _VARIABLES if name in options}
    image = shifter.reference(given["image"]) if "image" in given else ""
    mounts = [shifter.mounts(given["volume"])] if "volume" in given else []
    if command != "srun":
        if not image:
            raise UsageError("--volume needs --image", hint="or write --container-mounts")
        os.environ.update({_VARIABLES[name]: value for name, value in given.items()})
        return operands
    if operands[:1] == [shifter.WORD] and not process.which(
        shifter.WORD, os.environ.get("PATH", os.defpath)
    ):
        asked, operands = shifter.taken_apart(operands)
        image, mounts = _with_words(options, asked, image, mounts)
        if not image:
            raise RequestError("shifter: no image", hint="srun --image=NAME shifter command …")
    elif not image and mounts:
        raise UsageError("--volume needs --image", hint="or write --container-mounts")
    if image:
        if options.keys() & {"container", "container-image", "environment"}:
            raise RequestError("--container and --image are given", hint="leave one out")
        options["container"] = image
    if mounts:
        also = [options["container-mounts"]] if "container-mounts" in options else []
        options["container-mounts"] = ",".join([*mounts, *also])
    return operands


def _with_words(
    options: dict[str, str], asked: dict[str, list[str]], image: str, mounts: list[str]
) -> tuple[str, list[str]]:
    """The image and the mounts of ``shifter …``, over srun's, over the job's."""
    environ = os.environ
    if "--image" in asked:
        image = shifter.reference(asked["--image"][-1])
    elif not image and environ.get(_VARIABLES["image"]):
        image = shifter.reference(environ[_VARIABLES["image"]])
    if not mounts and environ.get(_VARIABLES["volume"]):
        mounts = [shifter.mounts(environ[_VARIABLES["volume"]])]
    mounts = [*mounts, *(shifter.mounts(each) for each in asked.get("--volume", []))]
    if "--workdir" in asked:
        options["container-workdir"] = asked["--workdir"][-1]
    for each in asked.get("--env", []):
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise UsageError(f"shifter: --env={each}: not a variable", hint="--env=NAME=VALUE")
        environ[name] = value
    return image, mounts
