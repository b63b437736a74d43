"""``docker-daemon:`` and ``containers-storage:``: an image that Docker or Podman and Buildah have.

Their own program saves it, where it is installed: docker knows which daemon is meant ($DOCKER_HOST,
contexts), and the storage of an ordinary user can only be read in the user namespace that podman or
buildah makes.  Else skopeo reads it.  A layer that is in the store is not unpacked again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from roadstead.errors import BundleError, ImageError
from roadstead.host import program
from roadstead.images import dockerarchive, exported, layout, registry
from roadstead.images.model import Record
from roadstead.images.reference import Reference
from roadstead.images.resolve import Context
from roadstead.images.store import Store

_PROGRAMS: Final = {"docker-daemon": ("docker",), "containers-storage": ("podman", "buildah")}
_UNKNOWN: Final = ("o such image", "not known", "does not exist", "not find")


def import_(reference: Reference, store: Store, context: Context) -> Record:
    """Bring the image into the store.  Raises ImageError."""
    name = reference.text.partition(":")[2]
    found = next(filter(program.find, _PROGRAMS[reference.transport]), None)
    if found is None or name.startswith("["):  # a storage that is named: skopeo's alone
        return registry.import_(reference, store, context)
    with store.work() as work:
        context.progress(f"{found} saves {name}", 0, 0)
        try:
            transport = exported.save(found, name, f"{work}/saved")
        except BundleError as error:
            unknown = any(sign in str(error) for sign in _UNKNOWN)
            hint = f"{found} pull {name}" if unknown else error.hint
            raise ImageError(f"{reference.text}: {error}", hint=hint) from None
        saved = Reference(reference.text, transport, path=f"{work}/saved")
        source = dockerarchive if transport == "docker-archive" else layout
        record: Record = source.import_(saved, store, context)
        return replace(record, reference=str(reference))
