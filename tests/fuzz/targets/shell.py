"""A loop and a transport that do nothing, so that both ends of a connection run as they are, without asyncio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiopg.link import Link

__all__ = ["DeadLoop", "DeadTransport", "dead_loop", "feed"]


class _Handle:
    def cancel(self) -> None:
        """Nothing was to come."""


class DeadLoop:
    """Time stands still, and nothing that is to be called later is."""

    def time(self) -> float:
        """Seconds."""
        return 1000.0

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> _Handle:
        """Never."""
        assert delay >= 0
        return _Handle()

    def call_soon(self, callback: Callable[..., object], *args: object) -> _Handle:
        """Never."""
        return _Handle()


class DeadTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def get_extra_info(self, name: str) -> None:
        """It has no socket."""

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def write(self, data: bytes) -> None:
        """Keep it."""
        assert not self.closed
        self.written += data

    def writelines(self, buffers: tuple[bytes, ...]) -> None:
        """Keep them."""
        self.write(b"".join(buffers))

    def close(self) -> None:
        """What was written has left."""
        self.closed = True

    abort = close


@contextmanager
def dead_loop() -> Iterator[None]:
    """What asks for the running loop gets a dead one, and what is logged is dropped."""
    logger = logging.getLogger("aiopg.server")
    disabled, loop = logger.disabled, asyncio._get_running_loop()
    logger.disabled = True
    asyncio._set_running_loop(DeadLoop())  # type: ignore[arg-type]
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        logger.disabled = disabled


def feed(link: Link, transport: DeadTransport, data: bytes, size: int) -> None:
    """Bytes come, at most `size` at once, until the link closes; then the other end is gone."""
    made: Any = transport
    link.connection_made(made)
    view = memoryview(data)
    while view and not transport.closed:
        window = link.get_buffer(-1)
        count = min(len(window), size, len(view))
        assert count
        window[:count] = view[:count]
        view = view[count:]
        link.buffer_updated(count)
    link.connection_lost(None)
