"""The road to a store: a connected socket, and a protocol on it."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from aiopg.address import Address
from aiopg.liveness import keep_alive, limit_unanswered

__all__ = ["Road", "take_road"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Road(Protocol):
    """How a client gets a connection: `take_road`, or that of a simulated network."""

    async def __call__(self, address: Address, protocol: Callable[[], P]) -> P:
        """Connect, and give the connection to a new protocol. Raises `OSError`."""


async def take_road(address: Address, protocol: Callable[[], P]) -> P:
    """Connect to `address`, and give the connection to a new protocol.

    The kernel is asked to tell when the other host is gone (`liveness`). Raises `OSError`, `socket.gaierror` included.
    """
    loop = asyncio.get_running_loop()
    sock = await _connect(address)
    connect = loop.create_unix_connection if address.path else loop.create_connection
    try:
        _, made = await connect(protocol, sock=sock)
    except BaseException:
        sock.close()
        raise
    return made


async def _connect(address: Address) -> socket.socket:
    """A connected socket; tries every address of a name in the order given by the resolver."""
    loop = asyncio.get_running_loop()
    if address.path:
        targets: list[tuple[int, Any]] = [(socket.AF_UNIX, address.path)]
    else:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        targets = [(info[0], info[4]) for info in found]
    last: OSError | None = None
    for family, target in targets:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if not address.path:
                # asyncio does this only for sockets that were made with proto=IPPROTO_TCP.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                keep_alive(sock)
                limit_unanswered(sock)
            await loop.sock_connect(sock, target)
            if not address.path and sock.getsockname() == sock.getpeername():
                # TCP lets a socket connect to itself when its own port was drawn as the one it calls.
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
            return sock
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
    assert last is not None
    raise last
