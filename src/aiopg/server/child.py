"""The process that a `create()` with store_host="process" starts: `python -m aiopg.server.child LISTEN_FD READY_FD`.

It forks once and lets the first process end, so that the one which serves is a child of no rank: it is never a
zombie under rank 0, gets no signal meant for rank 0's terminal, and outlives rank 0. It says when it serves by a
byte on READY_FD, and ends when the last member of its store has left or was lost.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import anyio

from aiopg.loops import fast_loop
from aiopg.server._server import StoreServer

FIRST_MEMBER_SECONDS = 60.0
"""With no member by then, its founder died before it joined, and nobody else comes."""


async def serve(listen_socket: socket.socket, ready: int) -> None:
    """Serve until the last member is gone."""
    async with StoreServer(listen_socket=listen_socket) as server:
        os.write(ready, b"+")
        os.close(ready)
        with anyio.move_on_after(FIRST_MEMBER_SECONDS):
            await server.wait_joined()
        await server.wait_vacated()


def main() -> None:
    """Become a process of one's own and serve."""
    listen_fd, ready = map(int, sys.argv[1:3])
    if os.fork():
        os._exit(0)
    os.setsid()
    listen_socket = socket.socket(fileno=listen_fd)
    listen_socket.setblocking(False)
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(serve(listen_socket, ready))


if __name__ == "__main__":
    main()
