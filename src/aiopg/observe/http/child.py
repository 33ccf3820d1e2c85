"""The process of the side port: `python -m aiopg.observe.http.child DOOR_FD LISTEN_FD`. `SidePort` starts it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import sys
from contextlib import suppress

import anyio
import uvicorn
from starlette.types import ASGIApp

from aiopg.loops import fast_loop
from aiopg.observe.http._access import Access
from aiopg.observe.http._app import make_app
from aiopg.observe.http._connection import CONNECTIONS, Connection
from aiopg.observe.http._door import Door, Introduction, read_frame
from aiopg.observe.http._feed import Feed

__all__ = ["main"]

NICENESS = 5
"""Where there is too little processor time, whoever looks is to wait, and not the store or its ranks."""

GOODBYE_SECONDS = 1
"""Given to requests that are under way when the store ends."""


STRANGERS = (
    "ASGI callable returned without completing",  # who does not take what he is sent is dropped (`Feed.dropped`)
    "Exceeded concurrency limit",
    "Invalid HTTP request",
    "No supported WebSocket library",
    "Unsupported upgrade request",
)
"""What uvicorn says of requests that anybody may make, as often as he likes: a log is not to be filled with it."""


async def serve(door_socket: socket.socket, listening: socket.socket) -> None:
    """Serve as long as the store is there."""
    reader, writer = await asyncio.open_connection(sock=door_socket)
    _, packed = await read_frame(reader)
    said = Introduction.unpack(packed)
    door = Door(reader, writer)
    access = Access(said.tokens, said.host, listening.getsockname()[1])
    feed = Feed(door, said.url)
    server = uvicorn.Server(_config(make_app(feed, access), said.certificate))

    def on_introduction(introduction: Introduction) -> None:
        access.tokens = introduction.tokens

    async def listen_to_the_store() -> None:
        await door.run(on_introduction)
        server.should_exit = True
        feed.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen_to_the_store)
        tasks.start_soon(feed.run)
        await server.serve(sockets=[listening])
        tasks.cancel_scope.cancel()


def _config(app: ASGIApp, certificate: tuple[str, str] | None) -> uvicorn.Config:
    cert, key = certificate or (None, None)
    config = uvicorn.Config(
        app,
        http=Connection,
        log_config=None,
        access_log=False,  # who looks when is nobody's business, and no URL is written down anywhere
        server_header=False,
        proxy_headers=False,  # otherwise whoever connects from this host says which address he has
        ws="none",
        lifespan="off",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3  # as the store's own
    return config


def main() -> None:
    """Serve until the store is gone."""
    door_socket, listening = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    logging.basicConfig(level=logging.WARNING, format="aiopg serve --http: %(message)s")
    logging.getLogger("uvicorn.error").addFilter(lambda record: not record.getMessage().startswith(STRANGERS))
    with suppress(PermissionError):  # a sandbox, such as that of deploy/aiopg.service, may not let us
        os.nice(NICENESS)
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(serve(door_socket, listening))


if __name__ == "__main__":
    main()
