"""A session with a store server, from the client's side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiopg._core.handshake import pack_hello, parse_welcome
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Event, Failed, Goodbye, Message, Open, Opened, Withdrawn
from aiopg._core.session import Session
from aiopg.address import Address
from aiopg.errors import ProtocolError
from aiopg.link import Link

__all__ = ["Client"]


class Client(Link):
    """One connection to a store and the session it carries.

    `on_event` gets every event of the session; `on_lost` is called once with the reason when the session is over,
    unless it ended by `close`.
    """

    def __init__(self, limits: Limits, address: Address, nonce: bytes) -> None:
        super().__init__(limits)
        self.address = address
        self.payload_bytes = limits.payload_bytes
        self.pid = 0
        """Process of the store; 0 until opened."""
        self.on_event: Callable[[Event], None] = _nobody_listens
        self.on_lost: Callable[[str], None] = _nobody_listens
        self._nonce = nonce
        self._settled = asyncio.Event()  # open, or never going to be
        self._why_not_open: Exception | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._session else "opening"
        return f"<Client {self.address} {state} {self._session}>"

    async def open(self) -> None:
        """Wait until the session is open.

        Raises:
            ProtocolError: what answered is not a store, or speaks another version.
            ConnectionError: the connection ended first.
        """
        await self._settled.wait()
        if self._why_not_open is not None:
            raise self._why_not_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write_preamble(pack_hello(self._nonce))

    def preamble_received(self, data: bytes) -> None:
        welcome = parse_welcome(data)
        if welcome.refusal:
            raise ProtocolError(f"the store refuses: {welcome.refusal}")
        self.send_aside(Open(b"", 0))

    def opening_received(self, message: Message) -> None:
        if type(message) is Goodbye:
            self.finish(message.reason)
            return
        if type(message) is not Opened:
            raise ProtocolError("a store answers Open with Opened")
        self.attach(Session(self._limits))
        self.payload_bytes = message.payload_bytes
        self.pid = message.pid
        self._settled.set()

    def message_received(self, message: Message) -> None:
        if type(message) is Answer:
            self.on_event(message)
            if message.receipt:
                self.acknowledge_now()
        elif type(message) is Failed or type(message) is Withdrawn:
            self.on_event(message)
        else:
            raise ProtocolError(f"a client takes no {type(message).__name__}")

    def protocol_broken(self, error: ProtocolError) -> None:
        if not self._settled.is_set():
            self._why_not_open = error
        super().protocol_broken(error)

    def closed(self, reason: str) -> None:
        # Also where it has just been opened: whoever waits in open() has not seen it open yet.
        self._why_not_open = self._why_not_open or ConnectionError(reason)
        self._settled.set()
        self.on_lost(reason)


def _nobody_listens(_: object) -> None:
    pass
