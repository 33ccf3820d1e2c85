"""A member of a group as the checks use it: the verbs of `Member`, with the call made here."""

from __future__ import annotations

import asyncio

from aiopg.stores.base import Call, Member, Needs, Place, StoreLink, Tag

__all__ = ["LONG", "Seat", "new_call"]

LONG = 20.0
"""Seconds that a call may take that nothing keeps waiting."""


def new_call(op: str, group: str, rank: int, tag: Tag, seq: int, timeout: float) -> Call:
    """A call that begins now, with so many seconds."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    return Call(op, group, rank, tag, seq, loop, now, now + timeout)


class Seat:
    """One rank's seat. Payloads go in and come out as bytes."""

    def __init__(self, link: StoreLink, member: Member, group: str, rank: int, world_size: int) -> None:
        self.link, self.member, self.group = link, member, group
        self.rank, self.world_size = rank, world_size
        self.metadata: tuple[bytes, ...] = ()
        """What each rank said of itself, if it came by `enlist`."""

    def call(self, op: str, *, tag: Tag = 0, seq: int = 1, timeout: float = LONG) -> Call:
        """A call of this member."""
        return new_call(op, self.group, self.rank, tag, seq, timeout)

    async def put(self, dst: int, payload: bytes, *, tag: Tag = 0, timeout: float = LONG) -> None:
        """Send."""
        await self.member.put(self.call("send", tag=tag, timeout=timeout), dst, (payload,))

    async def take(self, src: int, *, tag: Tag = 0, timeout: float = LONG) -> bytes:
        """Receive."""
        return bytes(await self.member.take(self.call("recv", tag=tag, timeout=timeout), src))

    async def round(
        self,
        seq: int,
        *parts: bytes,
        op: str = "all_gather",
        root: int = -1,
        detail: str = "",
        needs: int = Needs.ALL,
        tag: Tag = 0,
        timeout: float = LONG,
    ) -> list[bytes]:
        """Arrive at a round; the parts that came."""
        call = self.call(op, tag=tag, seq=seq, timeout=timeout)
        return [bytes(part) for part in await self.member.round(call, root, detail, list(parts), needs)]

    async def happenings(self, after: int, *, timeout: float = LONG) -> list[tuple[str, int]]:
        """What happened to whom after the first `after` happenings."""
        told = await self.member.happenings(self.call("events", timeout=timeout), after)
        return [(what, rank) for what, rank, _ in told]

    async def happened(self, count: int) -> list[tuple[str, int]]:
        """The first `count` of them."""
        told: list[tuple[str, int]] = []
        while len(told) < count:
            told += await self.happenings(len(told))
        return told[:count]

    async def reform(self, metadata: bytes = b"", *, ttl: float = 3600.0, timeout: float = LONG) -> Place:
        """Ask for a place in the next incarnation."""
        return await self.member.reform(self.call("reform", timeout=timeout), ttl=ttl, metadata=metadata)

    async def leave(self) -> None:
        """Give the seat up."""
        await self.member.leave(self.call("leave"))

    async def abort(self, reason: str) -> None:
        """Fail every call of the group."""
        await self.member.abort(self.call("abort"), reason)

    async def expire(self) -> int:
        """Drop what is past its time."""
        return await self.member.expire(self.call("expire_data"))
