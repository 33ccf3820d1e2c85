"""The client's end of one connection."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from typing import TYPE_CHECKING

from aiopg._core.handshake import REFUSED_LOGIN, login_proofs, pack_hello, parse_welcome
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Failed, Goodbye, Message, Opened, Withdrawn
from aiopg.errors import AuthenticationError, ProtocolError
from aiopg.link import Link
from aiopg.shortcut import shortcut_from
from aiopg.tls import channel_binding

if TYPE_CHECKING:
    from aiopg.client._client import Client

__all__ = ["CertificateRefusedError", "ClientConnection", "SessionOverError"]

CERTIFICATE_REFUSED = "the store refuses this member's certificate, or misses it"


class SessionOverError(Exception):
    """The store does not have this session any more, and says so: no other connection will bring it back.

    Never leaves `client`.
    """


class CertificateRefusedError(ConnectionError):
    """Over TLS the store ended the connection before it said a word.

    In TLS 1.3 a client has done its part before the server has looked at its certificate (RFC 8446, section 4.4.2), and
    Python's servers do not say why they end a handshake; one that closes or is killed in that moment looks the same. So
    it is taken for a refusal when it comes again at once (`_dial`), and only where a session is opened: who resumes one
    tries on. Never leaves `client`.
    """


class ClientConnection(Link):
    """Handshake, then events in; the commands go out through `Link.send`.

    When both ends have greeted each other and logged in (`wait_welcome`) the handshake waits for `ask_to_open`: until
    then whoever made the connection may prefer another one.
    """

    def __init__(self, client: Client, limits: Limits, nonce: bytes) -> None:
        super().__init__(limits, client.commons)
        self._client = client
        self._hello = pack_hello(nonce)
        self._welcome = b""
        self._has_tls = False
        self._is_unix = False
        self._proof_awaited = b""  # what the store must say to prove that it knows the token
        self._welcomed = asyncio.Event()  # greeted and logged in, or never going to be
        self._has_asked = False
        self._settled = asyncio.Event()  # open, or never going to be
        self._why_not_open: Exception | None = None

    async def wait_welcome(self) -> None:
        """Wait until a session can be asked for (`ask_to_open`). Raises as `wait_open` does."""
        await self._welcomed.wait()
        if self._why_not_open is not None:
            raise self._why_not_open

    async def wait_open(self) -> None:
        """Wait until the session goes over this connection, which `ask_to_open` asks for.

        Raises:
            SessionOverError: the store says that the session is over, or refuses to open one.
            ProtocolError: what answered is not a store, or speaks another version.
            AuthenticationError: one end does not know the other's token, or asks for none.
            ConnectionError: the connection ended first.
        """
        await self._settled.wait()
        if self._why_not_open is not None:
            raise self._why_not_open

    @property
    def epoch(self) -> bytes:
        """That of the store, once welcomed."""
        return parse_welcome(self._welcome).epoch

    @property
    def shortcut(self) -> bytes | None:
        """Once welcomed: name of a unix socket by which the store may be found too; None if there is none to try."""
        return shortcut_from(self._transport, self.epoch) if self._transport is not None else None

    def ask_to_open(self) -> None:
        """Once welcomed: open the session over this connection, or go on with it. `wait_open` tells what came of it."""
        self._has_asked = True
        try:
            self.send_aside(self._client.opening(self._hello, self._welcome))
        except SessionOverError as error:
            self._why_not_open = error
            self.finish(str(error))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._has_tls = transport.get_extra_info("ssl_object") is not None
        self._is_unix = isinstance(transport.get_extra_info("peername"), str | bytes)
        self.write((self._hello,))

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError) and not self._settled.is_set():
            self._why_not_open = CertificateRefusedError(f"{CERTIFICATE_REFUSED}: {exc.reason or exc}")
        super().connection_lost(exc)

    def preamble_received(self, data: bytes) -> None:
        welcome = parse_welcome(data)
        if welcome.refusal:
            raise ProtocolError(f"the store refuses: {welcome.refusal}")
        self._welcome = data
        token = self._client.token
        if welcome.asks_token and token:
            assert self._transport is not None
            proofs = login_proofs(token, self._hello, data, channel_binding(self._transport))
            self._proof_awaited = proofs.store
            self.write((proofs.member,))
            self.await_login()
        elif welcome.asks_token:
            self._refuse("the store asks for a token: give token= or set AIOPG_TOKEN")
        elif token:
            # A store that knows no token cannot prove that it is the right one.
            self._refuse("this member has a token, and the store asks for none")
        else:
            self._welcomed.set()

    def login_received(self, data: bytes) -> None:
        if hmac.compare_digest(data, self._proof_awaited):
            self._welcomed.set()
        elif data == REFUSED_LOGIN:
            self._refuse("the store refuses this member's token")
        else:
            self._refuse("this member refuses the store: it does not prove that it knows the token")

    def _refuse(self, why: str) -> None:
        self._why_not_open = AuthenticationError(str(self._client.address), why)
        self.cut(why)

    def opening_received(self, message: Message) -> None:
        if type(message) is Goodbye:
            self._why_not_open = SessionOverError(message.reason)
            self.finish(message.reason)
            return
        if type(message) is not Opened or not self._has_asked:
            raise ProtocolError("a store answers Open with Opened")
        self._client.opened(self, message)
        self._settled.set()

    def message_received(self, message: Message) -> None:
        if type(message) is Answer:
            self._client.on_event(message)
            if message.receipt:
                self.acknowledge_now()
        elif type(message) is Failed or type(message) is Withdrawn:
            self._client.on_event(message)
        else:
            raise ProtocolError(f"a client takes no {type(message).__name__}")

    def room_made(self) -> None:
        self._client.note_room()

    def protocol_broken(self, error: ProtocolError) -> None:
        if not self._settled.is_set():
            self._why_not_open = error
        super().protocol_broken(error)

    def closed(self, reason: str, final: bool) -> None:
        if self._welcome or self._is_unix:
            pass
        elif self._has_tls:
            self._why_not_open = self._why_not_open or CertificateRefusedError(CERTIFICATE_REFUSED)
        else:
            reason += ", before it said a word (a store with TLS needs ssl=)"
        # Also where it has just been opened: whoever waits in wait_open() has not seen it open yet.
        self._why_not_open = self._why_not_open or ConnectionError(reason)
        self._welcomed.set()
        self._settled.set()
        self._client.connection_closed(self, reason, final)
