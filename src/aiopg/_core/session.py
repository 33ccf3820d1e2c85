"""A session: one ordered stream of messages each way, that outlives the connections which carry it.

Theory of operation. The class is the same at both ends.

- Every message that is sent gets the next sequence number (from 1, never reused) and stays in the outbox,
  encoded, until the other end has acknowledged it.
- Every frame carries, beside its own number, the highest number received without a gap. Acknowledgements are
  cumulative; one that says less than an earlier one says nothing new.
- What arrives twice is dropped, what arrives after a gap is an error: a connection delivers in order, so a
  gap means that one of the ends is wrong.
- A new connection begins with both ends saying what they hold; each then sends again, in order and as it was,
  what the other lacks (`resend`). Nothing is ever sent again on a connection that lives.

So each message takes effect exactly once, in order, over any number of connections, and the layers above
hold no retry logic.

A message with number 0 is outside the stream (`Acknowledge`, `Open`, ...): not kept, not acknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgpack

from aiopg._core.frames import Buffer, encode_frame
from aiopg._core.limits import Limits
from aiopg._core.messages import KIND_OF, Acknowledge, Message
from aiopg.errors import ProtocolError, UsageError

__all__ = ["Session"]


class Session:
    """One end of a session's two streams. Its attributes are for reading."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.outbox_frames
        self._head_bytes = limits.head_bytes
        # A packer of its own: sessions of one process may live in several threads.
        self._pack = msgpack.Packer().pack
        self._outbox: deque[tuple[int, tuple[Buffer, ...]]] = deque()
        self.sent = 0
        """Number of the last message sent."""
        self.acknowledged = 0
        """Number up to which the other end holds our messages."""
        self.received = 0
        """Number up to which we hold the other end's messages."""
        self.told = 0
        """Number up to which a frame of ours has acknowledged the other end's messages."""

    def __repr__(self) -> str:
        return f"<Session sent={self.sent} acknowledged={self.acknowledged} received={self.received} told={self.told}>"

    def send(self, message: Message) -> tuple[Buffer, ...]:
        """Number, keep and encode `message`; the buffers to write, in order.

        Raises `ProtocolError` if the other end has stopped acknowledging (`Limits.outbox_frames`), `UsageError` if
        a field of the message cannot be sent. Then nothing was sent, and the stream goes on.
        """
        if len(self._outbox) >= self._limit:
            raise ProtocolError(f"{self._limit} messages sent and none acknowledged")
        seq = self.sent + 1
        try:
            packed = self._pack((seq, self.received, KIND_OF[type(message)], *message[:-1]))
        except (ValueError, OverflowError) as error:  # no proper text, or an integer of more than 64 bits
            raise UsageError(f"a {type(message).__name__} cannot be sent: {error}") from error
        if len(packed) > self._head_bytes:
            raise UsageError(
                f"a {type(message).__name__} with names and texts of {len(packed)} bytes cannot be sent; "
                f"{self._head_bytes} are allowed"
            )
        buffers = encode_frame(packed, message[-1])
        self.sent = seq
        self.told = self.received
        self._outbox.append((seq, buffers))
        return buffers

    def aside(self, message: Message) -> tuple[Buffer, ...]:
        """Encode a message outside the stream; it still acknowledges what was received."""
        self.told = self.received
        return encode_frame(self._pack((0, self.received, KIND_OF[type(message)], *message[:-1])), message[-1])

    def acknowledge(self) -> tuple[Buffer, ...]:
        """A frame that does nothing but acknowledge."""
        return self.aside(Acknowledge())

    def receive(self, head: list[Any]) -> bool:
        """Take note of a frame's number and acknowledgement; whether its message is new and to be acted on.

        Raises `ProtocolError` for a gap, an acknowledgement of what was never sent, or a head without both.
        """
        if len(head) < 3 or type(head[0]) is not int or type(head[1]) is not int:
            raise ProtocolError("frame head without sequence number and acknowledgement")
        seq, ack = head[0], head[1]
        if ack > self.acknowledged:
            self.note_acknowledgement(ack)
        expected = self.received + 1
        if seq == expected:
            self.received = seq
            return True
        if seq > expected:
            raise ProtocolError(f"message {seq} came after {expected - 1}")
        return seq == 0

    def note_acknowledgement(self, ack: int) -> None:
        """The other end holds all up to `ack`. Raises `ProtocolError` if that was never sent."""
        if ack > self.sent:
            raise ProtocolError(f"message {ack} acknowledged, and only {self.sent} sent")
        if ack > self.acknowledged:
            self.acknowledged = ack
            outbox = self._outbox
            while outbox and outbox[0][0] <= ack:
                outbox.popleft()

    def resend(self, held: int) -> list[tuple[Buffer, ...]]:
        """For a new connection: what the other end, which holds all up to `held`, lacks, in order.

        Raises `ProtocolError` if it claims more than was sent, or lacks what it once acknowledged.
        """
        if held < self.acknowledged:
            raise ProtocolError(f"messages up to {self.acknowledged} were acknowledged, and now {held} are held")
        self.note_acknowledgement(held)
        return [buffers for _, buffers in self._outbox]
