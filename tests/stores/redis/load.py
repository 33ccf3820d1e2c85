"""Groups under load, each step of which is checked: nothing lost, nothing doubled, nothing in the wrong order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiopg import AsyncStatelessGroup, PeerLostError, StoreLostError

__all__ = ["Load", "form"]

LONG = 60.0


async def form(urls: list[str], name: str, *, grace: float = 20.0) -> list[AsyncStatelessGroup]:
    """A group with a rank at each of these URLs."""
    connect = AsyncStatelessGroup.connect
    return await asyncio.gather(
        *[
            connect(url, rank=rank, world_size=len(urls), group=name, reconnect_grace=grace, store_timeout=LONG)
            for rank, url in enumerate(urls)
        ]
    )


class Load:
    """Each rank sends its number to the next one, gathers all numbers and counts in a key, step by step."""

    def __init__(self, groups: list[AsyncStatelessGroup]) -> None:
        self._groups = groups
        self.steps = 0
        """That all ranks have made."""
        self._stepped = asyncio.Event()

    async def run(self, until: Callable[[], Awaitable[object]]) -> None:
        """Step until that returns. Raises `AssertionError` for a step that came to something wrong."""
        over = asyncio.ensure_future(until())
        try:
            while not over.done():
                await self.step()
            await over
        finally:
            over.cancel()

    async def step(self) -> None:
        """One step of all ranks. Raises the first error, when all have ended."""
        made = await asyncio.gather(*[self._step(group, self.steps) for group in self._groups], return_exceptions=True)
        for error in made:
            if isinstance(error, BaseException):
                raise error
        self.steps += 1
        stepped, self._stepped = self._stepped, asyncio.Event()
        stepped.set()

    async def stepped(self) -> None:
        """Wait until all ranks have made one step more."""
        await self._stepped.wait()

    async def lost(self) -> list[BaseException]:
        """What each rank's next call raises, after the store lost what it had acknowledged.

        At least one is told so, and the others that one of them is gone; no call comes to something wrong.
        """
        told: list[BaseException] = []
        for outcome in await asyncio.gather(
            *[self._until_error(group) for group in self._groups], return_exceptions=True
        ):
            assert isinstance(outcome, StoreLostError | PeerLostError), outcome
            told.append(outcome)
        assert any(isinstance(error, StoreLostError) for error in told), told
        return told

    async def close(self) -> None:
        """Leave."""
        await asyncio.gather(*[group.close() for group in self._groups])

    async def _until_error(self, group: AsyncStatelessGroup) -> None:
        step = self.steps
        while True:
            await self._step(group, step)
            step += 1

    async def _step(self, group: AsyncStatelessGroup, step: int) -> None:
        rank, size = group.rank, group.world_size
        before, behind = (rank - 1) % size, (rank + 1) % size
        await group.send((rank, step), behind, timeout=LONG)
        assert tuple(await group.recv(before, timeout=LONG)) == (before, step)
        assert await group.all_gather(step * 100 + rank, timeout=LONG) == [step * 100 + one for one in range(size)]
        counted = await group.store.add(f"steps of {rank}", 1, timeout=LONG)
        assert counted == step + 1
