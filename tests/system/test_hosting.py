"""Hosting a store: what a create() that is cut short leaves behind, which is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

import pytest

from aiopg import AsyncStatelessGroup, GroupTimeoutError

from .ranks import alive, free_port, wait_until
from .test_processes import port_is_free


@pytest.mark.parametrize("store_host", ["process", "thread", "loop"])
@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.1, 0.2, 0.4])
async def test_a_cancelled_create_leaves_no_store(
    store_host: Literal["process", "thread", "loop"], seconds: float
) -> None:
    """Cancelled while the store starts, or while the others are awaited, create() frees its port."""
    port = free_port()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await AsyncStatelessGroup.create("127.0.0.1", port, 0, 2, store_host=store_host)
    await asyncio.to_thread(wait_until, is_free(port), "the port is free")


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.3])
async def test_a_create_that_times_out_leaves_no_store(seconds: float) -> None:
    """A deadline that passes at any step is a GroupTimeoutError, and the port is free."""
    port = free_port()
    with pytest.raises(GroupTimeoutError):
        await AsyncStatelessGroup.create("127.0.0.1", port, 0, 2, store_timeout=seconds)
    await asyncio.to_thread(wait_until, is_free(port), "the port is free")


async def test_the_store_process_ends_with_its_last_member() -> None:
    """Its process is gone a little after the last member has left, not before."""
    port = free_port()
    groups = await asyncio.gather(
        *(AsyncStatelessGroup.create("127.0.0.1", port, rank, 2, store_timeout=20) for rank in range(2))
    )
    pid = (await groups[0].store.link.status())["pid"]
    assert isinstance(pid, int)
    await groups[0].close()
    assert alive(pid)
    await groups[1].close()
    await asyncio.to_thread(wait_until, lambda: not alive(pid), "the store's process is gone")


async def test_ports_can_be_used_again_and_again() -> None:
    """Groups formed one after another on one address do not trip over the store that just ends."""
    port = free_port()
    for turn in range(5):
        groups = await asyncio.gather(
            *(AsyncStatelessGroup.create("127.0.0.1", port, rank, 3, store_timeout=20) for rank in range(3))
        )
        results = await asyncio.gather(*(group.all_gather((turn, group.rank)) for group in groups))
        assert list(results) == [[(turn, rank) for rank in range(3)]] * 3
        await asyncio.gather(*(group.close() for group in groups))


def is_free(port: int) -> Callable[[], bool]:
    """A condition for `wait_until`."""
    return lambda: port_is_free(port)
