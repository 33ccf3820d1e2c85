"""Connections to Redis servers, by redis-py, and which server is the one to talk to.

Only the lowest layer of redis-py is used, `Connection`: connecting with TLS and login, and the parser (hiredis's where
that is installed). Its clients and pools hand a connection from command to command, and what is cancelled between a
command and its answer costs them the connection, or hands the answer to the next one. Here one task alone reads a
connection and one alone writes it, for as long as it lives; what is cancelled is the caller's wait, above.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError as RedisLoginError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aiopg._core.frames import Buffer
from aiopg.errors import AuthenticationError, StoreUnreachableError, UsageError
from aiopg.stores.redis._address import Host, RedisAddress

T = TypeVar("T")

__all__ = ["BROKEN", "Dialer", "Wire", "ask", "said", "send"]

Wire: TypeAlias = Any
"""A `redis.asyncio.Connection`; Any, as redis-py is an extra."""

BROKEN = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError, EOFError)
"""What a connection raises that is over, or was not made. `StoreUnreachableError` is an `OSError` too, and is raised
where to wait does not help."""

CONNECT_SECONDS = 5.0
"""What one attempt may take."""

LEAST_VERSION = (6, 2)


class Dialer:
    """Makes connections to the servers of one URL."""

    def __init__(self, address: RedisAddress, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self._tls = tls
        self._sentinels = address.hosts
        self.functions: bool | None = None
        """Whether the servers have functions; None until one was asked."""
        self.durable = False
        """Whether what they acknowledge is on their disk."""

    async def open(self, host: Host | None) -> Wire:
        """A connection to the server there, logged in. Raises one of `BROKEN`, `AuthenticationError`, `UsageError`."""
        address = self.address
        wire = self._make(host, address.db, address.username, address.password)
        return await self._connected(wire)

    async def find_primary(self) -> Host | None:
        """Whom to talk to: of a sentinel's service the primary of now. Raises as `open`.

        The sentinels are asked in turn: one that is out of touch with the others names a primary that is none any more.
        """
        address = self.address
        if address.kind == "unix":
            return None
        if address.kind == "single":
            return address.hosts[0]
        hosts = self._sentinels
        self._sentinels = (*hosts[1:], *hosts[:1])
        return await self._of_any(self._primary_of, list(hosts))

    async def find_slots(self, known: list[Host]) -> dict[int, Host]:
        """Of a cluster, which node serves which slot, by the first of these nodes that tells. Raises as `open`."""
        return await self._of_any(self._slots_of, [*known, *self.address.hosts])

    async def examine(self, wire: Wire) -> None:
        """Whether a server will do. Raises `UsageError` if not, one of `BROKEN` if not now."""
        info = _fields(await ask(wire, b"INFO"))
        version = tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2])
        if version < LEAST_VERSION:
            raise UsageError(f"{self.address} is Redis {info.get('redis_version')}; aiopg needs 6.2 or newer")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and info.get("maxmemory", "0") != "0":
            raise UsageError(
                f"{self.address} throws data away when its memory is full (maxmemory-policy {policy}), also what "
                "groups still need; set maxmemory-policy to noeviction"
            )
        if self.address.kind != "cluster" and (await ask(wire, b"ROLE"))[0] != b"master":
            raise RedisConnectionError("it is a replica now, and no primary")
        self.functions = version >= (7, 0)
        self.durable = info.get("aof_enabled") == "1" and await _syncs_always(wire)

    # --------------------------------------------------------------------------------------------------- inside

    async def _of_any(self, question: Callable[[Host], Awaitable[T]], hosts: list[Host]) -> T:
        """What the first of these hosts says that says something."""
        met: Exception = RedisConnectionError("no host")
        for host in dict.fromkeys(hosts):
            try:
                return await question(host)
            except StoreUnreachableError:
                raise
            except BROKEN as error:
                met = error
        raise met

    async def _primary_of(self, host: Host) -> Host:
        wire = await self._connected(self._make(host, 0, "", ""))
        try:
            found = await ask(wire, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.address.service.encode())
        finally:
            await wire.disconnect(nowait=True)
        if not found:
            raise RedisConnectionError(f"the sentinel at {host[0]}:{host[1]} knows no {self.address.service!r}")
        return found[0].decode(), int(found[1])

    async def _slots_of(self, host: Host) -> dict[int, Host]:
        wire = await self.open(host)
        try:
            told = await ask(wire, b"CLUSTER", b"SLOTS")
        except ResponseError as error:
            raise UsageError(f"{host[0]}:{host[1]} is no node of a Redis Cluster: {error}") from error
        finally:
            await wire.disconnect(nowait=True)
        slots: dict[int, Host] = {}
        for first, last, node, *_ in told:
            where = (node[0].decode() if node[0] else host[0], int(node[1]))
            slots.update(dict.fromkeys(range(first, last + 1), where))
        return slots

    def _make(self, host: Host | None, db: int, username: str, password: str) -> Wire:
        options: dict[str, Any] = {
            "db": db,
            "username": username or None,
            "password": password or None,
            "protocol": 2,  # a subscribed connection of its own: one that also carried payloads would be cut for them
            "socket_timeout": None,  # one task reads it for as long as it lives
            "socket_connect_timeout": CONNECT_SECONDS,
        }
        if host is None:
            return UnixDomainSocketConnection(path=self.address.path, **options)
        if self._tls is None:
            return Connection(host=host[0], port=host[1], **options)
        wire = SSLConnection(host=host[0], port=host[1], **options)
        wire.ssl_context.context = self._tls
        return wire

    async def _connected(self, wire: Wire) -> Wire:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await wire.connect()
        except RedisLoginError as error:
            raise AuthenticationError(str(self.address), str(error)) from error
        except ResponseError as error:
            raise UsageError(f"{self.address} refuses the connection: {error}") from error
        except RedisConnectionError as error:
            met = error.__cause__ or error.__context__
            if isinstance(met, ssl.SSLCertVerificationError):  # to wait does not help
                raise StoreUnreachableError(str(self.address), str(met)) from error
            raise
        except BaseException:
            await wire.disconnect(nowait=True)
            raise
        return wire


async def ask(wire: Wire, *command: bytes) -> Any:
    """The answer to a command on a connection that nobody else uses yet."""
    await send(wire, wire.pack_command(*command))
    return await wire.read_response()


async def send(wire: Wire, data: bytes | Sequence[Buffer]) -> None:
    """Write to a connection. Raises one of `BROKEN`."""
    if not wire.is_connected:  # it would connect by itself, and nobody would read it
        raise RedisConnectionError("the connection is closed")
    try:
        await wire.send_packed_command(data, check_health=False)
    except RuntimeError as error:  # uvloop's word for a transport that is closed
        raise RedisConnectionError(str(error)) from error


async def _syncs_always(wire: Wire) -> bool:
    try:
        return b"always" in await ask(wire, b"CONFIG", b"GET", b"appendfsync")
    except ResponseError:  # it is not for everybody to ask: then nothing is promised
        return False


def said(error: BaseException) -> str:
    """What a server or the system said, in one line."""
    if isinstance(error, RedisError) and getattr(error, "status_code", None):
        return f"{error.status_code} {error}"
    return str(error) or type(error).__name__


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
