"""A shortcut for members on the store's own host: from TCP to a unix socket, by themselves, while they shake hands.

Theory of operation. Between two processes of one host a unix socket is less work for the kernel than loopback TCP: a
barrier of 8 is about 20% faster. So a store that listens on TCP listens on a unix socket as well, in Linux'
abstract namespace (unix(7)): its names are no files, and they are gone with the process that has them. The name is made
of the store's epoch, which whoever is greeted by the store learns, and of its port. A member that is greeted on a
connection with both ends at one address calls that name and shakes hands there anew. Meanwhile the first connection
waits in its handshake: if the shortcut leads nowhere, it goes on as if nothing had been.

Why this is safe:

- It is found only by who called the store's own port, in the network namespace of the store, to which the name belongs
  too. A relay, a tunnel or a forwarded port listens at another port or in another namespace, so whoever put one in the
  way on purpose keeps it. (But for one at the same port of another address of the same host: that is passed by.)
- Both ends ask the kernel who is there (`processes.is_stranger`). A store puts other users out, as at `unix://`. A
  member goes to its own user and to root only: anybody can take a name in this namespace while its store is down, and
  would stand between the store that comes again and its members. Whoever is put out stays on TCP.
- With TLS there is none: encryption was asked for, and a login by token is bound to its channel.
- A login by token is made anew on the shortcut, and at once wrong where it was wrong on TCP.

Whatever cannot be told of a connection, as in a simulated network, means that there is no shortcut.
"""

from __future__ import annotations

import asyncio
import sys

__all__ = ["is_possible", "shortcut_from", "shortcut_to"]


def is_possible() -> bool:
    """Whether this system has an abstract namespace: on Linux."""
    return sys.platform == "linux"


def shortcut_to(epoch: bytes, port: int) -> bytes:
    """Name of the unix socket of the store with this epoch that listens on this TCP port."""
    return b"\0aiopg/%s/%d" % (epoch.hex().encode(), port)


def shortcut_from(transport: asyncio.BaseTransport, epoch: bytes) -> bytes | None:
    """The name to try for a client that was greeted with `epoch` on this connection; None if there is no shortcut."""
    here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    if not is_possible() or not isinstance(here, tuple) or not isinstance(there, tuple):
        return None
    if here[0] != there[0] or transport.get_extra_info("ssl_object") is not None:
        return None
    return shortcut_to(epoch, there[1])
