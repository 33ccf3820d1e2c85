"""A store around another one, verb by verb: what the planted bugs of `broken` are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from aiopg.stores.base import Body, Buffer, Call, Capabilities, Member, Place, StoreLink, Tag
from aiopg.stores.keys import Following, KeyCall, Keys

__all__ = ["KeysAround", "LinkAround", "MemberAround"]


class MemberAround(Member):
    """A member that has another one do everything."""

    def __init__(self, inner: Member, link: LinkAround) -> None:
        self.inner, self.link = inner, link
        self.incarnation = inner.incarnation

    async def put(self, call: Call, dst: int, payload: Body) -> None:
        await self.inner.put(call, dst, payload)

    async def take(self, call: Call, src: int) -> Buffer:
        return await self.inner.take(call, src)

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        return await self.inner.round(call, root, detail, parts, needs)

    def give_back(self, src: int, tag: Tag, payload: Buffer) -> None:
        self.inner.give_back(src, tag, payload)

    def keep(self, call: Call, root: int, detail: str, parts: list[Buffer], result: Sequence[Buffer]) -> None:
        self.inner.keep(call, root, detail, parts, result)

    async def expire(self, call: Call) -> int:
        return await self.inner.expire(call)

    async def abort(self, call: Call, reason: str) -> None:
        await self.inner.abort(call, reason)

    async def happenings(self, call: Call, after: int) -> list[tuple[str, int, str]]:
        return await self.inner.happenings(call, after)

    async def reform(self, call: Call, *, ttl: float, metadata: bytes) -> Place:
        place = await self.inner.reform(call, ttl=ttl, metadata=metadata)
        return replace(place, member=type(self)(place.member, self.link))

    async def leave(self, call: Call) -> None:
        await self.inner.leave(call)


class KeysAround(Keys):
    """Keys that others do everything for."""

    def __init__(self, inner: Keys) -> None:
        self.inner = inner

    async def set(self, call: KeyCall, items: Sequence[tuple[str, bytes]], *, ttl: float | None, session: bool) -> int:
        return await self.inner.set(call, items, ttl=ttl, session=session)

    async def get(self, call: KeyCall) -> list[bytes]:
        return await self.inner.get(call)

    async def wait(self, call: KeyCall) -> None:
        await self.inner.wait(call)

    async def check(self, call: KeyCall) -> bool:
        return await self.inner.check(call)

    async def add(self, call: KeyCall, amount: int) -> int:
        return await self.inner.add(call, amount)

    async def append(self, call: KeyCall, value: bytes) -> int:
        return await self.inner.append(call, value)

    async def compare_set(self, call: KeyCall, expected: bytes | None, desired: bytes) -> tuple[bool, bytes | None]:
        return await self.inner.compare_set(call, expected, desired)

    async def delete(self, call: KeyCall) -> int:
        return await self.inner.delete(call)

    async def list(self, call: KeyCall, prefix: str) -> list[str]:
        return await self.inner.list(call, prefix)

    async def count(self, call: KeyCall, prefix: str) -> int:
        return await self.inner.count(call, prefix)

    async def push(self, call: KeyCall, value: bytes) -> int:
        return await self.inner.push(call, value)

    async def pop(self, call: KeyCall, *, wait: bool) -> bytes:
        return await self.inner.pop(call, wait=wait)

    async def length(self, call: KeyCall) -> int:
        return await self.inner.length(call)

    async def meet(self, call: KeyCall) -> None:
        await self.inner.meet(call)

    async def lock(self, call: KeyCall) -> int:
        return await self.inner.lock(call)

    async def unlock(self, call: KeyCall, number: int) -> bool:
        return await self.inner.unlock(call, number)

    def follow(self, prefix: str, after: int) -> Following:
        return self.inner.follow(prefix, after)


class LinkAround(StoreLink):
    """A link that has another one do everything. Subclasses say of which kinds its members and keys are."""

    member_kind: ClassVar[type[MemberAround]] = MemberAround
    keys_kind: ClassVar[type[KeysAround]] = KeysAround

    def __init__(self, inner: StoreLink) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    async def join(self, call: Call, world_size: int, *, ttl: float, takeover: bool = False) -> Member:
        return self.member_kind(await self.inner.join(call, world_size, ttl=ttl, takeover=takeover), self)

    async def enlist(
        self, call: Call, min_size: int, max_size: int, *, patience: float, ttl: float, metadata: bytes
    ) -> Place:
        place = await self.inner.enlist(call, min_size, max_size, patience=patience, ttl=ttl, metadata=metadata)
        return replace(place, member=self.member_kind(place.member, self))

    def keys(self, member: Member | None = None) -> Keys:
        return self.keys_kind(self.inner.keys(member.inner if isinstance(member, MemberAround) else None))

    async def status(self) -> dict[str, object]:
        return await self.inner.status()

    async def close(self) -> None:
        await self.inner.close()
