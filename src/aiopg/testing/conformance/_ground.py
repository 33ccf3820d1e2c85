"""What a check stands on: links to the store, and names that nobody else has. All is taken down behind it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeAlias, TypeVar

from aiopg.errors import AiopgError
from aiopg.group import AsyncStatelessGroup
from aiopg.keys import AsyncStore
from aiopg.stores.base import Capabilities, StoreLink, Tag
from aiopg.testing.conformance._expect import BrokenRuleError, same
from aiopg.testing.conformance._seat import LONG, Seat, new_call

__all__ = ["Ground", "Opener", "steps"]

T = TypeVar("T")

Opener: TypeAlias = Callable[[], Awaitable[StoreLink]]

CLOSE_SECONDS = 5.0
"""How long each thing that is taken down may take."""


class Ground:
    """The place of one check.

    Args:
        open_link: opens another link to the store.
        late: seconds that a call may end past its deadline.
    """

    def __init__(self, open_link: Opener, *, late: float) -> None:
        self.late = late
        self._open_link = open_link
        self._name = f"check-{secrets.token_hex(6)}"
        self._count = 0
        self._links: list[StoreLink] = []
        self._stores: list[AsyncStore] = []
        self._tasks: list[asyncio.Task[Any]] = []

    # ---------------------------------------------------------------------------------------------- opening

    def name(self) -> str:
        """A name that nobody else has."""
        self._count += 1
        return f"{self._name}-{self._count}"

    async def link(self) -> StoreLink:
        """Another link."""
        link = await self._open_link()
        self._links.append(link)
        return link

    async def capabilities(self) -> Capabilities:
        """What the store says of itself."""
        return (self._links[0] if self._links else await self.link()).capabilities

    async def seats(self, world_size: int, *, group: str | None = None, ttl: float = 3600.0) -> list[Seat]:
        """All members of a group, each over a link of its own, by rank."""
        name = group or self.name()
        links = [await self.link() for _ in range(world_size)]
        return await self.all(self.join(link, name, rank, world_size, ttl=ttl) for rank, link in enumerate(links))

    async def join(
        self,
        link: StoreLink,
        group: str,
        rank: int,
        world_size: int,
        *,
        ttl: float = 3600.0,
        timeout: float = LONG,
        takeover: bool = False,
    ) -> Seat:
        """One member."""
        call = new_call("join", group, rank, 0, 0, timeout)
        member = await link.join(call, world_size, ttl=ttl, takeover=takeover)
        return Seat(link, member, group, rank, world_size)

    async def enlist(
        self,
        group: str,
        least: int,
        most: int,
        *,
        patience: float = 0.05,
        said: bytes = b"",
        timeout: float = LONG,
        link: StoreLink | None = None,
    ) -> Seat:
        """One member that asked for no rank, over a link of its own if none is given."""
        link = link or await self.link()
        call = new_call("rendezvous", group, -1, 0, 0, timeout)
        place = await link.enlist(call, least, most, patience=patience, ttl=3600.0, metadata=said)
        seat = Seat(link, place.member, group, place.rank, place.world_size)
        seat.metadata = place.metadata
        return seat

    async def groups(self, world_size: int, **options: Any) -> list[AsyncStatelessGroup]:
        """All members of a group as `AsyncStatelessGroup`, each over a link of its own, by rank."""
        name = self.name()
        options = {"store_timeout": LONG, **options}
        groups = [
            AsyncStatelessGroup(rank, world_size, await self.link(), group=name, **options)
            for rank in range(world_size)
        ]
        await self.all(group.join() for group in groups)
        return groups

    async def store(self) -> AsyncStore:
        """Keys behind a prefix that nobody else has; `beside` has them over another link."""
        store = AsyncStore(await self.link(), timeout=LONG).with_prefix(self.name())
        self._stores.append(store)
        return store

    async def beside(self, store: AsyncStore) -> AsyncStore:
        """The same keys over another link."""
        return AsyncStore(await self.link(), timeout=LONG).with_prefix(store.prefix[:-1])

    # ---------------------------------------------------------------------------------------------- running

    def spawn(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a call beside the check; it ends with it at the latest."""
        task = asyncio.create_task(call)
        self._tasks.append(task)
        return task

    async def begun(self, call: Coroutine[Any, Any, T], link: StoreLink) -> asyncio.Task[T]:
        """The same; when it returns, the store knows of the call, which goes over this link."""
        task = self.spawn(call)
        await steps(2)
        await link.status()
        return task

    async def all(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """All of these at once; raises the first error. Those that are left end with the check."""
        return list(await asyncio.gather(*[self.spawn(call) for call in calls]))

    async def outcomes(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
        """All of these at once: results and errors."""
        return list(await asyncio.gather(*[self.spawn(call) for call in calls], return_exceptions=True))

    async def first(self, tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        """Wait until one of these is done; those that are."""
        done, _ = await asyncio.wait(list(tasks), return_when=asyncio.FIRST_COMPLETED)
        return done

    async def exchange(self, seats: Iterable[Seat], *, tag: Tag = "exchange") -> None:
        """A round of all these members, which shows that their group works. Once for each tag."""
        calls = {seat.rank: seat.round(1, b"rank %d" % seat.rank, tag=tag) for seat in seats}
        given = [b"rank %d" % rank for rank in sorted(calls)]
        for rank, got in zip(calls, await self.all(calls.values()), strict=True):
            same(got, given, f"what an all_gather came to at rank {rank}")

    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        """Return when the condition holds, of which no event tells. Raises `BrokenRuleError` if it does not."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LONG
        while not await condition():
            if loop.time() > end:
                raise BrokenRuleError(f"{what} did not come true within {LONG:.0f} s")
            await asyncio.sleep(0.005)

    # ---------------------------------------------------------------------------------------------- taking down

    async def close(self) -> list[str]:
        """Take everything down; what went wrong."""
        troubles = await self._end_tasks()
        for store in self._stores:
            troubles += await _quietly("delete the check's keys", _clear(store))
        for link in self._links:
            troubles += await _quietly("close a link", link.close())
        return troubles

    async def _end_tasks(self) -> list[str]:
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            _, left_now = await asyncio.wait(left, timeout=CLOSE_SECONDS)
            if left_now:
                return [f"{len(left_now)} calls of the check did not end when they were cancelled: {left_now}"]
        for task in self._tasks:
            if not task.cancelled():
                task.exception()  # it is retrieved, so that nobody logs it
        return []


async def _clear(store: AsyncStore) -> None:
    try:
        for key in await store.list_keys(timeout=CLOSE_SECONDS):
            await store.delete_key(key, timeout=CLOSE_SECONDS)
    except AiopgError:
        pass  # its link was closed by the check; the keys have a prefix of their own


async def _quietly(what: str, call: Coroutine[Any, Any, None]) -> list[str]:
    """Do it within its time; what went wrong."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await call
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
        return [f"when the check was over, to {what} raised {type(error).__name__}: {error}"]
    return []


async def steps(count: int) -> None:
    """Let the loop make `count` passes."""
    for _ in range(count):
        await asyncio.sleep(0)
