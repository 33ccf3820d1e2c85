"""Finding a store: resolve, connect, shake hands; again until the deadline while it may still be coming up."""

from __future__ import annotations

import asyncio
import errno
import math
import random
import secrets
import socket
from typing import Any

from aiopg._core.limits import Limits
from aiopg.address import Address
from aiopg.client._client import Client
from aiopg.errors import ProtocolError, StoreUnreachableError

__all__ = ["dial", "dial_once"]

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
"""Seconds between attempts, doubling, each drawn at random up to this: a thousand ranks do not come in step."""

NOT_YET = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOENT, errno.EPIPE, errno.EAGAIN})
"""Nobody serves there now; somebody may a moment later. Everything else (no route, no such host) is final."""


async def dial(address: Address, deadline: float) -> Client:
    """An open session with the store at `address`; waits for it to come up until `deadline` (loop time).

    Raises:
        StoreUnreachableError: at once where no waiting helps: unknown host, no route, something that is no store.
        TimeoutError: it was not up by the deadline; the text says what the last attempt met.
    """
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE
    while True:
        try:
            return await dial_once(address, deadline)
        except StoreUnreachableError:
            raise
        except ConnectionError as error:
            # The whole handshake is one unit: whatever broke it, it begins anew.
            wait = random.uniform(pause / 2, pause)
            if loop.time() + wait >= deadline:
                await asyncio.sleep(deadline - loop.time())
                raise TimeoutError(f"it did not come up in time ({error})") from error
        await asyncio.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE)


async def dial_once(address: Address, deadline: float) -> Client:
    """One attempt.

    Raises:
        StoreUnreachableError: final, see `dial`.
        ConnectionError: nobody serves there now.
        TimeoutError: whoever is there had not answered by the deadline.
    """
    name = str(address)
    try:
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            sock = await _connect(address)
            return await _shake_hands(sock, address)
    except TimeoutError as error:
        raise TimeoutError("no answer in time") from error
    except ProtocolError as error:
        raise StoreUnreachableError(name, error.reason) from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise ConnectionError(f"the host name does not resolve yet: {error}") from error
        raise StoreUnreachableError(name, f"the host name does not resolve: {error.strerror}") from error
    except OSError as error:
        if error.errno in NOT_YET or (isinstance(error, ConnectionError) and error.errno is None):
            raise ConnectionError(str(error)) from error
        raise StoreUnreachableError(name, str(error)) from error


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
            await loop.sock_connect(sock, target)
            if not address.path:
                # asyncio does this only for sockets that were made with proto=IPPROTO_TCP.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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


async def _shake_hands(sock: socket.socket, address: Address) -> Client:
    loop = asyncio.get_running_loop()
    connect = loop.create_unix_connection if address.path else loop.create_connection
    try:
        _, client = await connect(lambda: Client(Limits(), address, secrets.token_bytes(32)), sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        await client.open()
    except BaseException:
        client.cut("the handshake was not finished")
        raise
    return client
