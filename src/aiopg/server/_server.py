"""The store server: listening sockets and sessions round one engine."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from functools import partial
from types import TracebackType
from typing import Self

from aiopg._core.engine import Engine, Events
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Cancel, Join, Leave, Message, Vacate
from aiopg._core.replies import SessionId
from aiopg._core.session import Session
from aiopg.address import Address
from aiopg.errors import GroupClosedError, ProtocolError
from aiopg.server._connection import ServerConnection, ServerSession
from aiopg.server.listen import BACKLOG, address_of, bind

__all__ = ["StoreServer"]

logger = logging.getLogger("aiopg.server")

_EMPTYING = (Leave, Vacate, Cancel)
"""Commands after which there may be no member left."""

SWEEP_SECONDS = 1.0
"""How often the engine is asked whether something has expired."""


class StoreServer:
    """A store that any number of groups share, as an async context manager.

    ::

        async with StoreServer("127.0.0.1", 0) as server:
            group = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1)

    It runs on the event loop that enters it and holds everything in memory: it must outlive its groups. Leaving
    the block ends every session; calls that wait at a member raise `StoreLostError`.

    Args:
        host: address to listen on, exactly; a name must resolve to an address of this host.
        port: port to listen on; 0 lets the kernel choose one (see `address`).
        path: listen on this unix socket instead. A file left there by a server that died must be removed first.
        listen_socket: a bound, listening stream socket to serve on instead; the server takes it over and closes it.
        limits: bounds of this store, see `aiopg.Limits`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        path: str | None = None,
        listen_socket: socket.socket | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be 0 to 65535, not {port}")
        self.limits = limits or Limits()
        self.pid = os.getpid()
        self.epoch = secrets.token_bytes(16)
        self._asked = Address(path=os.path.abspath(path)) if path is not None else Address(host, port)
        self._socket = listen_socket
        self._bound: Address | None = None
        self._listener: asyncio.Server | None = None
        self._engine = Engine(self.limits, {"pid": self.pid})
        self._sessions: dict[SessionId, ServerSession] = {}
        self._connections: set[ServerConnection] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._joined = asyncio.Event()
        self._vacated = asyncio.Event()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else str(self._bound) if self._bound else "not started"
        return f"<StoreServer {state} sessions={len(self._sessions)} members={self._engine.members}>"

    @property
    def address(self) -> str:
        """URL to connect to, once started: `aiopg://host:port` or `unix:///path`."""
        if self._bound is None:
            raise GroupClosedError("the server has no address before it is started")
        return str(self._bound)

    async def start(self) -> None:
        """Listen and serve. `async with` does this.

        Raises:
            AddressInUseError: another program listens on the address.
            StoreUnreachableError: the address does not resolve or is not one of this host.
        """
        if self._listener is not None or self._closed:
            raise GroupClosedError("a StoreServer is started once")
        self._loop = asyncio.get_running_loop()
        sock = self._socket or await bind(self._asked)
        self._bound = address_of(sock)
        if sock.family != socket.AF_UNIX:
            # Accepted sockets inherit it; asyncio sets it only for sockets that were made with proto=IPPROTO_TCP.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serve = self._loop.create_unix_server if sock.family == socket.AF_UNIX else self._loop.create_server
        try:
            # In two steps, so that a cancellation in between finds something to close.
            self._listener = await serve(self._connect, sock=sock, backlog=BACKLOG, start_serving=False)
            await self._listener.start_serving()
        except BaseException:
            if self._listener is not None:
                self._listener.close()
            sock.close()
            raise
        self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        logger.info("serving on %s", self._bound)

    async def close(self) -> None:
        """Stop serving: end every session and free the address. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        if self._listener is not None:
            self._listener.close()
            for connection in list(self._connections):
                connection.close("the store was closed")
        elif self._socket is not None:
            self._socket.close()
        if self._bound is not None and self._bound.path:
            try:
                os.unlink(self._bound.path)
            except FileNotFoundError:
                pass  # somebody tidied up before us
        if self._listener is not None:
            await self._listener.wait_closed()

    async def wait_joined(self) -> None:
        """Wait for the first member that this store ever has."""
        await self._joined.wait()

    async def wait_vacated(self) -> None:
        """Wait until there is no member; at once if there is none."""
        while self._engine.members:
            self._vacated.clear()
            await self._vacated.wait()

    def describe(self) -> dict[str, object]:
        """State of the store for people and tools: groups, members, open rounds, bytes. Plain values."""
        return self._engine.describe()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    # -------------------------------------------------------------------------------- for its connections

    @property
    def is_full(self) -> bool:
        """Whether another session would be one too many."""
        return len(self._sessions) >= self.limits.sessions

    def nonce(self) -> bytes:
        """Fresh bytes for one handshake."""
        return secrets.token_bytes(32)

    def connection_opened(self, connection: ServerConnection) -> None:
        """A connection was accepted."""
        self._connections.add(connection)

    def open_session(self, connection: ServerConnection) -> ServerSession:
        """A new session, carried by this connection."""
        session = ServerSession(secrets.token_bytes(16), Session(self.limits), connection)
        self._sessions[session.id] = session
        return session

    def command_received(self, session: ServerSession, message: Message) -> None:
        """A member said something. Raises `ProtocolError` if it is not for a server to hear."""
        events = self._engine.apply(session.id, message, self._loop.time())
        if events:
            self._deliver(events)
        if type(message) is Join:
            self._joined.set()
        elif type(message) in _EMPTYING:
            self._note_vacancy()

    def acknowledged(self, session: ServerSession) -> None:
        """A member holds more of what was sent to it."""
        receipts, held = session.receipts, session.streams.acknowledged
        while receipts and receipts[0][0] <= held:
            self._deliver(self._engine.confirm(session.id, receipts.popleft()[1]))
        if not receipts:
            session.connection.on_acknowledged = None

    def connection_closed(self, connection: ServerConnection, session: ServerSession | None, reason: str) -> None:
        """A connection is over, and with it its session."""
        self._connections.discard(connection)
        if session is None:
            logger.info("a connection that opened no session ended: %s", reason)
            return
        self._sessions.pop(session.id, None)
        self._deliver(self._engine.end_session(session.id, f"its connection ended: {reason}"))
        self._note_vacancy()

    # -------------------------------------------------------------------------------------------- inside

    def _connect(self) -> ServerConnection:
        return ServerConnection(self)

    def _deliver(self, events: Events) -> None:
        for target, event in events:
            session = self._sessions.get(target)
            if session is None:
                continue
            try:
                session.connection.send(event)
            except ProtocolError as error:
                # This one does not acknowledge; whoever caused the event has no part in it.
                session.connection.cut(error.reason)
                continue
            if type(event) is Answer and event.receipt:
                session.await_receipt(event.call, partial(self.acknowledged, session))

    def _note_vacancy(self) -> None:
        if not self._engine.members:
            self._vacated.set()

    def _sweep(self) -> None:
        now = self._loop.time()
        deadline = self._engine.next_deadline()
        if deadline is not None and deadline <= now:
            self._deliver(self._engine.handle_timer(now))
        self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)
