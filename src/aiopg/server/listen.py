"""Binding a store's listening socket."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from aiopg.address import Address
from aiopg.errors import AddressInUseError, StoreUnreachableError
from aiopg.server._exposure import keep_private

__all__ = ["BACKLOG", "address_of", "bind", "bind_name"]

BACKLOG = 4096
"""Connections the kernel completes before they are accepted. With asyncio's default of 100 a burst of a thousand
ranks leaves some of them hanging with no error."""


async def bind(address: Address) -> socket.socket:
    """A non-blocking listening socket on exactly this address; port 0 lets the kernel choose.

    Raises:
        AddressInUseError: somebody listens there already (`__cause__` is the OSError).
        StoreUnreachableError: the name does not resolve, or is not an address of this host.
    """
    if address.path:
        return _listen(socket.AF_UNIX, address.path, str(address))
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StoreUnreachableError(str(address), f"the host name does not resolve: {error}") from error
    # One socket, on the first address: IPv4 before IPv6, as clients that know only one of them expect.
    family, _, _, _, target = sorted(found, key=lambda info: info[0] != socket.AF_INET)[0]
    return _listen(family, target, str(address))


def _listen(family: int, target: object, name: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX and os.name == "posix":
            # A port whose last connections are in TIME_WAIT can be bound again; two listeners still cannot share it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)  # type: ignore[arg-type]
        if family == socket.AF_UNIX:
            keep_private(str(target))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            what = "a socket file is there already" if family == socket.AF_UNIX else "another program listens there"
            raise AddressInUseError(name, what) from error
        raise StoreUnreachableError(name, f"cannot listen there: {error.strerror or error}") from error
    return sock


def bind_name(name: bytes) -> socket.socket:
    """A non-blocking listening unix socket by this name in Linux' abstract namespace. Raises `OSError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(name)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket) -> Address:
    """Where a listening socket listens."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return Address(path=name)
    return Address(name[0], name[1])
