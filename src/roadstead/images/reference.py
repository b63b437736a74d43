"""References: TRANSPORT:REST, with the names that containers/image gives the transports
(containers-transports(5)), and single files by their own.

    docker://HOST[:PORT]/NAME[:TAG][@DIGEST]    a registry
    docker-daemon:NAME[:TAG]                    the Docker daemon's images
    containers-storage:NAME[:TAG]               Podman's, Buildah's and CRI-O's images
    oci:DIR[:TAG]   oci-archive:FILE[:TAG]      an OCI layout, in a directory or in a tar file
    docker-archive:FILE[:NAME[:TAG]]            what `docker save` writes
    dir:DIR                                     what `skopeo copy … dir:` writes
    tarball:FILE                                a tar file of a root file system
    ch-image:  udocker:  enroot:  sarus:  shifter:   images of container systems (repositories.py)
    sif:FILE   sqsh:FILE                        Singularity's and Enroot's files

Whatever has none of these in front is a path.  Clients parse a reference at every start, so nothing
is imported here.  Pure.
"""

from __future__ import annotations

from roadstead.errors import UsageError

# transport → whether a path of this machine follows (else a name of an image).
TRANSPORTS: dict[str, bool] = {
    "docker": False,
    "docker-daemon": False,
    "containers-storage": False,
    "oci": True,
    "oci-archive": True,
    "docker-archive": True,
    "dir": True,
    "tarball": True,
    "ch-image": False,
    "udocker": False,
    "enroot": False,
    "sarus": False,
    "shifter": False,
    "sif": True,
    "sqsh": True,
}
# Names by which container systems have images: what follows is theirs to understand.
_OF_SYSTEMS = ("ch-image", "udocker", "enroot", "sarus", "shifter")
# What may follow the path, after a colon.
_WITH_TAG = ("oci", "oci-archive", "docker-archive")


class Reference:
    """A reference taken apart.

    ``transport`` is "" for a bare path.  ``path`` is absolute, for transports of files; ``name`` is
    an image's name without tag and digest, ``tag`` and ``digest`` are "" where not given.
    """

    __slots__ = ("digest", "name", "path", "tag", "text", "transport")

    def __init__(
        self,
        text: str,
        transport: str,
        *,
        path: str = "",
        name: str = "",
        tag: str = "",
        digest: str = "",
    ) -> None:
        self.text = text
        self.transport = transport
        self.path = path
        self.name = name
        self.tag = tag
        self.digest = digest

    def __str__(self) -> str:
        """The same in full, with the absolute path: equal for two that mean the same."""
        if not self.transport:
            return self.path
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        if self.transport == "docker":
            return f"docker://{self.name}{tag}{digest}"
        if self.path:
            name = f":{self.name}" if self.name else ""
            return f"{self.transport}:{self.path}{name}{tag}"
        return f"{self.transport}:{self.name}{tag}{digest}"


def transport_of(text: str) -> str:
    """The transport in front of ``text``, or ""."""
    before, colon, _ = text.partition(":")
    return before if colon and before in TRANSPORTS else ""


def parse(text: str, cwd: str) -> Reference:
    """Take ``text`` apart; relative paths are below ``cwd``.  Raises UsageError."""
    if "\0" in text or "\n" in text:
        raise UsageError(f"{text!a}: not an image reference: it has a control character")
    transport = transport_of(text)
    if not transport:
        if not text:
            raise UsageError("an empty image reference", hint="name a file, or docker://NAME")
        return Reference(text, "", path=_absolute(text, cwd))
    rest = text[len(transport) + 1 :]
    if transport == "docker":
        if not rest.startswith("//"):
            raise UsageError(
                f"{text}: two slashes are missing", hint=f"docker://{rest.lstrip('/')}"
            )
        rest = rest[2:]
    if not rest:
        what = "a path" if TRANSPORTS[transport] else "a name"
        raise UsageError(f"{text}: {what} is missing after {transport}:")
    if transport in _OF_SYSTEMS:
        return Reference(text, transport, name=rest)
    if not TRANSPORTS[transport]:
        return _named(text, transport, rest)
    path, tag = rest, ""
    if transport in _WITH_TAG:
        path, _, tag = rest.partition(":")
        if not path:
            raise UsageError(f"{text}: a path is missing after {transport}:")
    if transport == "docker-archive" and tag:
        name, tag, digest = _split(text, tag)
        return Reference(
            text,
            transport,
            path=_absolute(path, cwd),
            name=name,
            tag=tag or "latest",
            digest=digest,
        )
    return Reference(text, transport, path=_absolute(path, cwd), tag=tag)


def _named(text: str, transport: str, rest: str) -> Reference:
    name, tag, digest = _split(text, rest)
    if transport == "docker":
        name = _full(name)
    if not tag and not digest:
        tag = "latest"
    return Reference(text, transport, name=name, tag=tag, digest=digest)


def _split(text: str, rest: str) -> tuple[str, str, str]:
    """NAME[:TAG][@DIGEST] in its parts.  Raises UsageError for what no registry has."""
    name, at, digest = rest.partition("@")
    if at and not is_digest(digest):
        raise UsageError(
            f"{text}: {digest or 'nothing'} is not a digest",
            hint="sha256: and 64 hexadecimal digits",
        )
    tag = ""
    last = name.rpartition("/")[2]
    if ":" in last:
        name, _, tag = name.rpartition(":")
        if not _is_word(tag, 128, "_.-"):
            raise UsageError(f"{text}: {tag or 'nothing'} is not a tag")
    if not name:
        raise UsageError(f"{text}: a name is missing")
    parts = name.split("/")
    host = parts[0] if len(parts) > 1 and _is_host(parts[0]) else ""
    for part in parts[1:] if host else parts:
        if part != part.lower():
            raise UsageError(
                f"{text}: names of images are in lower case", hint=text.replace(name, name.lower())
            )
        if not _is_word(part, 255, "_.-"):
            raise UsageError(f"{text}: {part or 'nothing'} is not a name of an image")
    return name, tag, digest


def _full(name: str) -> str:
    """With the registry: a bare name is Docker Hub's, as it is for skopeo and docker."""
    first, slash, _ = name.partition("/")
    if slash and _is_host(first):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _is_host(part: str) -> bool:
    return part == "localhost" or "." in part or ":" in part


def _is_word(word: str, longest: int, others: str) -> bool:
    return (
        0 < len(word) <= longest
        and word.isascii()
        and word[0] not in ".-"
        and all(char.isalnum() or char in others for char in word)
    )


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest that we can check."""
    kind, _, digits = text.partition(":")
    return kind == "sha256" and len(digits) == 64 and all(c in "0123456789abcdef" for c in digits)


def _absolute(path: str, cwd: str) -> str:
    """Normalised by its letters alone: what is there is not looked at."""
    joined = path if path.startswith("/") else f"{cwd}/{path}"
    parts: list[str] = []
    for part in joined.split("/"):
        if part == "..":
            del parts[-1:]
        elif part and part != ".":
            parts.append(part)
    return "/" + "/".join(parts)
