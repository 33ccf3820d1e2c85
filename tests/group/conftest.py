"""Groups whose ranks share one event loop, on each kind of store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from aiopg import AsyncStatelessGroup, StoreServer


class Meeting:
    """A store, and the groups that a test forms on it; all are closed when the test ends."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._groups: list[AsyncStatelessGroup] = []

    async def form(self, world_size: int, group: str = "default", **options: Any) -> list[AsyncStatelessGroup]:
        """All ranks of a new group, by rank."""
        options = {"store_timeout": 20.0, **options}
        ranks = (
            AsyncStatelessGroup.connect(self.url, rank=rank, world_size=world_size, group=group, **options)
            for rank in range(world_size)
        )
        groups = await asyncio.gather(*ranks)
        self._groups += groups
        return groups

    async def connect(self, rank: int, world_size: int, **options: Any) -> AsyncStatelessGroup:
        """One rank."""
        options = {"store_timeout": 20.0, **options}
        group = await AsyncStatelessGroup.connect(self.url, rank=rank, world_size=world_size, **options)
        self._groups.append(group)
        return group

    async def close(self) -> None:
        """Close every group."""
        await asyncio.gather(*(group.close() for group in self._groups))


@pytest_asyncio.fixture
async def no_task_left() -> AsyncIterator[None]:
    """A test ends with no task of its own or of the library's still running."""
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left


@pytest_asyncio.fixture(params=["native", "unix", "memory"])
async def meeting(request: pytest.FixtureRequest, tmp_path: Any, no_task_left: None) -> AsyncIterator[Meeting]:
    """A store of each kind: our server over TCP and over a unix socket, and the engine in memory."""
    if request.param == "memory":
        meeting = Meeting(f"memory://{request.node.name}".replace("[", "-").replace("]", ""))
        yield meeting
        await meeting.close()
        return
    server = StoreServer(path=str(tmp_path / "store")) if request.param == "unix" else StoreServer()
    async with server:
        meeting = Meeting(server.address)
        yield meeting
        await meeting.close()
        await server.wait_vacated()
        described = server.describe()
        assert (described["groups"], described["bytes"]) == ([], 0)


async def all_ranks(
    groups: list[AsyncStatelessGroup], call: Callable[[AsyncStatelessGroup], Awaitable[Any]]
) -> list[Any]:
    """The call on every rank at once; results by rank."""
    return list(await asyncio.gather(*(call(group) for group in groups)))
