"""A session with a store server, from the client's side: it outlives the connections that carry it.

Theory of operation. While a connection is there, commands go out on it as they are made. When it is over, they are kept
by the session (`_core.session`), and a task tries to come again: at once, then with growing pauses drawn at random, for
as long as the store keeps the session (`Opened.patience`). A new connection begins with both ends saying what they
hold, and what the other lacks is sent again, in order; so nobody above here sees that anything happened. The session is
over when the store says so or refuses the token, when its epoch says that it is another store than it was, or when
patience ends.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from typing import TypeAlias

from aiopg._core.handshake import parse_welcome, resume_proof
from aiopg._core.limits import Limits
from aiopg._core.messages import Command, Event, Open, Opened
from aiopg._core.session import Session
from aiopg.address import Address
from aiopg.client._connection import ClientConnection, SessionOverError
from aiopg.client._road import Road, take_shortcut
from aiopg.commons import Commons
from aiopg.errors import AuthenticationError, ProtocolError
from aiopg.processes import own_identity

__all__ = ["Client", "Send"]

logger = logging.getLogger("aiopg.client")

Send: TypeAlias = Callable[[Command], object]

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between attempts to come again, doubling, each drawn at random from half of it up: a thousand ranks do not
come in step."""

LAST_SECONDS = 0.02
"""With less than this left there is no further attempt."""

ATTEMPT_SECONDS = 5.0
"""How long one attempt may take; what does not answer by then may answer the next one."""

SHORTCUT_SECONDS = 2.0
"""For so long a shortcut is tried, while the connection that showed it waits; less than a store waits with it
(`Limits.handshake_seconds`), and than an attempt takes."""


