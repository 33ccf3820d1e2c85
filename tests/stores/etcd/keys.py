"""What the tests share that look into etcd."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import Awaitable, Callable

import pytest

from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._lease import Lease
from aiopg.stores.etcd._messages import KeyValue, under

from .servers import SLOW, EtcdServer

ON_ASYNCIO = pytest.mark.asyncio(loop_factories=["asyncio"])
ON_UVLOOP = pytest.mark.asyncio(loop_factories=["uvloop"])
"""For tests that wait for elections: on one loop each. What they test of the loop others test on both."""

_numbers = itertools.count()


def own() -> bytes:
    """A prefix of keys that no other test uses."""
    return b"client/%d/%d/" % (os.getpid(), next(_numbers))


def own_path() -> str:
    """A path for the URL of a store that no other test uses."""
    return f"/own/{os.getpid()}/{next(_numbers)}"


async def a_call_is_under_way(server: EtcdServer, seconds: float) -> None:
    """Until that member has one that it has not answered. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while metric(server, "grpc_server_started_total") == metric(server, "grpc_server_handled_total"):  # noqa: ASYNC110 - etcd has no event for it
            await asyncio.sleep(0.02)


async def all_calls_ended(server: EtcdServer, seconds: float) -> None:
    """Until that member has no call under way. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while metric(server, "grpc_server_started_total") != metric(server, "grpc_server_handled_total"):  # noqa: ASYNC110 - etcd has no event for it
            await asyncio.sleep(0.02)


async def renewed(lease: Lease, seconds: float) -> None:
    """Until a renewal that begins now, or later, is answered. Raises `TimeoutError`."""
    keeper, began = lease._keeper, time.monotonic()
    async with asyncio.timeout(seconds):
        while keeper._renewed < began:
            keeper._hurry()
            await asyncio.sleep(0.02)


def metric(server: EtcdServer, name: str) -> int:
    """One of the figures that etcd keeps of itself, or the sum of those of that name."""
    found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", server.metrics(), re.MULTILINE)
    assert found, name
    return int(sum(float(value) for value in found))


async def held(client: EtcdClient, group: str, what: str = "") -> list[KeyValue]:
    """The keys that a group's room has, or those of a kind, without their values."""
    return (await client.range(under(f"/aiopg/v1/room/g.{group}/{what}".encode()), keys_only=True)).entries


async def becomes(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds that nobody tells."""
    async with asyncio.timeout(20 * SLOW):
        while not await holds():  # noqa: ASYNC110 -- etcd has no event for it
            await asyncio.sleep(0.01)
