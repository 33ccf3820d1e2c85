"""One connection between a member and a store: the asyncio shell round handshake, frames and session.

It is the same at both ends; `server` and `client` each derive from it and add what they do with a message. A session
outlives its connections: when one is over, what was sent is still in the session, and the next one begins with it.

Nothing is awaited here: bytes come in by callbacks and go out by `transport.write`, and no user code runs in
between, so a connection can never be left in the middle of a frame.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

from aiopg._core.frames import Buffer, FrameReceiver, Received, body_size
from aiopg._core.handshake import HANDSHAKE_BYTES, LOGIN_BYTES, check_magic
from aiopg._core.limits import Limits
from aiopg._core.lone import KIND_PLACE, LONE_READERS, LoneReader
from aiopg._core.messages import Acknowledge, Goodbye, Message
from aiopg._core.session import Session
from aiopg._core.wire import DECODERS, UNREADABLE, decode_message, unreadable
from aiopg.commons import Commons
from aiopg.errors import ProtocolError
from aiopg.outflow import LARGE_WRITE, Outflow

__all__ = ["Link"]

ACKNOWLEDGE_MESSAGES = 64
"""As many unacknowledged messages are acknowledged at once, so that the sender's outbox stays short."""

CLOSE_SECONDS = 2.0
"""What is still unwritten this long after close() is dropped: a peer that does not read cannot hold a close up."""

RETAINED_BYTES = Limits().retained_bytes
"""The other end has limits of its own: so many bytes of large messages, as many of small ones and one message more may
be under way when a store takes no more of them."""

_ASIDES = (Acknowledge, Goodbye)


