"""Stores of each kind, and the links that a test opens to them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from aiopg import AsyncStatelessGroup, AsyncStore, StoreServer

LONG = 20.0
"""Seconds that nothing here takes unless it is broken."""

_names = itertools.count()


class Place:
    """A store, and what a test opens on it; all is closed when the test ends."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: list[AsyncStore | AsyncStatelessGroup] = []

    async def open(self, **options: Any) -> AsyncStore:
        """A store over a link of its own."""
        store = await AsyncStore.connect(self.url, **{"timeout": LONG, **options})
        self._opened.append(store)
        return store

    async def form(self, world_size: int, group: str = "default") -> list[AsyncStatelessGroup]:
        """All ranks of a group, by rank."""
        ranks = (
            AsyncStatelessGroup.connect(self.url, rank=rank, world_size=world_size, group=group, store_timeout=LONG)
            for rank in range(world_size)
        )
        groups = await asyncio.gather(*ranks)
        self._opened += groups
        return groups

    async def close(self) -> None:
        """Close everything."""
        for opened in self._opened:
            await opened.close()


@pytest_asyncio.fixture
async def no_task_left() -> AsyncIterator[None]:
    """A test ends with no task of its own or of the library's still running."""
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left


@pytest_asyncio.fixture(params=["native", "memory"])
async def place(request: pytest.FixtureRequest, no_task_left: None) -> AsyncIterator[Place]:
    """A store of each kind: our server, and the engine in memory."""
    if request.param == "memory":
        place = Place(f"memory://keys-{next(_names)}")
        yield place
        await place.close()
        return
    async with StoreServer() as server:
        place = Place(server.address)
        yield place
        await place.close()


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncStore:
    """A store of each kind, open."""
    return await place.open()


@pytest_asyncio.fixture
async def other(place: Place, store: AsyncStore) -> AsyncStore:
    """The same over another link."""
    return await place.open()


async def steps(count: int) -> None:
    """Let the loop make `count` passes."""
    for _ in range(count):
        await asyncio.sleep(0)


async def begun(call: Awaitable[Any], store: AsyncStore) -> asyncio.Future[Any]:
    """A call that waits at the store by now."""
    future = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    await store.check("what comes behind it is answered behind it")
    return future


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(LONG):
        while not await condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)
