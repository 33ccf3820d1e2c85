"""Somebody who speaks the protocol by hand, over a plain socket: to a store, or as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Self, cast

from aiopg._core.frames import FrameReceiver, Received
from aiopg._core.handshake import HANDSHAKE_BYTES, LOGIN_BYTES, login_proofs, pack_hello
from aiopg._core.limits import Limits
from aiopg._core.messages import Message, Open, Opened
from aiopg._core.session import Session
from aiopg._core.wire import decode_message
from aiopg.address import Address
from aiopg.tls import channel_binding

__all__ = ["Stranger", "fake_store"]


class Stranger:
    """A connection to a store, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.session = Session(Limits())
        self._frames = FrameReceiver(Limits())

    @classmethod
    async def come(cls, url: str, ssl: SSLContext | None = None) -> Self:
        """Connect to the store at `url`."""
        address = Address.parse(url)
        if address.path:
            return cls(*await asyncio.open_unix_connection(address.path))
        return cls(*await asyncio.open_connection(address.host, address.port, ssl=ssl))

    async def greet(self, nonce: bytes = b"n" * 32, token: bytes = b"") -> bytes:
        """Say hello, and log in if there is a token; what the store said last."""
        hello = pack_hello(nonce)
        self.writer.write(hello)
        welcome = await self.reader.readexactly(HANDSHAKE_BYTES)
        if not token:
            return welcome
        binding = channel_binding(cast(asyncio.Transport, self.writer.transport))
        self.writer.write(login_proofs(token, hello, welcome, binding).member)
        return await self.reader.readexactly(LOGIN_BYTES)

    async def open(self, token: bytes = b"") -> Self:
        """Be a member, with a session of one's own."""
        await self.greet(token=token)
        self.writer.writelines(self.session.aside(Open(b"", b"", 1, 0, 5.0, 0, 0, 0, "")))
        message = decode_message((await self.hear())[0])
        assert type(message) is Opened
        return self

    def say(self, message: Message) -> None:
        """Send a message of the session's stream."""
        self.writer.writelines(self.session.send(message))

    async def hear(self) -> list[Received]:
        """The next frames; none when the store has ended the connection."""
        while True:
            data = await self.reader.read(65536)
            frames = self._frames.receive_data(data)
            if frames or not data:
                for frame in frames:
                    self.session.receive(frame[0], frame[1])
                return frames

    async def wait_ended(self) -> bytes:
        """What the store says until it ends the connection."""
        said = bytearray()
        try:
            while data := await self.reader.read(65536):
                said += data
        except ConnectionError:
            pass  # that is an end as well
        return bytes(said)

    def leave(self) -> None:
        """End the connection."""
        self.writer.close()


@asynccontextmanager
async def fake_store(answer: Callable[[Stranger], Awaitable[None]]) -> AsyncIterator[str]:
    """Something that listens where a store should, and answers as it likes; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranger = Stranger(reader, writer)
        try:
            await answer(stranger)
            await stranger.wait_ended()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever came has gone
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"aiopg://127.0.0.1:{server.sockets[0].getsockname()[1]}"
