"""A store in a thread, and all members of a group on one loop."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, CollectiveMismatchError, GroupClosedError, Limits, StatelessGroup, UsageError
from aiopg.testing import GroupMaker, LocalStore


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_store_serves_a_program_that_has_no_event_loop() -> None:
    """From entering to leaving the block; no thread of it is left."""
    before = threads()
    with LocalStore() as store:
        assert store.url == store.address
        assert store.url.startswith("aiopg://127.0.0.1:")
        with StatelessGroup.connect(store.url, rank=0, world_size=1, group="alone") as group:
            assert group.all_gather("x") == ["x"]
            groups: Any = store.describe()["groups"]
            assert [described["name"] for described in groups] == ["alone"]
    assert threads() == before
    with pytest.raises(GroupClosedError):
        store.describe()
    store.close()


async def test_a_test_that_blocks_does_not_stall_the_store() -> None:
    """It has a loop of its own: other members, here in a thread, go on while the test's loop stands still."""
    with LocalStore() as store:
        done: list[float] = []

        def other_rank() -> None:
            with StatelessGroup.connect(store.url, rank=0, world_size=1) as group:
                group.barrier()
                done.append(time.monotonic())

        thread = threading.Thread(target=other_rank)
        thread.start()
        thread.join(20)  # which blocks the loop
        assert done


def test_a_store_takes_a_token_and_limits() -> None:
    """As a StoreServer does."""
    with LocalStore(token="a token of 16 characters", limits=Limits(groups=7)) as store:
        with StatelessGroup.connect(store.url, rank=0, world_size=1, token="a token of 16 characters") as group:
            assert group.all_gather(1) == [1]
        with pytest.raises(GroupClosedError, match="once"):
            store.start()


async def test_a_group_has_all_its_members_here() -> None:
    """Joined, in order of rank, under a name of its own; closed together."""
    with LocalStore() as store:
        make = GroupMaker(store.url, "test_x")
        group, other = await make(3), await make(2)
        assert [(member.rank, member.world_size) for member in group] == [(0, 3), (1, 3), (2, 3)]
        assert await asyncio.gather(*(member.all_reduce(1) for member in group)) == [3, 3, 3]
        assert group[0].name.startswith("test_x-1-")
        assert len({member.name for member in group + other}) == 2
        await make.close()
        await make.close()
        assert store.describe()["groups"] == []
        with pytest.raises(GroupClosedError):
            await group[0].barrier()


async def test_options_go_to_the_members_and_the_store_can_be_another() -> None:
    """`url=` and the keyword arguments of connect."""
    make = GroupMaker("aiopg://127.0.0.1:1", timeout=17)
    (member,) = await make(1, url="memory://another", group="mine", data_expiration_seconds=5)
    assert (member.name, member.store_timeout, member.data_expiration_seconds) == ("mine", 17, 5)
    await make.close()


async def test_a_group_that_cannot_be_formed_raises_the_error_itself() -> None:
    """Not a group of exceptions; and ranks that had joined are closed with the rest."""
    with LocalStore() as store:
        make = GroupMaker(store.url)
        first = await make(2, group="trainers")
        with pytest.raises(Exception, match="trainers") as caught:
            await make(3, group="trainers")
        assert type(caught.value).__name__ == "WorldSizeMismatchError"
        assert isinstance(first[0], AsyncStatelessGroup)
        await make.close()
        assert store.describe()["groups"] == []


async def test_members_disagree_as_real_ones_do() -> None:
    """They are real: different collectives under one number are an error on both."""
    make = GroupMaker("memory://disagree")
    first, second = await make(2)
    results = await asyncio.gather(first.barrier(), second.all_gather(1), return_exceptions=True)
    assert [type(result) for result in results] == [CollectiveMismatchError] * 2
    await make.close()


def test_without_an_event_loop_it_says_what_to_do() -> None:
    """The members need one."""
    coroutine = GroupMaker("memory://nowhere")(2)
    with pytest.raises(UsageError, match="StatelessGroup"):
        coroutine.send(None)


async def test_a_group_of_none_is_refused() -> None:
    """With the number."""
    with pytest.raises(ValueError, match="not 0"):
        await GroupMaker("memory://nowhere")(0)
