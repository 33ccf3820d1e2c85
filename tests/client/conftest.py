"""What the tests of roads and shortcuts share: counting sockets, members, and over what they came."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.address import Address
from aiopg.shortcut import shortcut_to

LONG = 20.0
"""Seconds that nothing here takes unless it is broken."""


@pytest_asyncio.fixture
async def nothing_left() -> AsyncIterator[None]:
    """A test ends with no task still running and no socket still open."""
    before = sockets()
    yield
    await passes(3)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left
    assert sockets() == before


def sockets() -> int:
    """How many sockets this process has open; raises what an object says that is collected and was not closed."""
    gc.collect()
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except FileNotFoundError:
            pass  # that of the listing itself
    return count


async def passes(count: int) -> None:
    """Let the loop go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def member(url: str, rank: int = 0, world_size: int = 1, **options: Any) -> AsyncStatelessGroup:
    """One rank."""
    options = {"store_timeout": LONG, **options}
    return await AsyncStatelessGroup.connect(url, rank=rank, world_size=world_size, **options)


def families(server: StoreServer) -> set[int]:
    """Of the sockets over which the store's sessions go, but for those that are waited for."""
    links = [session.connection for session in server._started()._members.values()]
    transports = [link._transport for link in links if link is not None]
    assert transports
    return {transport.get_extra_info("socket").family for transport in transports if transport is not None}


def name_of(server: StoreServer) -> bytes:
    """Where its shortcut is."""
    return shortcut_to(server._started().epoch, Address.parse(server.address).port)
