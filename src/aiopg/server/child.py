"""The process that `create()` starts: `python -m aiopg.server.child LISTEN_FD READY_FD GO_FD`.

It forks once and lets the first process end, so that the one which serves is a child of no rank: it is never a
zombie under rank 0, gets no signal meant for rank 0's terminal, and outlives rank 0. When it serves it writes
its process id to READY_FD and goes on if a byte comes from GO_FD: rank 0 may have been cancelled or killed meanwhile.
It ends when the last member of its store has left or was lost.

Until it serves, its complaints go to rank 0's standard error. Then it lets go of that: whoever reads rank 0's output
to its end must not have to wait for the store. With AIOPG_STORE_LOG=FILE in the environment it logs to that file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys

import anyio

from aiopg.loops import fast_loop
from aiopg.server._server import StoreServer
from aiopg.server.collecting import collect_seldom
from aiopg.server.descriptors import raise_limit
from aiopg.server.scheduling import behind_members

FIRST_MEMBER_SECONDS = 60.0
"""With no member by then, its founder died before it joined, and nobody else comes."""


async def serve(listen_socket: socket.socket, ready: int, go: int) -> None:
    """Serve until the last member is gone."""
    with behind_members():
        async with StoreServer(listen_socket=listen_socket) as server:
            await _serve_members(server, ready, go)


async def _serve_members(server: StoreServer, ready: int, go: int) -> None:
    try:
        os.write(ready, str(os.getpid()).encode())
    except BrokenPipeError:
        return
    os.close(ready)
    await anyio.wait_readable(go)
    if not os.read(go, 1):
        return
    os.close(go)
    _let_go_of_stderr()
    with anyio.move_on_after(FIRST_MEMBER_SECONDS):
        await server.wait_joined()
    await server.wait_vacated()


def _let_go_of_stderr() -> None:
    log = os.environ.get("AIOPG_STORE_LOG")
    if log:
        logging.basicConfig(filename=log, level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    sink = os.open(log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(sink, 2)
    os.close(sink)


def main() -> None:
    """Become a process of one's own and serve."""
    listen_fd, ready, go = map(int, sys.argv[1:4])
    if os.fork():
        os._exit(0)
    os.setsid()
    raise_limit()
    collect_seldom()
    listen_socket = socket.socket(fileno=listen_fd)
    listen_socket.setblocking(False)
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(serve(listen_socket, ready, go))


if __name__ == "__main__":
    main()
