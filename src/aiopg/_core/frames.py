"""Frames: the unit that crosses a connection.

Theory of operation::

    frame = u32 head length | u32 body length | head | body        (all numbers big-endian)
    head  = u64 sequence number | u64 acknowledgement | u8 kind | fields of the message (see `wire`)
    body  = raw bytes, opaque here

A sequence number of 0 is that of a message outside the session's stream (see `session`).

Both lengths are checked against the limits as soon as they are there and before anything is allocated.
Small frames are parsed out of one buffer that is used again and again, and never rescanned. A body that
does not fit that buffer is received straight into a buffer of its own size, so that it is copied by the
kernel only.

The receiver hands out the memory to read into (`window`) and is told how much was read (`buffer_updated`),
which is how `asyncio.BufferedProtocol` reads; `receive_data` is the same for callers who hold bytes. Between frames
that memory belongs to nobody in particular: thousands of receivers may share it (`receive_buffer`), and one that is in
the middle of a frame takes what there is of it into memory of its own. So a window that is the shared memory is where
a frame begins, which `lone` makes use of.

Every message of every rank passes through here, between two switches of processes and so with cold caches: what
counts is how few steps there are and how little memory they touch.
"""

from __future__ import annotations

import mmap
import struct
from typing import TypeAlias

from aiopg._core.limits import Limits
from aiopg.errors import ProtocolError