class Client:
    """One session. `open` it once; what is sent by its `route` then reaches the store once, or the session is lost.

    `on_event` gets every event of the session; `on_lost` is called once with the reason when the session is over,
    unless it ended by `close`; `on_route` is called with what takes commands from now on (see `route`), whenever that
    changes; `on_room` when `streams` may have room again.
    """

    def __init__(self, limits: Limits, address: Address, road: Road, *, grace: float, token: bytes = b"") -> None:
        self.address = address
        self.token = token
        """What both ends must prove to know; empty where the store asks for nothing."""
        self.payload_bytes = limits.payload_bytes
        self.grace = grace
        """Seconds for which the store is asked to keep the session while no connection carries it."""
        self.pid = 0
        """Process of the store; 0 until opened."""
        self.streams = Session(limits)
        self.commons = Commons()
        """Of its connections, one after another."""
        self.on_event: Callable[[Event], None] = _nobody_listens
        self.on_lost: Callable[[str], None] = _nobody_listens
        self.on_route: Callable[[Send], None] = _nobody_listens
        self.on_room: Callable[[], None] | None = None
        self._limits = limits
        self._road = road
        self._patience = grace
        self._id = b""
        self._secret = b""
        self._epoch = b""
        self._attempt = 0
        self._connection: ClientConnection | None = None
        self._last: ClientConnection | None = None  # to carry the session, whether it still does or not
        self._coming_again: asyncio.Task[None] | None = None
        self._over = False

    def __repr__(self) -> str:
        state = "closed" if self._over else "open" if self._connection else "away" if self._id else "opening"
        return f"<Client {self.address} {state} connections={self._attempt} {self.streams}>"

    @property
    def is_connected(self) -> bool:
        """Whether a connection carries the session now."""
        return self._connection is not None

    async def open(self) -> None:
        """Open the session: one attempt. Cancelling leaves nothing behind.

        Raises what a `Road` raises, and what `ClientConnection.wait_open` raises.
        """
        try:
            await self._connect()
        except BaseException:
            # Also where it was opened and lost in the same moment, and has begun to come again by itself: whoever asked
            # for it is told that it failed, and nobody would ever close it.
            self.close("it was not opened")
            raise

    @property
    def route(self) -> Send:
        """What takes commands now. They are kept until the store has them, over any number of connections."""
        return (self._connection or self.streams).send

    def close(self, reason: str) -> None:
        """End the session with a goodbye. Closing twice is fine."""
        self._over = True
        if self._coming_again is not None:
            self._coming_again.cancel()
        if self._connection is not None:
            self._connection.close(reason)

    async def wait_closed(self) -> None:
        """After `close`: wait until nothing of it runs or is open any more."""
        if self._coming_again is not None:
            await asyncio.wait([self._coming_again])
        if self._last is not None:
            await self._last.wait_gone()

    # ------------------------------------------------------------------------------- for its connections

    def opening(self, hello: bytes, welcome: bytes) -> Open:
        """What to ask for on a connection that began so. Raises `SessionOverError` if it leads to another store."""
        who = own_identity()
        epoch = parse_welcome(welcome).epoch
        if not self._id:
            self._epoch = epoch
            return Open(b"", b"", self._attempt, 0, self.grace, *who)
        if epoch != self._epoch:
            raise SessionOverError("it was started anew and has nothing of what it had")
        received = self.streams.received
        proof = resume_proof(self._secret, hello, welcome, self._id, self._attempt, received)
        return Open(self._id, proof, self._attempt, received, self.grace, *who)

    def opened(self, connection: ClientConnection, opened: Opened) -> None:
        """The store agrees. Raises `ProtocolError` if it claims to hold what it cannot hold."""
        if not self._id:
            self._id, self._secret = opened.session, opened.secret
        lacking = self.streams.resend(opened.received)
        self.payload_bytes = opened.payload_bytes
        self.pid = opened.pid
        self._patience = opened.patience
        self._connection = self._last = connection
        connection.attach(self.streams)
        for buffers in lacking:
            connection.write(buffers)
        self.on_route(self.route)
        self.note_room()

    def note_room(self) -> None:
        """There may be room in `streams`."""
        if self.on_room is not None and not self.streams.full:
            self.on_room()

    def connection_closed(self, connection: ClientConnection, reason: str, final: bool) -> None:
        """A connection is over; `final`: and the session with it."""
        if connection is not self._connection:
            return  # an attempt that failed: whoever made it knows
        self._connection = None
        self.commons.forgive()
        self.on_route(self.route)
        if self._over:
            return
        if final:
            self._lose(reason)
        elif self._coming_again is None:
            self._begin_to_come_again(reason)

    # ------------------------------------------------------------------------------------------------ inside

    async def _connect(self) -> None:
        self._attempt += 1
        made: list[ClientConnection] = []  # one for each address that was tried, and that of the shortcut

        def make() -> ClientConnection:
            made.append(ClientConnection(self, self._limits, secrets.token_bytes(32)))
            return made[-1]

        try:
            connection = await self._road(self.address, make)
            await connection.wait_welcome()
            connection = await self._nearer(connection, make)
            connection.ask_to_open()
            await connection.wait_open()
        except BaseException:
            # Also where the loop has not handed it out yet: uvloop, cancelled in the moment in which a TLS handshake is
            # done, leaves the transport open.
            for begun in made:
                begun.cut("the handshake was not finished")
            raise

    async def _nearer(self, connection: ClientConnection, make: Callable[[], ClientConnection]) -> ClientConnection:
        """This connection, which was welcomed; or one by the shortcut that it shows, which was welcomed too."""
        name = connection.shortcut
        if name is None:
            return connection
        nearer: ClientConnection | None = None
        try:
            async with asyncio.timeout(SHORTCUT_SECONDS):
                nearer = await take_shortcut(name, make)
                await nearer.wait_welcome()
            if nearer.epoch != connection.epoch:
                raise ProtocolError("another store answers there")
        except (OSError, ProtocolError, AuthenticationError, SessionOverError) as error:
            logger.debug(
                "%s stays on TCP, its unix socket was tried: %r",
                self.address,
                error,
                extra={"address": str(self.address), "reason": str(error)},
            )
            if nearer is not None:
                nearer.cut("the session goes over TCP")
            return connection
        connection.finish("the session goes over a unix socket")
        return nearer

    def _begin_to_come_again(self, why: str) -> None:
        self._coming_again = asyncio.create_task(self._come_again(why), name=f"aiopg resume {self.address}")
        self._coming_again.add_done_callback(self._came_again)

    async def _come_again(self, why: str) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        pause = 0.0
        while True:
            try:
                async with asyncio.timeout_at(min(give_up, loop.time() + ATTEMPT_SECONDS)):
                    await self._connect()
            except (SessionOverError, AuthenticationError) as error:
                self._lose(str(error))
                return
            except TimeoutError:
                why = "no answer in time"
            except (OSError, ProtocolError) as error:
                why = str(error)
            if self._connection is not None:
                return
            left = give_up - loop.time()
            if left < LAST_SECONDS:
                self._lose(f"no connection for {self._patience:g} s; the last attempt met: {why}")
                return
            # As long as the store keeps the session there is one more attempt before the end.
            wait = min(random.uniform(pause / 2, pause), left / 2)
            pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            await asyncio.sleep(wait)

    def _came_again(self, task: asyncio.Task[None]) -> None:
        self._coming_again = None
        if task.cancelled():
            return  # by close(), or by a loop that ends
        if (error := task.exception()) is not None:
            self._lose(f"coming again failed: {error!r}")
            raise error
        if self._connection is None and not self._over:
            # The connection ended when the task had seen it, and before we were called.
            self._begin_to_come_again("the connection ended at once")

    def _lose(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self.on_lost(reason)


def _nobody_listens(_: object) -> None:
    pass
