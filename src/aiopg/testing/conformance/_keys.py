"""The keys of a group as the checks use them: the verbs of `Keys`, with the call made here."""

from __future__ import annotations

import asyncio

from aiopg.stores.keys import KeyCall
from aiopg.testing.conformance._seat import LONG, Seat

__all__ = ["GroupKeys", "new_key_call"]


class GroupKeys:
    """The key space of the incarnation that a member sits in."""

    def __init__(self, seat: Seat) -> None:
        self._keys = seat.link.keys(seat.member)

    async def set(self, key: str, value: bytes, *, session: bool = False) -> int:
        """Give a key a value."""
        return await self._keys.set(new_key_call("set", key), [(key, value)], ttl=None, session=session)

    async def get(self, key: str) -> bytes:
        """What a key holds, as soon as it is there."""
        (value,) = await self._keys.get(new_key_call("get", key))
        return value

    async def names(self) -> list[str]:
        """The keys that there are."""
        return await self._keys.list(new_key_call("list_keys", ""), "")


def new_key_call(op: str, key: str) -> KeyCall:
    """A call that begins now, with `LONG` seconds."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    return KeyCall(op, (key,), loop, now, now + LONG)
