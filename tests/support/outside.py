"""What is beyond a container's own network: a server on an address of the machine's that is not its
loopback's, and a tun device by which to get there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.account import Account, Completed
from tests.support.components import address
from tests.support.engine import Engine

# A tun device that a user may open, as many machines have it; whoever runs it is root, and becomes
# the user.
_OPEN_TUN = (
    "mount -t tmpfs none /mnt && mknod /mnt/tun c 10 200 && chmod 666 /mnt/tun && "
    'mount --bind /mnt/tun /dev/net/tun && exec setpriv --reuid={0} --regid={1} --init-groups "$@"'
)


def run(engine: Engine, argv: list[str], env: dict[str, str] | None = None) -> Completed:
    """Run a command as the engine's user, where the tun device is open to all.

    Needs root, and the component ``tun``.
    """
    account = engine.account
    become = _OPEN_TUN.format(account.uid, account.gid)
    with engine.mark.inherited() as marks:
        return Account.current().run(
            ["unshare", "--mount", "sh", "-c", become, "sh", *argv],
            env={**engine.variables, **marks, "USER": account.name, **(env or {})},
            cwd=engine.work,
        )


@contextmanager
def greeter() -> Iterator[tuple[str, int]]:
    """Says hello to whoever comes: an address of this machine, and a port."""
    with socket.create_server((address(), 0)) as found:
        thread = threading.Thread(target=_greet, args=(found,))
        thread.start()
        try:
            yield found.getsockname()
        finally:
            found.shutdown(socket.SHUT_RDWR)
            thread.join()


def _greet(found: socket.socket) -> None:
    """Until nobody can come any more."""
    while True:
        try:
            client, _ = found.accept()
        except OSError:
            return
        with client:
            client.sendall(b"hello\n")
