"""A link to a store in etcd: its lease, and the rooms that it is in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self

from aiopg._core.recorder import HAPPENINGS_READ, Excerpt
from aiopg.errors import AiopgError, GroupClosedError, StoreLostError, StoreUnreachableError
from aiopg.stores._engine_link import EngineLink
from aiopg.stores._rooms import COMMON, Room, RoomName, Rooms, put_together
from aiopg.stores.base import Capabilities
from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._copy import read_copy
from aiopg.stores.etcd._errors import RefusedError
from aiopg.stores.etcd._layout import Layout
from aiopg.stores.etcd._lease import Lease
from aiopg.stores.etcd._messages import one
from aiopg.stores.etcd._premises import LIMITS, FencedError, Premises
from aiopg.stores.etcd._room import EtcdRoom
from aiopg.stores.etcd._url import EtcdUrl
from aiopg.tls import Encryption, Tls, from_environment

__all__ = ["EtcdLink"]

GRACE_SECONDS: Final = 5.0

EXPIRY_SECONDS: Final = 2.0
"""etcd looks for leases that have expired every half second; then its members agree on it, and one of ours says so."""

CLOSE_SECONDS: Final = 2.0
"""A link that is closed leaves its rooms in order while etcd answers within this time; then its lease does it."""

GOODBYE_SECONDS: Final = 1.0
"""So long etcd has to take the lease back."""


class EtcdLink(EngineLink):
    """Rooms in etcd, under one lease. Made by `connect`."""

    def __init__(self, url: str, address: EtcdUrl, client: EtcdClient, lease: Lease) -> None:
        self._rooms = Rooms(self._open_room)
        super().__init__(self._rooms.send, LIMITS.payload_bytes, self._rooms)
        self._rooms.calls = self._calls
        self._url, self._address = url, address
        self._client, self._lease = client, lease
        loop = asyncio.get_running_loop()
        self._premises = Premises(client, lease, Layout(address.prefix), loop, self._spawn, self._rooms)
        self._stays: dict[EtcdRoom, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._over = asyncio.Event()
        self._ready: asyncio.Future[asyncio.TaskGroup] = loop.create_future()
        self._life = loop.create_task(self._live())

    def __repr__(self) -> str:
        return f"<EtcdLink {self._address} calls={len(self._calls)} rooms={len(self._stays)} {self._client!r}>"

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        timeout: float,
        grace: float = GRACE_SECONDS,
        token: str | None = None,
        tls: Encryption | None = None,
    ) -> Self:
        """A link to the store in the etcd at `url`; one that is still coming up is waited for until `timeout` seconds.

        `grace`: seconds after which the lease of a member that is not heard of ends; etcd rounds them up, and has a
        least (`Capabilities.death_seconds` says what they have become).

        Raises:
            ValueError: the URL is wrong; a token was given, which etcd does not know; TLS was that is no `Tls`, or for
                a URL that does not ask for it.
            ImportError: the package for it is not installed.
            AuthenticationError: etcd does not know this user and password, or asks for some; or the user may not read
                what is below the prefix.
            StoreFullError: etcd has no space.
            StoreUnreachableError: no etcd answers there in time.
        """
        address = EtcdUrl.parse(url)
        if token is not None:
            raise ValueError("etcd knows no token of ours: its URL has a user and a password, and TLS certificates")
        deadline = asyncio.get_running_loop().time() + timeout
        client = await EtcdClient.connect(
            address.endpoints,
            timeout=timeout,
            tls=_encryption(address, tls),
            user=address.user,
            password=address.password,
        )
        try:
            async with asyncio.timeout_at(deadline):
                await client.range(one(Layout(address.prefix).lives))  # whether the user may
                lease = await client.lease(grace)
        except TimeoutError:
            await client.close()
            raise StoreUnreachableError(str(address), client.trouble) from None
        except BaseException:
            await client.close()
            raise
        link = cls(url, address, client, lease)
        try:
            await link._ready
        except asyncio.CancelledError:
            link._over.set()  # its task takes the lease back and closes the client
            raise
        return link

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            engine="etcd",
            exactly_once=True,
            survives=("connection", "restart", "host", "minority"),
            keys=True,
            payload_bytes=self._payload_bytes,
            death_seconds=self._lease.ttl + EXPIRY_SECONDS,
        )

    async def status(self) -> dict[str, object]:
        """As `StoreLink.status`: its own rooms as they are when all that it sent has taken effect; others as read."""
        self._calls.check()
        try:
            described = await self._describe_rooms()
        except GroupClosedError:
            self._calls.check()  # why the client was closed
            raise
        return put_together(described)

    async def _describe_rooms(self) -> list[dict[str, Any]]:
        described: list[dict[str, Any]] = []
        layout, own = self._premises.layout, set()
        for name, room in list(self._rooms):
            assert isinstance(room, EtcdRoom)
            await room.settle()
            if room.is_in:
                own.add(name)
                described.append(room.reader.replica.engine.describe())
        for marker in (await self._client.range(layout.rooms)).entries:
            name = marker.value.decode("utf-8", "surrogatepass") or COMMON
            if name not in own:
                copy = await read_copy(self._client, layout.room(name))
                if copy is not None:
                    described.append(copy.replica.engine.describe())
        self._calls.check()
        return described

    async def trace(self, after: int = 0, most: int = HAPPENINGS_READ, group: str = "") -> Excerpt:
        """There is none: what happened is known to who was in the room then, and kept by nobody for all."""
        raise NotImplementedError("a store in etcd keeps no trace: who waits for whom now is in its status")

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._calls.close()
            try:
                await self._leave_all()
            finally:
                self._over.set()
        await asyncio.shield(self._life)

    # ------------------------------------------------------------------------------------------------- inside

    async def _leave_all(self) -> None:
        for room in self._stays:
            room.leave("the member closed its link")
        if self._stays:
            await asyncio.wait([room.stay for room in self._stays], timeout=CLOSE_SECONDS)

    def _open_room(self, name: RoomName) -> Room:
        room = EtcdRoom(self._premises, name)
        self._stays[room] = None
        room.stay.add_done_callback(lambda _: self._stays.pop(room, None))
        return room

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        spawned = self._ready.result().create_task(self._guard(task))
        self._tasks.add(spawned)
        spawned.add_done_callback(self._tasks.discard)
        return spawned

    async def _guard(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """What goes wrong in a task of the link, and is no fault of the program, ends the link."""
        try:
            await task()  # made here, as a task that is cancelled before it begins would not await it
        except FencedError:
            self._lost("etcd says that its lease has ended")
        except (AiopgError, RefusedError) as error:
            self._lost(str(error))

    def _lost(self, reason: str) -> None:
        if not self._calls.is_lost:
            self._calls.lost(StoreLostError(str(self._address), reason))
        self._over.set()

    async def _live(self) -> None:
        """Holds all tasks of the link, until it is over. The lease goes in the end, whatever the end is."""
        try:
            async with asyncio.TaskGroup() as group:
                self._ready.set_result(group)
                self._lease.lost.add_done_callback(self._lease_lost)
                try:
                    await self._over.wait()
                finally:
                    if not self._calls.is_lost:
                        self._calls.lost(StoreLostError(str(self._address), "its event loop ended"))
                    for task in self._tasks:
                        task.cancel()
        finally:
            self._calls.alarms.close()
            try:
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._lease.revoke()
            except (TimeoutError, AiopgError, RefusedError):
                pass  # then it expires
            finally:
                await self._client.close()

    def _lease_lost(self, lost: asyncio.Future[str]) -> None:
        if not lost.cancelled():
            self._lost(lost.result())


def _encryption(address: EtcdUrl, tls: Encryption | None) -> Tls | None:
    """What gRPC makes TLS from. Raises `ValueError`."""
    if not address.encrypted:
        if tls is not None:
            raise ValueError("ssl= was given, and the URL does not ask for it: etcds:// does")
        return None
    encryption = from_environment() if tls is None else tls
    if encryption is not None and not isinstance(encryption, Tls):
        raise ValueError(f"etcd's client makes TLS from files: give aiopg.Tls(cert=, key=, ca=), not {encryption!r}")
    return encryption if encryption is not None else Tls()
