"""One connection between a member and a store: the asyncio shell round handshake, frames and session.

It is the same at both ends; `server` and `client` each derive from it and add what they do with a message.
Nothing is awaited here: bytes come in by callbacks and go out by `transport.write`, and no user code runs in
between, so a connection can never be left in the middle of a frame.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

from aiopg._core.frames import Body, Buffer, FrameReceiver
from aiopg._core.handshake import HANDSHAKE_BYTES, check_magic
from aiopg._core.limits import Limits
from aiopg._core.messages import Acknowledge, Goodbye, Message, decode_message
from aiopg._core.session import Session
from aiopg.errors import ProtocolError

__all__ = ["Link"]

ACKNOWLEDGE_SECONDS = 0.1
"""A message that nothing of ours answered by then is acknowledged by a frame of its own."""

ACKNOWLEDGE_MESSAGES = 64
"""As many unacknowledged messages are acknowledged at once, so that the sender's outbox stays short."""

CLOSE_SECONDS = 2.0
"""What is still unwritten this long after close() is dropped: a peer that does not read cannot hold a close up."""


class Link(asyncio.BufferedProtocol):
    """One connection. Subclasses say what to do with the other end's first bytes, frames and messages."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._preamble = memoryview(bytearray(HANDSHAKE_BYTES))
        self._preamble_filled = 0
        self._receiver = FrameReceiver(limits)
        self._session: Session | None = None
        self._acknowledge_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._writing_paused = False
        self._closed = False
        self.on_acknowledged: Callable[[], None] | None = None
        """Called after each frame, which may have acknowledged more of our messages; None while nobody asks."""

    # ------------------------------------------------------------------------------------ for the subclasses

    @abstractmethod
    def preamble_received(self, data: bytes) -> None:
        """The other end's 64 handshake bytes are there. May raise `ProtocolError`."""

    @abstractmethod
    def opening_received(self, message: Message) -> None:
        """A message came before the session was attached. May raise `ProtocolError`."""

    @abstractmethod
    def message_received(self, message: Message) -> None:
        """The session's next message. May raise `ProtocolError`."""

    @abstractmethod
    def closed(self, reason: str) -> None:
        """The connection is over; called once, whoever ended it."""

    def protocol_broken(self, error: ProtocolError) -> None:
        """The other end broke the protocol; what follows cannot be understood."""
        self.close(f"protocol error: {error}")

    def attach(self, session: Session) -> None:
        """From here on, frames belong to this session."""
        self._session = session

    def send(self, message: Message) -> None:
        """Send a message of the session's stream; if the connection is over, the session keeps it."""
        session = self._session
        assert session is not None
        buffers = session.send(message)
        if len(buffers) == 1 and not (self._closed or self._writing_paused) and self._transport is not None:
            self._transport.write(buffers[0])
        else:
            self._write(buffers)

    def send_aside(self, message: Message) -> None:
        """Send a message that is not part of the session's stream."""
        session = self._session or Session(self._limits)
        self._write(session.aside(message))

    def write_preamble(self, data: bytes) -> None:
        """Send our 64 handshake bytes."""
        self._write((data,))

    def acknowledge_now(self) -> None:
        """Tell the other end at once what we hold."""
        assert self._session is not None
        self._write(self._session.acknowledge())

    def close(self, reason: str) -> None:
        """Say goodbye with the reason and close when all is written."""
        if not self._closed:
            self.send_aside(Goodbye(reason))
        self._end(reason, abort=False)

    def finish(self, reason: str) -> None:
        """Close when all is written, without another word."""
        self._end(reason, abort=False)

    def cut(self, reason: str) -> None:
        """Close at once and drop what is not written."""
        self._end(reason, abort=True)

    # -------------------------------------------------------------------------- asyncio.BufferedProtocol's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "the connection was closed by the other end", abort=True)
        self._transport = None
        if self._close_timer is not None:
            self._close_timer.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._preamble_filled < HANDSHAKE_BYTES:
            return self._preamble[self._preamble_filled :]
        return self._receiver.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._preamble_filled < HANDSHAKE_BYTES:
                self._preamble_filled += nbytes
                check_magic(bytes(self._preamble[: self._preamble_filled]))
                if self._preamble_filled == HANDSHAKE_BYTES:
                    self.preamble_received(bytes(self._preamble))
                return
            for head, body in self._receiver.buffer_updated(nbytes):
                if self._closed:
                    return
                self._frame_received(head, body)
        except ProtocolError as error:
            self.protocol_broken(error)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False

    # ------------------------------------------------------------------------------------------------ inside

    def _frame_received(self, head: list[Any], body: Body) -> None:
        session = self._session
        if session is None:
            self.opening_received(decode_message(head, body))
            return
        fresh = session.receive(head)
        if self.on_acknowledged is not None:
            self.on_acknowledged()
        if not fresh:
            return
        message = decode_message(head, body)
        if type(message) is Goodbye:
            self._end(message.reason, abort=False)
        elif type(message) is not Acknowledge:
            self.message_received(message)
        if session.received - session.told >= ACKNOWLEDGE_MESSAGES:
            self.acknowledge_now()
        elif self._acknowledge_timer is None and not self._closed:
            self._acknowledge_timer = self._loop.call_later(ACKNOWLEDGE_SECONDS, self._acknowledge_late)

    def _acknowledge_late(self) -> None:
        self._acknowledge_timer = None
        if self._session is not None and self._session.received > self._session.told:
            self.acknowledge_now()

    def _write(self, buffers: tuple[Buffer, ...]) -> None:
        transport = self._transport
        if transport is None or self._closed:
            return
        if len(buffers) == 1:
            transport.write(buffers[0])
        else:
            transport.writelines(buffers)
        if self._writing_paused and transport.get_write_buffer_size() > self._limits.output_bytes:
            self.cut(f"it does not read: {self._limits.output_bytes} bytes are waiting to be sent (output_bytes)")

    def _end(self, reason: str, *, abort: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._acknowledge_timer is not None:
            self._acknowledge_timer.cancel()
            self._acknowledge_timer = None
        if self._transport is not None:
            if abort:
                self._transport.abort()
            else:
                self._transport.close()
                self._close_timer = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
        self.closed(reason)
