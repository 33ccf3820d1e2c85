"""The road to a store: a connection, and a protocol on it."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, TypeVar

from aiopg.address import Address
from aiopg.liveness import keep_alive, limit_unanswered
from aiopg.processes import is_stranger
from aiopg.tls import SHUTDOWN_SECONDS

__all__ = ["Road", "take_road", "take_shortcut"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Road(Protocol):
    """How a client gets a connection: `take_road`, or that of a simulated network."""

    async def __call__(self, address: Address, protocol: Callable[[], P]) -> P:
        """Connect, and give the connection to a new protocol. Raises `OSError`."""


async def take_road(address: Address, protocol: Callable[[], P], tls: ssl.SSLContext | None = None) -> P:
    """Connect to `address`, and give the connection to a new protocol. Cancelling leaves no connection behind.

    Every address of a name is tried, in the resolver's order. The kernel is asked to tell when the other host is gone
    (`liveness`). With `tls` it is encrypted, but on a unix socket. Raises `OSError`, `socket.gaierror` and
    `ssl.SSLError` included.
    """
    # The loop makes the socket. One that is handed to uvloop (sock=) and then lost or cancelled before
    # create_connection returns has its descriptor closed and stays open as an object, which would close another's.
    loop = asyncio.get_running_loop()
    if address.path:
        _, made = await loop.create_unix_connection(protocol, address.path)
        return made
    last: OSError | None = None
    for _, _, _, _, target in await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        host = str(target[0])
        if len(target) == 4 and target[3]:
            host += f"%{target[3]}"  # a link-local address means something on its own link only
        try:
            transport, made = await loop.create_connection(
                protocol,
                host,
                address.port,
                ssl=tls,
                server_hostname=address.host if tls is not None else None,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS if tls is not None else None,
            )
        except ssl.SSLError:
            raise  # somebody is there, and the other addresses of the name are no better
        except ConnectionError as error:
            # Without a number it was not the kernel that refused: somebody is there who wants no such handshake.
            last = error if error.errno or tls is None else ConnectionError("the other end ended the TLS handshake")
            continue
        except OSError as error:
            last = error
            continue
        _ask_the_kernel(transport)
        return made
    assert last is not None
    raise last


async def take_shortcut(name: bytes, protocol: Callable[[], P]) -> P:
    """Connect to a unix socket by its name in Linux' abstract namespace, and give the connection to a new protocol.

    Cancelling leaves no connection behind. Raises `OSError`, `PermissionError` where another user listens there.
    """
    loop = asyncio.get_running_loop()
    # Made here, as uvloop hands names to C, where they end at the first NUL.
    sock = _call(name)
    # uvloop closes the descriptor of a connection that it loses before it has the object too: see take_road.
    loses = not isinstance(loop, asyncio.BaseEventLoop)
    try:
        transport, made = await loop.create_unix_connection(protocol, sock=sock)
    except BaseException:
        if loses:
            sock.detach()
        raise
    if loses and transport.is_closing():
        sock.detach()
    return made


def _call(name: bytes) -> socket.socket:
    """A non-blocking socket that is connected there. Raises as `take_shortcut` does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # At once or never: EAGAIN says that too many wait there, and loop.sock_connect would take it for progress.
        sock.connect(name)
        if is_stranger(sock):
            raise PermissionError(errno.EPERM, "another user listens there")
    except BaseException:
        sock.close()
        raise
    return sock


def _ask_the_kernel(transport: asyncio.Transport) -> None:
    """Set the options of a client's connection. Raises `ConnectionRefusedError` for one that leads to itself."""
    if transport.is_closing():
        return  # lost already, and its protocol knows
    if transport.get_extra_info("sockname") == transport.get_extra_info("peername"):
        # TCP lets a socket connect to itself when its own port was drawn as the one it calls.
        transport.abort()
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
    sock = transport.get_extra_info("socket")
    keep_alive(sock)
    limit_unanswered(sock)
