"""Single questions to a server, beside the rooms: the script is loaded, rooms are registered and described."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from aiopg._core.frames import Buffer
from aiopg.stores.redis._node import Caller, Node, pack

__all__ = ["Question"]


class Question(Caller):
    """A command whose answer somebody may await, once. It is not asked again when the connection breaks."""

    def __init__(self, node: Node, *arguments: bytes) -> None:
        self._arguments = arguments
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        node.call(self)

    def compose(self) -> tuple[list[Buffer], int] | None:
        return None if self._future.done() else pack([(argument,) for argument in self._arguments])

    def answered(self, reply: Any) -> None:
        if not self._future.done():
            self._future.set_result(reply)

    def cut(self) -> None:
        self.answered(RedisConnectionError("the connection broke"))

    async def answer(self) -> Any:
        """What the server says. Raises what it said, if that is an error, and one of `BROKEN`."""
        reply = await self._future
        if isinstance(reply, Exception):
            raise reply
        return reply
