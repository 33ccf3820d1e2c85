"""The server's end of one connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiopg._core.handshake import pack_welcome, parse_hello
from aiopg._core.messages import Goodbye, Message, Open, Opened
from aiopg._core.session import Session
from aiopg.errors import ProtocolError
from aiopg.link import Link

if TYPE_CHECKING:
    from aiopg.server._server import StoreServer

__all__ = ["ServerConnection", "ServerSession"]


class ServerSession:
    """A member's session as the server keeps it: its streams, and the connection that carries them now."""

    def __init__(self, id: bytes, streams: Session, connection: ServerConnection) -> None:
        self.id = id
        self.streams = streams
        self.connection = connection
        self.receipts: deque[tuple[int, int]] = deque()  # (sequence number, call) of answers to be confirmed

    def await_receipt(self, call: int, received: Callable[[], None]) -> None:
        """The answer of `call` was just sent: `received` is called after each frame until it is acknowledged."""
        self.receipts.append((self.streams.sent, call))
        self.connection.on_acknowledged = received


class ServerConnection(Link):
    """Handshake, then commands in and events out."""

    def __init__(self, server: StoreServer) -> None:
        super().__init__(server.limits)
        self._server = server
        self._member: ServerSession | None = None
        self._login_timer = self._loop.call_later(server.limits.handshake_seconds, self._login_late)
        server.connection_opened(self)

    def preamble_received(self, data: bytes) -> None:
        answer, refusal = pack_welcome(
            parse_hello(data), self._server.epoch, self._server.nonce(), full=self._server.is_full
        )
        self.write_preamble(answer)
        if refusal:
            self.finish(refusal)

    def opening_received(self, message: Message) -> None:
        if type(message) is Goodbye:
            self.finish(message.reason)
            return
        if type(message) is not Open:
            raise ProtocolError("a connection begins with Open")
        if message.session:
            raise ProtocolError("this store does not know that session")
        self._login_timer.cancel()
        self._member = session = self._server.open_session(self)
        self.send_aside(Opened(session.id, session.streams.received, self._limits.payload_bytes, self._server.pid))
        self.attach(session.streams)

    def message_received(self, message: Message) -> None:
        assert self._member is not None
        self._server.command_received(self._member, message)

    def closed(self, reason: str) -> None:
        self._login_timer.cancel()
        self._server.connection_closed(self, self._member, reason)

    def _login_late(self) -> None:
        self.cut("it did not open a session in time")
