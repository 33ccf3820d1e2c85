"""Connections on which no request comes: they are let go, and keep nobody out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from aiopg.observe.http import _connection
from aiopg.observe.http._connection import Connection

MOST = 8

ANSWER = PlainTextResponse("ok")


@pytest.fixture(autouse=True)
def few_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many connections, and so little time."""
    monkeypatch.setattr(_connection, "CONNECTIONS", MOST)
    monkeypatch.setattr(_connection, "IDLE_SECONDS", 0.2)


@asynccontextmanager
async def served(app: ASGIApp = ANSWER) -> AsyncIterator[tuple[str, int]]:
    """Where something is served as the side port is."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=Connection, log_config=None, ws="none", lifespan="off", limit_concurrency=MOST)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        await running


async def is_let_go(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(20):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def end(writer: asyncio.StreamWriter) -> None:
    """Close it; the other end may have done so."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: a"])
async def test_who_asks_for_nothing_is_let_go(said: bytes) -> None:
    """Also who says half of a request."""
    async with served() as where:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(said)
        assert await is_let_go(reader)
        await end(writer)


async def test_who_asked_once_is_not_kept_for_half_of_another_request() -> None:
    """The first answer comes; then it is as with the first request."""
    async with served() as where:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET")
        async with asyncio.timeout(20):
            assert b"ok" in await reader.read()
        await end(writer)


async def test_who_reads_slowly_gets_all_of_it() -> None:
    """An answer is complete for the server long before it has arrived."""
    size = 16 * 1024 * 1024
    async with served(PlainTextResponse("x" * size)) as where:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(1.0)  # five times as long as a connection may be idle
            body = await reader.read()
        assert (len(body), b"200 OK" in head) == (size, True)
        await end(writer)


async def test_the_silent_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there may be at once, and more; whoever asks for something then takes the place of the oldest."""
    monkeypatch.setattr(_connection, "IDLE_SECONDS", 3600.0)
    async with served() as where:
        silent = [await asyncio.open_connection(*where) for _ in range(MOST * 2)]
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            assert (await http.get(f"http://127.0.0.1:{where[1]}/")).text == "ok"
        assert await is_let_go(silent[0][0])
        for _, writer in silent:
            await end(writer)
