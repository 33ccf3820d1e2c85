"""Large messages on their way out.

A body that all ranks get is held once, and each of their sessions refers to it. A transport that cannot send all of it
at once may keep the rest as a copy: asyncio's does (before Python 3.12), and every transport with TLS has to. For a
thousand ranks that would be a thousand copies. So a transport is given a piece, and the next one when it has room.
"""

from __future__ import annotations

import asyncio
from collections import deque

from aiopg._core.frames import Buffer

__all__ = ["Outflow"]

PIECE_BYTES = 128 * 1024
"""A transport has at most so much of a large message, and what is its own idea of enough (64 KiB), in its hands."""


class Outflow:
    """What one connection has still to write, in order: large messages, and what was written behind them."""

    __slots__ = ("_is_paused", "_transport", "_unsent")

    def __init__(self, transport: asyncio.Transport, is_paused: bool) -> None:
        """`is_paused`: the transport has enough already."""
        self._transport = transport
        self._unsent: deque[Buffer] = deque()
        self._is_paused = is_paused

    def add(self, buffers: tuple[Buffer, ...]) -> bool:
        """Write these behind all else; whether the transport has it all."""
        self._unsent.extend(buffers)
        return self._flow()

    def pause(self) -> None:
        """The transport has enough."""
        self._is_paused = True

    def resume(self) -> bool:
        """The transport has room; whether it has it all now."""
        self._is_paused = False
        return self._flow()

    def _flow(self) -> bool:
        unsent, transport = self._unsent, self._transport
        # One that met an error is closing, and asyncio would log every further write.
        while unsent and not self._is_paused and not transport.is_closing():
            buffer = unsent.popleft()
            if len(buffer) > PIECE_BYTES:
                view = memoryview(buffer)
                unsent.appendleft(view[PIECE_BYTES:])
                buffer = view[:PIECE_BYTES]
            transport.write(buffer)
        return not unsent
