"""The server's end of one connection."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from aiopg._core.frames import Buffer, FrameReceiver, Received
from aiopg._core.handshake import REFUSED_LOGIN, pack_welcome, parse_hello
from aiopg._core.messages import Goodbye, Message, Open
from aiopg._core.scopes import ANY_GROUP
from aiopg._core.session import Session
from aiopg.errors import AiopgError, ProtocolError
from aiopg.link import Link
from aiopg.liveness import is_vanished
from aiopg.processes import is_stranger
from aiopg.tls import channel_binding

if TYPE_CHECKING:
    from aiopg.server._member import ServerSession
    from aiopg.server._scribe import Scribe
    from aiopg.server._sessions import Sessions

__all__ = ["RecordedConnection", "ServerConnection"]


@lru_cache
def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


class ServerConnection(Link):
    """Handshake, then commands in and events out."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(sessions.limits, sessions.commons)
        self._sessions = sessions
        self._hello = b""
        self._welcome = b""
        self.groups = ANY_GROUP
        """Names of the groups that the other end may join and see (`tokens.Token`)."""
        self.member: ServerSession | None = None
        """The session that this connection carries."""
        self._login_timer = self._loop.call_later(sessions.limits.handshake_seconds, self._login_late)
        sessions.connection_opened(self)

    @property
    def address(self) -> str:
        """Host of the other end; empty on a unix socket."""
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        return peer[0] if isinstance(peer, tuple) else ""

    @property
    def is_from_this_host(self) -> bool:
        """Whether the other end is sure to be on this host: so it says which process it is, and can be believed."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is None:
            return False
        if sock.family == socket.AF_UNIX:
            return True
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        if not peer:
            return False
        return _is_loopback(peer[0]) or peer[0] == sock.getsockname()[0]

    @property
    def is_vanished(self) -> bool:
        """Whether the kernel says that nobody answers at the other end."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return sock is not None and is_vanished(sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._closed:
            return
        doorkeeper = self._sessions.doorkeeper
        sock = transport.get_extra_info("socket")
        # Where a token is asked for, whoever knows it may come, whatever user he is.
        is_unix = sock is not None and sock.family == socket.AF_UNIX
        if is_unix and not doorkeeper.asks_token and is_stranger(sock):
            self.cut("it belongs to another user of this host")
        else:
            doorkeeper.came(self)

    def preamble_received(self, data: bytes) -> None:
        asks_token = self._sessions.doorkeeper.asks_token
        self._hello, nonce = data, self._sessions.nonce()
        self._welcome, refusal = pack_welcome(parse_hello(data), self._sessions.epoch, nonce, asks_token)
        self.write((self._welcome,))
        if refusal:
            self.finish(refusal)
        elif asks_token:
            self.await_login()

    def login_received(self, data: bytes) -> None:
        assert self._transport is not None
        doorkeeper = self._sessions.doorkeeper
        known = doorkeeper.login(data, self._hello, self._welcome, channel_binding(self._transport))
        if known is None:
            if doorkeeper.login_failed(self.address):
                self.write((REFUSED_LOGIN,))
            self.finish("it does not know a token of this store")
            return
        token, proof = known
        self.groups = token.groups
        self.write((proof,))

    def frames_begin(self, receiver: FrameReceiver) -> None:
        receiver.body_bytes = 0  # who has no session yet sends nothing that has a body

    def attach(self, session: Session) -> None:
        self._receiver.body_bytes = self._limits.body_bytes
        super().attach(session)

    def opening_received(self, message: Message) -> None:
        if type(message) is Goodbye:
            self.finish(message.reason)
            return
        if type(message) is not Open:
            raise ProtocolError("a connection begins with Open")
        self._login_timer.cancel()
        self._sessions.doorkeeper.gone(self)
        try:
            if message.session:
                self._sessions.resume(self, message, self._hello, self._welcome)
            else:
                self._sessions.open(self, message)
        except AiopgError as error:
            self.close(str(error))

    def message_received(self, message: Message) -> None:
        self._sessions.message_received(self.member, message)  # type: ignore[arg-type]

    def watch_receipts(self) -> None:
        """See `Carrier`."""
        self.on_acknowledged = self._receipts_came

    def closed(self, reason: str, final: bool) -> None:
        self._login_timer.cancel()
        self._sessions.doorkeeper.gone(self)
        self._sessions.connection_closed(self, reason, final)

    def _receipts_came(self) -> None:
        if self.member is not None and not self._sessions.confirm(self.member):
            self.on_acknowledged = None

    def _login_late(self) -> None:
        self.cut("it did not open a session in time")


class RecordedConnection(ServerConnection):
    """The same for a store that keeps a journal: what came is recorded, and what leaves waits until that is on disk."""

    _lone_readers = MappingProxyType({})  # what is recorded is the frame

    def __init__(self, sessions: Sessions, scribe: Scribe) -> None:
        super().__init__(sessions)
        self._scribe = scribe

    def write(self, buffers: tuple[Buffer, ...]) -> None:
        self._scribe.when_recorded(lambda: self._write_out(buffers))

    def pause_reading(self, paused: bool) -> None:
        """Read no more, or go on: the disk is slower than what comes."""
        if self._transport is not None and not self._closed:
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def _dispatch(self, frame: Received) -> None:
        self._scribe.frame = frame
        super()._dispatch(frame)

    def _close_transport(self) -> None:
        if self._transport is not None:
            self._scribe.when_recorded(super()._close_transport, self._transport.abort)

    def _write_out(self, buffers: tuple[Buffer, ...]) -> None:
        if self._transport is not None:
            self.write_large(self._transport, buffers)
