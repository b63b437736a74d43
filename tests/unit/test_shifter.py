"""What Shifter's options and its word mean here, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest

from roadstead.core import shifter
from roadstead.errors import UsageError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ubuntu:22.04", "shifter:docker:ubuntu:22.04"),
        ("docker:library/ubuntu", "shifter:docker:library/ubuntu"),
        ("docker:r.example.org:5000/a/b:1", "shifter:docker:r.example.org:5000/a/b:1"),
        ("custom:mine", "shifter:custom:mine"),
        ("id:abc123", "shifter:id:abc123"),
    ],
)
def test_an_image(text: str, meant: str) -> None:
    assert shifter.reference(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--image: no image"),
        ("docker:", "not an image's name"),
        ("a b", "not an image's name"),
        ("-x", "not an image's name"),
        ("docker:/etc", "not an image's name"),
        ("docker:../../x", "not an image's name"),
        ("box:", "no tag after the colon"),
        ("local:/srv/root", "a directory is no image"),
    ],
)
def test_no_image(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        shifter.reference(text)
    assert caught.value.hint


def test_volumes() -> None:
    assert shifter.mounts("/a:/b") == "/a:/b"
    assert shifter.mounts("/a:/b:ro;/c:/d:rec:slave") == "/a:/b:ro,/c:/d:rbind+rslave"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/a", "what is empty is no absolute path"),
        ("a:/b", "a is no absolute path"),
        ("/a:b", "b is no absolute path"),
        ("/a:/b;", "no absolute path"),
        ("/a:/b:perNodeCache=size=1G", "'perNodeCache=size=1G' is not honoured"),
    ],
)
def test_no_volume(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        shifter.mounts(text)
    assert caught.value.hint


def test_the_word() -> None:
    line = [
        "shifter",
        "-i",
        "box:1",
        "--volume=/a:/b",
        "-e",
        "X=1",
        "-w",
        "/w",
        "--",
        "app",
        "--image=no",
    ]
    asked, command = shifter.taken_apart(line)
    assert asked == {
        "--image": ["box:1"], "--volume": ["/a:/b"], "--env": ["X=1"], "--workdir": ["/w"]
    }  # fmt: skip
    assert command == ["app", "--image=no"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shifter", "no command"),
        ("shifter --image=box", "no command"),
        ("shifter --image", "--image needs a value"),
        ("shifter --entrypoint app", "--entrypoint is not honoured"),
    ],
)
def test_a_wrong_word(line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        shifter.taken_apart(line.split())
    assert caught.value.hint