class Link(asyncio.BufferedProtocol):
    """One connection. Subclasses say what to do with the other end's first bytes, frames and messages."""

    _lone_readers: Mapping[int, LoneReader] = LONE_READERS  # by kind, of what need not come by `_dispatch`

    def __init__(self, limits: Limits, commons: Commons) -> None:
        self._limits = limits
        self._commons = commons
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._block: memoryview | None = memoryview(bytearray(HANDSHAKE_BYTES))  # of the handshake, until frames come
        self._block_filled = 0
        self._receiver: FrameReceiver
        self._session: Session | None = None
        self._held: deque[Received] | None = None  # frames that wait until the session has room for their answers
        self._held_bytes = 0
        self._owes = False  # an acknowledgement, which `commons` collects in time
        self._close_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._gone: asyncio.Event | None = None  # once somebody waits for the end of the transport
        self._outflow: Outflow | None = None  # in the place of the transport
        self._paused = False  # the transport wants no more; what is small it gets all the same
        self.on_acknowledged: Callable[[], None] | None = None
        """Called after each read, which may have acknowledged more of our messages; None while nobody asks."""

    # ------------------------------------------------------------------------------------ for the subclasses

    @abstractmethod
    def preamble_received(self, data: bytes) -> None:
        """The other end's 64 handshake bytes are there. May raise `ProtocolError`."""

    @abstractmethod
    def login_received(self, data: bytes) -> None:
        """The other end's 32 bytes of login, which `await_login` asked for. May raise `ProtocolError`."""

    @abstractmethod
    def opening_received(self, message: Message) -> None:
        """A message came before the session was attached. May raise `ProtocolError`."""

    @abstractmethod
    def message_received(self, message: Message) -> None:
        """The session's next message. May raise `ProtocolError`."""

    @abstractmethod
    def closed(self, reason: str, final: bool) -> None:
        """The connection is over; called once, whoever ended it. `final`: and so is its session."""

    def room_made(self) -> None:
        """The session was full, and takes messages again."""

    def protocol_broken(self, error: ProtocolError) -> None:
        """The other end broke the protocol; what follows cannot be understood."""
        # Said in the handshake too: whoever speaks TLS to a store without it knows by these bytes what is wrong.
        self._part(f"protocol error: {error}")

    def await_login(self) -> None:
        """In `preamble_received`: what comes next is no frame but the other end's part of the login."""
        self._block = memoryview(bytearray(LOGIN_BYTES))
        self._block_filled = 0

    def attach(self, session: Session) -> None:
        """From here on, frames belong to this session."""
        self._session = session

    def send(self, message: Message) -> None:
        """Send a message of the session's stream; if the connection is over, the session keeps it."""
        buffers = self._session.send(message)  # type: ignore[union-attr]
        # As write, without the call: this is the way of every message.
        transport = self._transport
        if transport is None or self._closed or transport.is_closing():
            return
        if len(buffers) == 1:
            transport.write(buffers[0])
        else:
            self.write_large(transport, buffers)

    def write(self, buffers: tuple[Buffer, ...]) -> None:
        """Write what the session made of a message, or drop it if the connection is over."""
        transport = self._transport
        # One that met an error while writing is closing, and says so with its next pass only: asyncio would log it.
        if transport is None or self._closed or transport.is_closing():
            return
        if len(buffers) == 1:
            transport.write(buffers[0])
        else:
            self.write_large(transport, buffers)

    def write_large(self, transport: asyncio.Transport, buffers: tuple[Buffer, ...]) -> None:
        """Write what is too large to be one buffer: in one go, or as the transport takes it."""
        if sum(map(len, buffers)) > LARGE_WRITE and not isinstance(transport, Outflow):
            self._outflow = transport = self._transport = Outflow(transport, self._loop, self._flown, self._paused)
        transport.writelines(buffers)

    def send_aside(self, message: Message) -> None:
        """Send a message that is not part of the session's stream."""
        session = self._session or Session(self._limits)
        self.write(session.aside(message))

    def acknowledge_now(self) -> None:
        """Tell the other end at once what we hold."""
        assert self._session is not None
        self.write(self._session.acknowledge())

    def acknowledge_late(self) -> bool:
        """See `Debtor`."""
        self._owes = False
        if self._closed or self._session is None or self._session.received <= self._session.told:
            return False
        self.acknowledge_now()
        return True

    def hold(self) -> None:
        """Take no more of the session's messages until it has room for the answers (`Session.full`)."""
        if self._held is None:
            self._held, self._held_bytes = deque(), 0

    def close(self, reason: str) -> None:
        """End the session: say goodbye with the reason and close when all is written."""
        if self._block is None:
            self._part(reason)
        else:
            # In the handshake a frame is noise, and a member would take us for something else and give up.
            self._end(reason, final=True, abort=False)

    def finish(self, reason: str) -> None:
        """Close when all is written, without another word; the session may go on over another connection."""
        self._end(reason, final=False, abort=False)

    async def wait_gone(self) -> None:
        """After `close`, `finish` or `cut`: wait until nothing is open any more, `CLOSE_SECONDS` at most.

        Over TLS both ends say goodbye first, and a loop that ends before that leaves a transport behind.
        """
        if self._transport is not None:
            self._gone = self._gone or asyncio.Event()
            await self._gone.wait()

    def cut(self, reason: str) -> None:
        """Close at once and drop what is not written; the session may go on over another connection."""
        self._end(reason, final=False, abort=True)

    # -------------------------------------------------------------------------- asyncio.BufferedProtocol's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._closed:
            self._transport.abort()  # it was ended between being accepted and being made

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "the connection was closed by the other end", final=False, abort=True)
        self._transport = self._outflow = None
        if self._gone is not None:
            self._gone.set()
        if self._close_timer is not None:
            self._close_timer.cancel()

    def pause_writing(self) -> None:
        self._paused = True
        if self._outflow is not None:
            self._outflow.pause_writing()

    def resume_writing(self) -> None:
        self._paused = False
        if self._outflow is not None:
            self._outflow.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._block is not None:
            return self._block[self._block_filled :]
        return self._receiver.window

    def buffer_updated(self, nbytes: int) -> None:
        if self._closed:
            return
        try:
            session = self._session
            was_full = session is None or session.full
            if session is None:
                session = self._opening_updated(nbytes)
                if session is None:
                    return
            elif (
                (window := self._receiver.window) is self._commons.buffer  # so this is the beginning of a frame
                and self._held is None
                and (read := self._lone_readers.get(window[KIND_PLACE])) is not None
                and (lone := read(window, nbytes, self._receiver.body_bytes)) is not None
            ):
                seq, ack, message = lone
                if session.receive(seq, ack):
                    self.message_received(message)
            else:
                self._frames_updated(session, nbytes)
            if self._held is not None:
                self._take_held(session)
            if self.on_acknowledged is not None:
                self.on_acknowledged()
            if was_full and not session.full:
                self.room_made()
            if session.received != session.told and (
                not self._owes or session.received - session.told >= ACKNOWLEDGE_MESSAGES
            ):
                self._acknowledge_in_time(session)
        except ProtocolError as error:
            self.protocol_broken(error)

    # ------------------------------------------------------------------------------------------------ inside

    def _flown(self, transport: asyncio.Transport) -> None:
        self._outflow = None
        self._transport = transport

    def _frames_updated(self, session: Session, nbytes: int) -> None:
        for frame in self._receiver.buffer_updated(nbytes):
            if self._closed:
                return
            if self._held is not None:
                self._hold_frame(session, frame)
            elif session.receive(frame[0], frame[1]):
                self._dispatch(frame)

    def _opening_updated(self, nbytes: int) -> Session | None:
        """Bytes came before the session was attached; the session, if it is since then."""
        if self._block is not None:
            self._block_updated(self._block, nbytes)
            return None
        for frame in self._receiver.buffer_updated(nbytes):
            if self._closed:
                return None
            if self._session is None:
                self.opening_received(decode_message(frame))
            elif self._session.receive(frame[0], frame[1]):
                self._dispatch(frame)
        return None if self._closed else self._session

    def _block_updated(self, block: memoryview, nbytes: int) -> None:
        if self._closed:
            return
        self._block_filled += nbytes
        is_login = len(block) == LOGIN_BYTES
        if not is_login:
            check_magic(bytes(block[: self._block_filled]))
        if self._block_filled < len(block):
            return
        self._block = None
        try:
            (self.login_received if is_login else self.preamble_received)(bytes(block))
        finally:
            if self._block is None:
                # Not before: who has not logged in costs no more memory than it must.
                self._receiver = FrameReceiver(self._limits, self._commons.buffer)
                self.frames_begin(self._receiver)

    def frames_begin(self, receiver: FrameReceiver) -> None:
        """What comes from here on is frames."""

    def _dispatch(self, frame: Received) -> None:
        seq, _, kind, fields, body = frame
        try:
            message = DECODERS[kind](fields, body)
        except UNREADABLE as error:
            raise unreadable(kind, fields, error) from None
        is_aside = type(message) in _ASIDES
        if is_aside is not (seq == 0):
            raise ProtocolError(f"a {type(message).__name__} with sequence number {seq}")
        if not is_aside:
            self.message_received(message)
        elif type(message) is Goodbye:
            self._end(message.reason, final=True, abort=False)

    def _hold_frame(self, session: Session, frame: Received) -> None:
        """Keep a frame as if it had not come, but for its acknowledgement: that is what makes room again."""
        assert self._held is not None
        if frame[1] > session.acknowledged:
            session.note_acknowledgement(frame[1])
        self._held.append(frame)
        self._held_bytes += body_size(frame[4])
        limits = self._limits
        most = 2 * max(limits.retained_bytes, RETAINED_BYTES) + limits.body_bytes
        if len(self._held) > 2 * limits.outbox_frames or self._held_bytes > most:
            raise ProtocolError(f"{len(self._held)} messages, while answers to others are not acknowledged")

    def _take_held(self, session: Session) -> None:
        held = self._held
        while held and not session.full and not self._closed:
            frame = held.popleft()
            self._held_bytes -= body_size(frame[4])
            if session.receive(frame[0], min(frame[1], session.acknowledged)):
                self._dispatch(frame)
        if not held and not session.full:
            self._held = None

    def _acknowledge_in_time(self, session: Session) -> None:
        if session.received - session.told >= ACKNOWLEDGE_MESSAGES:
            self.acknowledge_now()
        elif not self._owes and not self._closed:
            self._owes = True
            self._commons.owe(self)

    def _part(self, reason: str) -> None:
        if not self._closed:
            self.send_aside(Goodbye(reason))
        self._end(reason, final=True, abort=False)

    def _end(self, reason: str, *, final: bool, abort: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._session is None:
            # Over TLS there may be more to read before the transport is gone (asyncio asks for room while it closes).
            self._block, self._block_filled = memoryview(bytearray(HANDSHAKE_BYTES)), 0
        if self._transport is not None:
            if abort:
                self._transport.abort()
            else:
                self._close_transport()
        self.closed(reason, final)

    def _close_transport(self) -> None:
        """Close when all is written, and do not wait for that for ever."""
        if self._transport is not None:
            self._transport.close()
            self._close_timer = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
