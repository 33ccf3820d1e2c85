"""A store on Redis: `redis://host:port`, with TLS, on a unix socket, behind Sentinel, or on a Cluster.

The engine's rules run on the server, as one Lua text that is called once for each batch of commands (see `lua`); this
side carries commands there and events back, as the client of our own server does. What it needs of the server, what it
promises and what it does not is in docs/redis.md.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from contextlib import suppress
from typing import Self

try:
    import redis  # noqa: F401 (asked for here, so that one message tells what to install)
except ImportError as error:
    raise ImportError("a store on Redis needs the package redis; run: pip install 'aiopg-group[redis]'") from error

from redis.exceptions import MovedError, ResponseError

from aiopg._core.messages import Event
from aiopg.errors import AiopgError, ProtocolError, StoreLostError, StoreUnreachableError
from aiopg.stores._engine_link import EngineLink
from aiopg.stores._places import holder
from aiopg.stores._rooms import COMMON, RoomName, Rooms
from aiopg.stores.base import HAPPENINGS_READ, Capabilities, Excerpt
from aiopg.stores.redis._address import RedisAddress, room_prefix
from aiopg.stores.redis._dial import BROKEN, Dialer, said
from aiopg.stores.redis._farewell import say_goodbye
from aiopg.stores.redis._nodes import Nodes
from aiopg.stores.redis._pulse import Pulse
from aiopg.stores.redis._room import RedisRoom
from aiopg.stores.redis._script import Script, load_script
from aiopg.stores.redis._status import REGISTRY_SECONDS, describe, load, register
from aiopg.tls import Encryption, client_context

__all__ = ["RedisLink"]

logger = logging.getLogger("aiopg.store")

PAYLOAD_BYTES = 64 * 1024 * 1024
"""A server does nothing else while it copies a payload: for one of this size some tenths of a second in each call."""

LEAST_GRACE = 0.5
"""Seconds. A session's lease is renewed three times in its grace, from here."""

AGAIN_SECONDS = 0.05

CLOSE_SECONDS = 2.0
"""What may take longer when the link ends is left to the lease."""


