"""A session: one ordered stream of messages each way, that outlives the connections which carry it.

Theory of operation. The class is the same at both ends.

- Every message that is sent gets the next sequence number (from 1, never reused) and stays in the outbox,
  encoded, until the other end has acknowledged it.
- Every frame carries, beside its own number, the highest number received without a gap. Acknowledgements are
  cumulative; one that says less than an earlier one says nothing new.
- What arrives twice is dropped, what arrives after a gap is an error: a connection delivers in order, so a
  gap means that one of the ends is wrong.
- What was given up before the other end had it is not sent again: something else takes its place (`replace`).
- A new connection begins with both ends saying what they hold; each then sends again, in order and as it was,
  what the other lacks (`resend`). Nothing is ever sent again on a connection that lives.

So each message takes effect exactly once, in order, over any number of connections, and the layers above
hold no retry logic.

A message with number 0 is outside the stream (`Acknowledge`, `Open`, ...): not kept, not acknowledged.
"""

from __future__ import annotations

from collections import deque

from aiopg._core.frames import Buffer
from aiopg._core.limits import Limits
from aiopg._core.messages import Acknowledge, Message
from aiopg._core.wire import LEAN_ENCODERS, encode_message
from aiopg.errors import ProtocolError

__all__ = ["Session"]


class Session:
    """One end of a session's two streams. Its attributes are for reading."""

    def __init__(self, limits: Limits) -> None:
        self.obey(limits)
        self._outbox: deque[tuple[Buffer, ...]] = deque()  # its first message has the number `acknowledged` + 1
        self.sent = 0
        """Number of the last message sent."""
        self.acknowledged = 0
        """Number up to which the other end holds our messages."""
        self.received = 0
        """Number up to which we hold the other end's messages."""
        self.told = 0
        """Number up to which a frame of ours has acknowledged the other end's messages."""
        self.retained = 0
        """Bytes of the large messages that are kept because they are not acknowledged. Small ones (one buffer, see
        `frames.JOIN_BELOW`) are limited by their number alone: to count their bytes would cost more than it tells."""
        self.full = False
        """Whether as much is retained as `Limits` allows, in number or bytes."""

    def obey(self, limits: Limits) -> None:
        """Keep these limits from here on."""
        self._frames_limit = limits.outbox_frames
        self._bytes_limit = limits.retained_bytes
        self._head_bytes = limits.head_bytes

    def __repr__(self) -> str:
        return (
            f"<Session sent={self.sent} acknowledged={self.acknowledged} received={self.received} "
            f"told={self.told} retained={self.retained}>"
        )

    def send(self, message: Message) -> tuple[Buffer, ...]:
        """Number, keep and encode `message`; the buffers to write, in order.

        Who can wait does so while the session is `full`. Raises `UsageError` if a field of the message cannot be
        sent; then nothing was sent, and the stream goes on.
        """
        seq = self.sent + 1
        received = self.received
        lean = LEAN_ENCODERS.get(type(message))
        frame = lean(seq, received, message) if lean is not None else None
        if frame is not None:
            buffers: tuple[Buffer, ...] = (frame,)
        else:
            buffers = encode_message(seq, received, message, self._head_bytes)
            if len(buffers) > 1:
                self.retained += sum(map(len, buffers))
                self.full = self.retained > self._bytes_limit or self.full
        self.sent = seq
        self.told = received
        if seq - self.acknowledged >= self._frames_limit:
            self.full = True
        self._outbox.append(buffers)
        return buffers

    def replace(self, seq: int, message: Message) -> None:
        """Should message `seq` have to be sent again, send this one in its place. Nothing if it is acknowledged."""
        place = seq - self.acknowledged - 1
        if place < 0:
            return
        before = self._outbox[place]
        if len(before) > 1:
            self.retained -= sum(map(len, before))
        self._outbox[place] = after = encode_message(seq, self.received, message, self._head_bytes)
        if len(after) > 1:
            self.retained += sum(map(len, after))

    def aside(self, message: Message) -> tuple[Buffer, ...]:
        """Encode a message outside the stream; it still acknowledges what was received."""
        buffers = encode_message(0, self.received, message, self._head_bytes)
        self.told = self.received
        return buffers

    def acknowledge(self) -> tuple[Buffer, ...]:
        """A frame that does nothing but acknowledge."""
        return self.aside(Acknowledge())

    def receive(self, seq: int, ack: int) -> bool:
        """Take note of a frame's number and acknowledgement; whether its message is new and to be acted on.

        Raises `ProtocolError` for a gap, or an acknowledgement of what was never sent.
        """
        if ack > self.acknowledged:
            if ack == self.acknowledged + 1 <= self.sent and not self.retained and not self.full:
                # As note_acknowledgement, without the call: this is the way of nearly every frame.
                self.acknowledged = ack
                self._outbox.popleft()
            else:
                self.note_acknowledgement(ack)
        if seq == self.received + 1:
            self.received = seq
            return True
        if seq > self.received:
            raise ProtocolError(f"message {seq} came after {self.received}")
        return seq == 0

    def note_acknowledgement(self, ack: int) -> None:
        """The other end holds all up to `ack`. Raises `ProtocolError` if that was never sent."""
        if ack > self.sent:
            raise ProtocolError(f"message {ack} acknowledged, and only {self.sent} sent")
        outbox = self._outbox
        for _ in range(ack - self.acknowledged):
            buffers = outbox.popleft()
            if len(buffers) > 1:
                self.retained -= sum(map(len, buffers))
        self.acknowledged = ack
        if self.full:
            self.full = self.retained > self._bytes_limit or len(outbox) >= self._frames_limit

    def resend(self, held: int) -> list[tuple[Buffer, ...]]:
        """For a new connection: what the other end, which holds all up to `held`, lacks, in order.

        Raises `ProtocolError` if it claims more than was sent, or lacks what it once acknowledged.
        """
        if held < self.acknowledged:
            raise ProtocolError(f"messages up to {self.acknowledged} were acknowledged, and now {held} are held")
        self.note_acknowledgement(held)
        return list(self._outbox)
