"""The door between a store and the process of its side port: a socket pair, questions one way, answers the other.

A frame is its length (four bytes, big endian) and one MessagePack value. The store says at first, and again when that
has changed, ["introduction", ...]: its address, its tokens. The other end asks [QUESTION, argument...] and gets, in the
order of its questions, ["answer", packed value, seconds]: how long the store's event loop was at it. When one end goes
away, the other one has nothing more to do.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from aiopg._core.messages import pack_value, unpack_value
from aiopg.errors import StoreLostError
from aiopg.stores.base import Excerpt
from aiopg.tokens import Token

__all__ = ["STATUS", "TRACE", "Door", "Introduction", "read_frame", "write_frame"]

STATUS: Final = "status"
TRACE: Final = "trace"

_LENGTH = struct.Struct("!I")


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """The next value. Raises `EOFError` where the other end is gone, `ProtocolError` for bytes that are no value."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return unpack_value((await reader.readexactly(length),))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError from error


def write_frame(writer: asyncio.StreamWriter, value: object) -> None:
    """Send one value. Who sends much awaits `writer.drain()` behind it."""
    body = b"".join(pack_value(value))
    writer.write(_LENGTH.pack(len(body)))
    writer.write(body)


@dataclass(frozen=True, slots=True)
class Introduction:
    """What the side port must know of its store before it asks."""

    url: str
    """Where members find the store."""
    tokens: tuple[Token, ...] = ()
    """Who looks must know one of these; none: everybody may look."""
    host: str = ""
    """Name or address that the side port was told to listen on."""
    certificate: tuple[str, str] | None = None
    """Files with the certificate of the side port and its key; None: it serves without TLS."""

    def pack(self) -> list[Any]:
        """As plain values."""
        tokens = [
            [token.secret, list(token.groups), token.expires.isoformat() if token.expires else None]
            for token in self.tokens
        ]
        return [self.url, tokens, self.host, self.certificate]

    @classmethod
    def unpack(cls, packed: list[Any]) -> Introduction:
        """The same again."""
        url, tokens, host, certificate = packed
        return cls(
            url,
            tuple(
                Token(secret, tuple(groups), datetime.fromisoformat(expires) if expires else None)
                for secret, groups, expires in tokens
            ),
            host,
            tuple(certificate) if certificate else None,
        )


class Door:
    """The far end, in the process of the side port: all that it learns of the store comes through here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._closed = False
        self.spent = 0.0
        """Seconds that the store's event loop was at the last answer."""

    async def run(self, on_introduction: Callable[[Introduction], None]) -> None:
        """Read what the store says until it is gone; what it says of itself is for `on_introduction`."""
        try:
            while True:
                match await read_frame(self._reader):
                    case ["introduction", packed]:
                        on_introduction(Introduction.unpack(packed))
                    case ["answer", packed, spent]:
                        self.spent = spent
                        answer = self._asked.popleft()
                        if not answer.done():  # who asked may have been cancelled
                            answer.set_result(unpack_value((packed,)))
        except EOFError:
            pass
        finally:
            self._closed = True
            for answer in self._asked:
                if not answer.done():
                    answer.set_exception(_gone())
            self._writer.close()

    async def status(self) -> dict[str, Any]:
        """State of the store (`StoreServer.describe`). Raises `StoreLostError`."""
        described: dict[str, Any] = await self._ask(STATUS)
        return described

    async def trace(self, after: int, most: int) -> Excerpt:
        """What happened after number `after` (`StoreServer.trace`), `most` of it. Raises `StoreLostError`."""
        return Excerpt.of(await self._ask(TRACE, after, most))

    async def _ask(self, *question: object) -> Any:
        if self._closed:
            raise _gone()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        write_frame(self._writer, list(question))
        return await answer


def _gone() -> StoreLostError:
    return StoreLostError("the other end of the door", "its process is gone")