__all__ = ["Body", "Buffer", "FrameReceiver", "Received", "body_size", "receive_buffer"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes nobody will change any more. A memoryview has format "B"."""

Body: TypeAlias = tuple[Buffer, ...]
"""A body in pieces: its content is their concatenation. Pieces are shared, not copied."""

Received: TypeAlias = tuple[int, int, int, bytes, Body]
"""A frame that came: sequence number, acknowledgement, kind, fields of the head, body."""

PREFIX_CODES = ">IIQQB"
"""Both lengths and the beginning of every head, for `struct`."""

LENGTHS_BYTES = 8
"""What of it is not head."""

PREFIX_HEAD_BYTES = 17
"""What of it is head."""

_PREFIX = struct.Struct(PREFIX_CODES)
_unpack_prefix = _PREFIX.unpack_from
_PREFIX_BYTES = _PREFIX.size
_unpack_lengths = struct.Struct(">II").unpack_from

RECEIVE_BUFFER = 32 * 1024
"""Size of the reused buffer; a frame that does not fit gets memory of its own for its body."""

JOIN_BELOW = 16 * 1024
"""Bodies up to this size are copied behind their head: one buffer, one system call. Larger ones are not."""


MAP_FROM = 1024 * 1024
"""Bodies of this size or more are received into a mapping."""

READ_BYTES = 64 * 1024
"""Most that one read of a large body may bring. The kernel goes on as long as there is more, and a sender that keeps up
holds the reader for as long as the body takes. uvloop reads up to 32 times before others have their turn: 2 MiB."""

HUGE_PAGES_FROM = 4 * 1024 * 1024
"""When so much of a body has come, the rest is asked for in pages of 2 MiB, where the kernel has them: a third
of the time to fill, and 256 MiB are given back in 1 ms where small ones take 25 to 100 ms."""

_NO_BODY = memoryview(bytearray(0))


def body_size(body: Body) -> int:
    """Bytes in `body`."""
    return sum(map(len, body))


def receive_buffer() -> memoryview:
    """Memory that any number of receivers may read into between their frames.

    They must take turns: from taking `FrameReceiver.window` until `buffer_updated` has returned, no other one of them
    is used.
    """
    return memoryview(bytearray(RECEIVE_BUFFER))


class FrameReceiver:
    """Turns what a connection delivers into frames.

    Raises `ProtocolError` for a length that is not allowed. After that the receiver must not be used again: where one
    frame ends and the next begins is no longer known.
    """

    def __init__(self, limits: Limits, shared: memoryview | None = None) -> None:
        """`shared`: a `receive_buffer` that others read into as well; if not given, this one has its own."""
        self._head_bytes = limits.head_bytes
        self.body_bytes = limits.body_bytes
        """The longest body allowed; may be changed between reads."""
        self._shared = receive_buffer() if shared is None else shared
        self._buffer = self._shared  # or, while a small frame is incomplete, memory of its own
        self._start = 0  # first byte not yet parsed
        self._end = 0  # first byte not yet filled
        self._head: tuple[int, int, int, bytes] | None = None  # of the large body under way
        self._body = _NO_BODY
        self._mapping: mmap.mmap | None = None  # of that body, until large pages were asked for
        self._filled = 0
        self.window = self._buffer
        """Memory to read into, at least one byte."""

    def buffer_updated(self, count: int) -> list[Received]:
        """Say that `count` bytes were read into `window`; the frames that are now whole, in order."""
        if self._head is not None:
            return self._body_updated(count)
        buffer, start = self._buffer, self._start
        end = self._end + count
        frames: list[Received] = []
        while end - start >= _PREFIX_BYTES:
            head_size, size, seq, ack, kind = _unpack_prefix(buffer, start)
            if not PREFIX_HEAD_BYTES <= head_size <= self._head_bytes or size > self.body_bytes:
                raise self._not_allowed(head_size, size)
            body_start = start + 8 + head_size
            stop = body_start + size
            if stop > end:
                if body_start <= end and stop - start > RECEIVE_BUFFER:
                    self._head = seq, ack, kind, buffer[start + _PREFIX_BYTES : body_start].tobytes()
                    self._begin_body(body_start, end, size)
                    return frames
                break
            fields = buffer[start + _PREFIX_BYTES : body_start].tobytes()
            frames.append((seq, ack, kind, fields, (buffer[body_start:stop].tobytes(),) if size else ()))
            start = stop
        if start != end:
            self._keep(start, end)
        elif self._end:
            self._between_frames()
        return frames

    def receive_data(self, data: Buffer) -> list[Received]:
        """The same for bytes in hand: the frames that `data` completes, in order."""
        frames: list[Received] = []
        view = memoryview(data)
        while view:
            target = self.window
            count = min(len(target), len(view))
            target[:count] = view[:count]
            view = view[count:]
            frames += self.buffer_updated(count)
        return frames

    def _not_allowed(self, head_size: int, size: int) -> ProtocolError:
        if not PREFIX_HEAD_BYTES <= head_size <= self._head_bytes:
            return ProtocolError(
                f"frame head of {head_size} bytes; {PREFIX_HEAD_BYTES} to {self._head_bytes} are allowed"
            )
        return ProtocolError(f"frame body of {size} bytes; at most {self.body_bytes} are allowed")

    def _keep(self, start: int, end: int) -> None:
        """Keep the unparsed rest; move it to the front where the frame it begins could not fit behind it."""
        rest = end - start
        if 8 <= rest < _PREFIX_BYTES:  # lengths that are not allowed are refused before anything is waited for
            head_size, size = _unpack_lengths(self._buffer, start)
            if not PREFIX_HEAD_BYTES <= head_size <= self._head_bytes or size > self.body_bytes:
                raise self._not_allowed(head_size, size)
        if self._buffer is self._shared:
            self._buffer = receive_buffer()
            self._buffer[:rest] = self._shared[start:end]
            start = 0
        elif (start and end == len(self._buffer)) or start > RECEIVE_BUFFER // 2:
            self._buffer[:rest] = bytes(self._buffer[start:end])
            start = 0
        self._start, self._end = start, start + rest
        self.window = self._buffer[self._end :]

    def _begin_body(self, body_start: int, end: int, size: int) -> None:
        # What is only announced takes no memory: pages of a mapping are there when they are first written to.
        if size < MAP_FROM:
            self._body = memoryview(bytearray(size))
        else:
            mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._body, self._mapping = memoryview(mapping), mapping
        self._filled = end - body_start
        self._body[: self._filled] = self._buffer[body_start:end]
        self._between_frames()
        self.window = self._body[self._filled : self._filled + READ_BYTES]

    def _body_updated(self, count: int) -> list[Received]:
        self._filled += count
        if self._filled < len(self._body):
            self.window = self._body[self._filled : self._filled + READ_BYTES]
            if self._mapping is not None and self._filled >= HUGE_PAGES_FROM:
                if hasattr(mmap, "MADV_HUGEPAGE"):
                    self._mapping.madvise(mmap.MADV_HUGEPAGE)
                self._mapping = None
            return []
        assert self._head is not None
        frame: Received = (*self._head, (self._body.toreadonly(),))
        self._head = self._mapping = None
        self._body = _NO_BODY
        self.window = self._shared
        return [frame]

    def _between_frames(self) -> None:
        """Nothing is left unparsed in the buffer."""
        self._start = self._end = 0
        self._buffer = self.window = self._shared
