"""References: every transport in its parts, and a sentence for what is not one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.errors import UsageError
from roadstead.images.reference import TRANSPORTS, parse

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("docker://debian", "docker://docker.io/library/debian:latest"),
        ("docker://a/b:1.2", "docker://docker.io/a/b:1.2"),
        ("docker://localhost:5000/b", "docker://localhost:5000/b:latest"),
        ("docker://r.example/x/y/z:v1", "docker://r.example/x/y/z:v1"),
        (f"docker://debian@{DIGEST}", f"docker://docker.io/library/debian@{DIGEST}"),
        ("docker-daemon:app", "docker-daemon:app:latest"),
        ("containers-storage:localhost/app:2", "containers-storage:localhost/app:2"),
        ("oci:layout", "oci:/w/layout"),
        ("oci:/x/../layout:tag", "oci:/layout:tag"),
        ("oci-archive:a.tar:v1", "oci-archive:/w/a.tar:v1"),
        ("docker-archive:a.tar", "docker-archive:/w/a.tar"),
        ("docker-archive:a.tar:app", "docker-archive:/w/a.tar:app:latest"),
        ("docker-archive:a.tar:h:1/app:2", "docker-archive:/w/a.tar:h:1/app:2"),
        ("dir:d:e", "dir:/w/d:e"),
        ("sif:x.sif", "sif:/w/x.sif"),
        ("sqsh:./x.sqsh", "sqsh:/w/x.sqsh"),
        ("tarball:../x.tar", "tarball:/x.tar"),
        ("./app.tar", "/w/app.tar"),
        ("unknown:thing", "/w/unknown:thing"),
    ],
)
def test_parsed(text: str, full: str) -> None:
    assert str(parse(text, "/w")) == full


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("docker:debian", "two slashes are missing"),
        ("docker://", "a name is missing"),
        ("docker://Debian", "lower case"),
        ("docker://debian:", "is not a tag"),
        ("docker://debian:-x", "is not a tag"),
        ("docker://debian@sha256:12", "is not a digest"),
        ("docker://a//b", "is not a name"),
        ("docker://a/../b", "is not a name"),
        ("docker://$(id)", "is not a name"),
        ("oci:", "a path is missing"),
        ("oci::x", "a path is missing"),
        ("sif:a\nb", "control character"),
        ("", "empty"),
    ],
)
def test_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, "/w")
    assert sentence in f"{caught.value} {caught.value.hint}"


@given(
    st.sampled_from(["", *(f"{each}:" for each in TRANSPORTS), "docker://", "oci:/x:"]), st.text()
)
def test_anything_is_parsed_or_refused(start: str, rest: str) -> None:
    try:
        reference = parse(start + rest, "/w")
    except UsageError:
        return
    assert not reference.path or reference.path.startswith("/")
    # What it means in full means the same.
    assert str(parse(str(reference), "/elsewhere")) == str(reference)