class RedisLink(EngineLink):
    """A session in each room that this process is in. Made by `connect`."""

    def __init__(self, address: RedisAddress, dialer: Dialer, grace: float) -> None:
        self.rooms = Rooms(self._open_room)
        super().__init__(self.rooms.send, PAYLOAD_BYTES, self.rooms)
        self.rooms.calls = self._calls
        self.grace = max(grace, LEAST_GRACE)
        self._address = address
        self._dialer = dialer
        self._nodes = Nodes(dialer, self.grace, self.fail)
        self._open: set[RedisRoom] = set()
        self._tasks: asyncio.TaskGroup
        self._ending = asyncio.Event()
        self._all_ended = asyncio.Event()
        self._closed = False
        self._server: asyncio.Task[None] | None = None
        self._pulse: Pulse | None = None
        self._registering: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<RedisLink {self.url} calls={len(self._calls)} rooms={len(self._open)}>"

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        timeout: float,
        grace: float = 5.0,
        token: str | None = None,
        tls: Encryption | None = None,
    ) -> Self:
        """A link to the store at `url`; a server that is still coming up is waited for until `timeout` seconds.

        Raises:
            ValueError: the URL is wrong, or a token is given: a Redis has users and passwords, in the URL.
            AuthenticationError: the server does not know this user and password, or forbids a command.
            StoreUnreachableError: no server there.
            UsageError: it is older than 6.2, or throws data away when its memory is full.
        """
        if token is not None:
            raise ValueError(
                "a Redis takes no token; its user and password stand in the URL: redis://user:password@host"
            )
        address = RedisAddress.parse(url)
        dialer = Dialer(address, _context(address, tls))
        link = cls(address, dialer, grace)
        try:
            async with asyncio.timeout(timeout):
                await link._nodes.connect(room_prefix(COMMON), asyncio.get_running_loop().time() + timeout)
        except StoreUnreachableError:
            raise
        except (*BROKEN, ResponseError) as error:
            met = f"no answer within {timeout:g} s" if type(error) is TimeoutError else said(error)
            raise StoreUnreachableError(str(address), met) from error
        link._server = asyncio.create_task(link._serve(), name=f"link to {address}")
        return link

    @property
    def url(self) -> str:
        """Without user and password, which others have to know by themselves."""
        return str(self._address)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            engine="redis",
            exactly_once=True,
            survives=("connection", "restart") if self._dialer.durable else ("connection",),
            keys=True,
            payload_bytes=self._payload_bytes,
            death_seconds=self.grace * 4 / 3,
        )

    async def status(self) -> dict[str, object]:
        while True:
            self._calls.check()
            own = [room for _, room in self.rooms if isinstance(room, RedisRoom)]
            try:
                for room in own:
                    await room.settled()
                return await describe(self._nodes, self.script(), [room.prefix for room in own])
            except BROKEN:
                await asyncio.sleep(AGAIN_SECONDS)  # the connection comes back, or the link is lost

    async def trace(self, after: int = 0, most: int = HAPPENINGS_READ, group: str = "") -> Excerpt:
        raise NotImplementedError(
            "a store on Redis keeps no trace of what happened; aiopg status and aiopg top show what is"
        )

    async def close(self) -> None:
        if self._server is None:
            return
        if not self._closed:
            self._closed = True
            self._calls.close()
            self._wind_up("it closed its link")
        await asyncio.wait([self._server])

    # ------------------------------------------------------------------------------------------- what rooms ask for

    def script(self) -> Script:
        """How the servers are called."""
        return load_script(bool(self._dialer.functions))

    @property
    def is_over(self) -> bool:
        """Nobody waits for events any more."""
        return self._calls.is_lost

    def event(self, event: Event) -> None:
        """Of a room, for one call."""
        try:
            self.rooms.received(event)
        except KeyError:
            raise ProtocolError(f"an event for call {event.call}, which does not wait") from None

    def taken(self) -> None:
        """There may be room for more calls."""
        self.rooms.taken()

    def fail(self, error: AiopgError) -> None:
        """The link is over; its other rooms learn it too."""
        if not self._closed:
            self._closed = True
            self._calls.lost(error)
            self._wind_up(f"its link was lost: {error}")
            for room in list(self._open):
                if not room.node.is_connected:
                    room.give_up()

    def load(self, room: RedisRoom) -> None:
        """Its server does not know the script."""
        self._tasks.create_task(self._load(room), name=f"load the script of {self.url}")

    def moved(self, room: RedisRoom, error: MovedError) -> None:
        """It is at another server."""
        self._nodes.moved(room, error)

    def gone(self, room: RedisRoom) -> None:
        """It has ended."""
        self._open.discard(room)
        if not self._open and self._ending.is_set():
            self._all_ended.set()

    # ------------------------------------------------------------------------------------------------------- inside

    def _open_room(self, name: RoomName) -> RedisRoom:
        prefix = room_prefix(name)
        sid = secrets.token_hex(16).encode()
        room = RedisRoom(self, self._nodes.of(prefix), prefix, sid, holder())
        self._open.add(room)
        if self._pulse is None:
            self._pulse = Pulse(self._dialer, lambda: list(self._open), self.script, self.grace)
        register(self._nodes, prefix)
        if self._registering is None:
            self._register_later()
        return room

    def _register_later(self) -> None:
        self._registering = asyncio.get_running_loop().call_later(REGISTRY_SECONDS / 4, self._register_again)

    def _register_again(self) -> None:
        for room in self._open:
            register(self._nodes, room.prefix)
        self._register_later()

    async def _load(self, room: RedisRoom) -> None:
        try:
            await load(self._nodes, room.prefix, self.script())
        except BROKEN:
            return  # the room is called anew when the connection is
        except ResponseError as error:
            self.fail(StoreLostError(self.url, f"it does not take the script: {said(error)}"))
            room.give_up()
        else:
            room.call_again()

    def _wind_up(self, reason: str) -> None:
        self._ending.set()
        for room in list(self._open):
            room.end(reason)
        if not self._open:
            self._all_ended.set()

    async def _serve(self) -> None:
        """The link's one task."""
        try:
            await self._carry()
        except asyncio.CancelledError:
            # The program ends without closing. The connections have ended with their tasks: so over new ones.
            with suppress(*BROKEN, AiopgError, ResponseError):
                await say_goodbye(self._dialer, self._nodes, self.script(), self._open, "its event loop ended")
            raise
        finally:
            if self._pulse is not None:
                self._pulse.stop()
            if self._registering is not None:
                self._registering.cancel()
            self._calls.close()
            for room in self._open:
                room.drop()
            await self._nodes.close()

    async def _carry(self) -> None:
        """Carry calls until the link ends, and all rooms know."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._nodes.serve(self._tasks)
                try:
                    await self._ending.wait()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CLOSE_SECONDS):
                            await self._all_ended.wait()
                finally:
                    self._nodes.stop()
                raise _OverError  # which ends the tasks of the group
        except* _OverError:
            pass
        except* Exception as errors:
            logger.exception("the link to %s failed", self.url, extra={"address": self.url})
            self.fail(StoreLostError(self.url, repr(errors.exceptions[0])))


class _OverError(Exception):
    """The link has ended."""


def _context(address: RedisAddress, tls: Encryption | None) -> ssl.SSLContext | None:
    if address.tls:
        return client_context(tls) or ssl.create_default_context()
    if tls is not None:
        raise ValueError(f"ssl= is for connections with TLS: the URL is rediss://..., not {address.scheme}://...")
    return None
