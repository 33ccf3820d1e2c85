"""Frames: the unit that crosses a connection.

Theory of operation::

    frame = u32 head length | u32 body length | head | body        (lengths big-endian)
    head  = one MessagePack array of plain values, small
    body  = raw bytes, opaque here

Both lengths are checked against the limits as soon as they are there and before anything is allocated.
Small frames are parsed out of one buffer that is used again and again, and never rescanned. A body that
does not fit that buffer is received straight into a buffer of its own size, so that it is copied by the
kernel only.

The receiver hands out the memory to read into (`get_buffer`) and is told how much was read
(`buffer_updated`), which is how `asyncio.BufferedProtocol` reads; `receive_data` is the same for callers
who hold bytes.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import msgpack

from aiopg._core.limits import Limits
from aiopg.errors import ProtocolError

__all__ = ["Body", "Buffer", "Frame", "FrameReceiver", "body_size", "encode_frame"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes nobody will change any more. A memoryview has format "B"."""

Body: TypeAlias = tuple[Buffer, ...]
"""A body in pieces: its content is their concatenation. Pieces are shared, not copied."""

Frame: TypeAlias = tuple[list[Any], Body]

_LENGTHS = struct.Struct(">II")

RECEIVE_BUFFER = 32 * 1024
"""Size of the reused buffer; a frame that does not fit gets memory of its own for its body."""

JOIN_BELOW = 16 * 1024
"""Bodies up to this size are copied behind their head: one buffer, one system call. Larger ones are not."""


def body_size(body: Body) -> int:
    """Bytes in `body`."""
    return sum(map(len, body))


def encode_frame(packed_head: bytes, body: Body) -> tuple[Buffer, ...]:
    """The buffers that make up one frame, in order; one single buffer where the body is small."""
    if not body:
        return (_LENGTHS.pack(len(packed_head), 0) + packed_head,)
    size = sum(map(len, body))
    lengths = _LENGTHS.pack(len(packed_head), size)
    if size <= JOIN_BELOW:
        return (b"".join((lengths, packed_head, *body)),)
    return (lengths + packed_head, *body)


class FrameReceiver:
    """Turns what a connection delivers into frames.

    Raises `ProtocolError` for a length over its limit or a head that is no MessagePack array. After that the
    receiver must not be used again: where one frame ends and the next begins is no longer known.
    """

    def __init__(self, limits: Limits) -> None:
        self._head_bytes = limits.head_bytes
        self._body_bytes = limits.body_bytes
        self._buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self._start = 0  # first byte not yet parsed
        self._end = 0  # first byte not yet filled
        self._head: list[Any] | None = None  # of the large body under way
        self._body = memoryview(bytearray(0))
        self._filled = 0

    def get_buffer(self) -> memoryview:
        """Memory to read into, at least one byte."""
        if self._head is not None:
            return self._body[self._filled :]
        return self._buffer[self._end :]

    def buffer_updated(self, count: int) -> list[Frame]:
        """Say that `count` bytes were read into `get_buffer()`; the frames that are now whole, in order."""
        if self._head is not None:
            return self._body_updated(count)
        frames: list[Frame] = []
        buffer, start = self._buffer, self._start
        self._end = end = self._end + count
        while end - start >= 8:
            head_size, size = _LENGTHS.unpack_from(buffer, start)
            if not 0 < head_size <= self._head_bytes or size > self._body_bytes:
                raise self._too_long(head_size, size)
            body_start = start + 8 + head_size
            stop = body_start + size
            if stop > end:
                if body_start <= end and stop - start > RECEIVE_BUFFER:
                    self._begin_body(self._parse_head(start + 8, body_start), body_start, size)
                    return frames
                break
            head = self._parse_head(start + 8, body_start)
            frames.append((head, (bytes(buffer[body_start:stop]),) if size else ()))
            start = stop
        if start == end:
            self._start = self._end = 0
        else:
            self._keep_from(start)
        return frames

    def receive_data(self, data: Buffer) -> list[Frame]:
        """The same for bytes in hand: the frames that `data` completes, in order."""
        frames: list[Frame] = []
        view = memoryview(data)
        while view:
            target = self.get_buffer()
            count = min(len(target), len(view))
            target[:count] = view[:count]
            view = view[count:]
            frames += self.buffer_updated(count)
        return frames

    def _too_long(self, head_size: int, size: int) -> ProtocolError:
        if not 0 < head_size <= self._head_bytes:
            return ProtocolError(f"frame head of {head_size} bytes; 1 to {self._head_bytes} are allowed")
        return ProtocolError(f"frame body of {size} bytes; at most {self._body_bytes} are allowed")

    def _parse_head(self, start: int, stop: int) -> list[Any]:
        try:
            head = msgpack.unpackb(self._buffer[start:stop])
        except (ValueError, msgpack.UnpackException) as error:
            raise ProtocolError(f"frame head is not MessagePack: {error}") from error
        if type(head) is not list:
            raise ProtocolError("frame head is not an array")
        return head

    def _keep_from(self, start: int) -> None:
        """Keep the unparsed rest; move it to the front where the frame it begins could not fit behind it."""
        rest = self._end - start
        if (start and self._end == len(self._buffer)) or start > RECEIVE_BUFFER // 2:
            self._buffer[:rest] = bytes(self._buffer[start : self._end])
            start = 0
        self._start, self._end = start, start + rest

    def _begin_body(self, head: list[Any], body_start: int, size: int) -> None:
        self._head = head
        self._body = memoryview(bytearray(size))
        self._filled = self._end - body_start
        self._body[: self._filled] = self._buffer[body_start : self._end]
        self._start = self._end = 0

    def _body_updated(self, count: int) -> list[Frame]:
        self._filled += count
        if self._filled < len(self._body):
            return []
        assert self._head is not None
        frame: Frame = (self._head, (self._body.toreadonly(),))
        self._head = None
        self._body = memoryview(bytearray(0))
        return [frame]
