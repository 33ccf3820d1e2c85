"""Large messages on their way out, over a connection that ends meanwhile."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiopg.outflow import LARGE_WRITE, Outflow


class Writer(asyncio.Protocol):
    """Writes through an `Outflow`; the other end goes away just when the transport takes more."""

    def __init__(self, other_end: socket.socket) -> None:
        self.other_end = other_end
        self.outflow: Outflow | None = None
        self.resumed = False
        self.lost = asyncio.Event()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        if self.outflow is not None:
            self.outflow.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        assert self.outflow is not None
        self.resumed = True
        self.other_end.shutdown(socket.SHUT_RDWR)
        self.outflow.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self.lost.set()


async def test_a_connection_that_ends_as_its_transport_takes_more_ends_once() -> None:
    """asyncio ends a connection twice whose write fails within `resume_writing`: it would say so on stderr."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        transport, writer = await loop.create_connection(lambda: Writer(theirs), sock=ours)
        writer.outflow = Outflow(transport, loop, lambda _: None, paused=False)
        writer.outflow.write(bytes(16 * LARGE_WRITE))
        async with asyncio.timeout(10):
            while not writer.resumed:
                await loop.sock_recv(theirs, LARGE_WRITE)
            await writer.lost.wait()
        await asyncio.sleep(0)  # what else was to be called, is
    assert told == []
