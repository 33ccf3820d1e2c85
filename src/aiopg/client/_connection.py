"""The client's end of one connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiopg._core.handshake import pack_hello, parse_welcome
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Failed, Goodbye, Message, Opened, Withdrawn
from aiopg.errors import ProtocolError
from aiopg.link import Link

if TYPE_CHECKING:
    from aiopg.client._client import Client

__all__ = ["ClientConnection", "SessionOverError"]


class SessionOverError(Exception):
    """The store does not have this session any more, and says so: no other connection will bring it back.

    Never leaves `client`.
    """


class ClientConnection(Link):
    """Handshake, then events in; the commands go out through `Link.send`."""

    def __init__(self, client: Client, limits: Limits, nonce: bytes) -> None:
        super().__init__(limits)
        self._client = client
        self._hello = pack_hello(nonce)
        self._settled = asyncio.Event()  # open, or never going to be
        self._why_not_open: Exception | None = None

    async def wait_open(self) -> None:
        """Wait until the session goes over this connection.

        Raises:
            SessionOverError: the store says that the session is over, or refuses to open one.
            ProtocolError: what answered is not a store, or speaks another version.
            ConnectionError: the connection ended first.
        """
        await self._settled.wait()
        if self._why_not_open is not None:
            raise self._why_not_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write((self._hello,))

    def preamble_received(self, data: bytes) -> None:
        welcome = parse_welcome(data)
        if welcome.refusal:
            raise ProtocolError(f"the store refuses: {welcome.refusal}")
        try:
            self.send_aside(self._client.opening(self._hello, data, welcome.epoch))
        except SessionOverError as error:
            self._why_not_open = error
            self.finish(str(error))

    def opening_received(self, message: Message) -> None:
        if type(message) is Goodbye:
            self._why_not_open = SessionOverError(message.reason)
            self.finish(message.reason)
            return
        if type(message) is not Opened:
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

    def protocol_broken(self, error: ProtocolError) -> None:
        if not self._settled.is_set():
            self._why_not_open = error
        super().protocol_broken(error)

    def closed(self, reason: str, final: bool) -> None:
        # Also where it has just been opened: whoever waits in wait_open() has not seen it open yet.
        self._why_not_open = self._why_not_open or ConnectionError(reason)
        self._settled.set()
        self._client.connection_closed(self, reason, final)
