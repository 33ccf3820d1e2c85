"""All members of a group on one event loop, for tests."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import Any

from aiopg.errors import UsageError
from aiopg.group import AsyncStatelessGroup

__all__ = ["GroupMaker", "fresh_name"]

LABEL_CHARACTERS = 40
"""How much of a test's name is in the name of its groups."""


def fresh_name(label: str) -> str:
    """A name for a group that no other has, on whatever store; it begins with `label`."""
    return f"{label[:LABEL_CHARACTERS]}-{secrets.token_hex(4)}"


class GroupMaker:
    """Makes groups whose members all live on the running event loop: the value of the fixture `aiopg_group`.

    ::

        async def test_the_sum(aiopg_group):
            group = await aiopg_group(3)
            assert await asyncio.gather(*(member.all_reduce(member.rank) for member in group)) == [3, 3, 3]

    Args:
        url: the store that the groups meet at.
        label: what the names of the groups begin with.
        timeout: seconds for forming a group, and the default timeout of its calls (`store_timeout`).
    """

    def __init__(self, url: str, label: str = "group", timeout: float = 30.0) -> None:
        self._url = url
        self._label = label
        self._timeout = timeout
        self._count = itertools.count(1)
        self._members: list[AsyncStatelessGroup] = []

    def __repr__(self) -> str:
        return f"<GroupMaker at {self._url}, members={len(self._members)}>"

    async def __call__(self, world_size: int, *, url: str | None = None, **options: Any) -> list[AsyncStatelessGroup]:
        """All members of a new group, by rank, joined. `close` closes them; the fixture does that.

        Cancelling takes back the joins that are under way.

        Args:
            world_size: how many.
            url: another store than the usual one, say `memory://name`.
            options: keyword arguments of `AsyncStatelessGroup.connect`: `codec`, `store_timeout`, `token`, ...; `group`
                too, if the name matters: else it is a new one each time.

        Raises: what `AsyncStatelessGroup.connect` raises; `UsageError` where no asyncio event loop runs.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "the members of a group live on the running asyncio event loop, and here is none: make the test a "
                "coroutine, or connect a StatelessGroup in each thread (aiopg_store has the URL)"
            ) from None
        if world_size < 1:
            raise ValueError(f"world_size must be at least 1, not {world_size}")
        options = {"group": fresh_name(f"{self._label}-{next(self._count)}"), "store_timeout": self._timeout} | options
        joins: list[asyncio.Task[AsyncStatelessGroup]] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                for rank in range(world_size):
                    join = self._join(url or self._url, rank, world_size, options)
                    joins.append(tasks.create_task(join, name=f"join rank {rank}"))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first rank that failed; its error names the others
        return [join.result() for join in joins]

    async def _join(self, url: str, rank: int, world_size: int, options: dict[str, Any]) -> AsyncStatelessGroup:
        member = await AsyncStatelessGroup.connect(url, rank=rank, world_size=world_size, **options)
        self._members.append(member)  # at once, as another rank's join may fail
        return member

    async def close(self) -> None:
        """Close all members that were made, at once. Twice is fine. Call it on the event loop that made them."""
        members, self._members = self._members, []
        if not members:
            return  # the loop may be trio's
        async with asyncio.TaskGroup() as tasks:
            for member in members:
                tasks.create_task(member.close())
