"""Promise 8, nothing piles up: after a thousand groups a store, and its clients, are what they were."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiopg import AiopgError, AsyncStatelessGroup
from aiopg.stores import open_link

from .ranks import Ranks, alive, resident_bytes, serving, wait_until

LEAKING = "tests.system.leaking"

WARM_UP = 1500
"""Groups after which a store has what it needs for good, and its recorder is full."""

GROUPS = 1000
TURNS = 3
GROWTH = 200_000
"""Bytes of memory that are no leak: 200 for each group. Seen are 10,000 to 50,000 in all."""


def descriptors(pid: int) -> list[str]:
    """What the open file descriptors of a process are, without the numbers."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry).partition(":")[0])
        except FileNotFoundError:
            pass  # the one by which the directory was read, or one that is just being closed
    return sorted(found)


def children() -> set[int]:
    """Processes that this one has started, and that are left."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


async def one_group(url: str, number: int) -> None:
    """Form a group of two, use it, and end it in one of several ways; some leave things behind for the store."""
    name = f"group {number}"
    groups = await asyncio.gather(
        *(AsyncStatelessGroup.connect(url, rank=rank, world_size=2, group=name, store_timeout=30) for rank in (0, 1))
    )
    await groups[0].send(number, 1)
    await groups[0].send("nobody reads this", 1, tag="unread")
    assert await groups[1].recv(0) == number
    await asyncio.gather(*(group.all_gather(group.rank) for group in groups))
    end = ENDS[number % len(ENDS)]
    await end(groups)
    await asyncio.gather(*(group.close() for group in groups))


async def in_peace(groups: list[AsyncStatelessGroup]) -> None:
    """All calls are done."""
    await asyncio.gather(*(group.barrier() for group in groups))


async def while_calls_wait(groups: list[AsyncStatelessGroup]) -> None:
    """Calls wait at both ranks."""
    calls = [groups[0].barrier(), groups[1].recv(0, tag="never"), groups[0].all_gather(b"x" * 10_000, tag="half")]
    waits = [asyncio.ensure_future(call) for call in calls]
    await groups[0].store.link.status()
    await asyncio.gather(*(group.close() for group in groups))
    for result in await asyncio.gather(*waits, return_exceptions=True):
        assert isinstance(result, AiopgError)


async def after_cancels(groups: list[AsyncStatelessGroup]) -> None:
    """Calls were cancelled."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(groups[1].recv(0, tag="never"))]
    waits.append(asyncio.ensure_future(groups[0].barrier()))
    await groups[0].store.link.status()
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)


async def by_abort(groups: list[AsyncStatelessGroup]) -> None:
    """One aborts, in the middle of a subgroup's life."""
    subgroups = await asyncio.gather(*(group.subgroup([1, 0]) for group in groups))
    await groups[1].abort("enough")
    await asyncio.gather(*(group.close() for group in subgroups))


async def by_loss(groups: list[AsyncStatelessGroup]) -> None:
    """One closes its link without a word to the group."""
    await groups[1].store.link.close()


ENDS = (in_peace, while_calls_wait, after_cancels, by_abort, by_loss)


async def is_vacant(url: str) -> bool:
    """Whether the store holds nothing."""
    store = await open_link(url, timeout=10)
    status = await store.status()
    await store.close()
    return [status[name] for name in ("groups", "rounds", "bytes", "members")] == [[], 0, 0, 0]


def settle(url: str, server: int, before: list[str]) -> None:
    """Wait until the store is empty, and its descriptors are those of before."""
    wait_until(lambda: asyncio.run(is_vacant(url)), "the store is empty")
    wait_until(same(server, before), f"the server's descriptors are {before}, not {descriptors(server)}")


def same(pid: int, before: list[str]) -> Callable[[], bool]:
    """A condition for `wait_until`."""
    return lambda: descriptors(pid) == before


@pytest.mark.timeout(120)
@pytest.mark.parametrize("road", ["tcp", "unix"])
def test_a_thousand_groups_leave_nothing_behind(road: str, tmp_path: Path) -> None:
    """Memory and descriptors of the server, and descriptors of the client, end where they were.

    An allocator may take half a MiB more in one turn (over TLS OpenSSL's does); a leak takes more in every turn.
    """
    count = GROUPS if road == "tcp" else GROUPS // 4

    async def form(numbers: range) -> list[str]:
        for number in numbers:
            await one_group(url, number)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, left
        return descriptors(os.getpid())

    async def all_turns() -> tuple[list[str], list[str]]:
        early = late = await form(range(WARM_UP))
        grown = []
        for turn in range(TURNS):
            memory, first = resident_bytes(server), WARM_UP + turn * count
            late = await form(range(first, first + count))
            grown.append(resident_bytes(server) - memory)
            if grown[-1] < GROWTH:
                return early, late
        raise AssertionError(f"the server grew in each turn: {grown}")

    with serving(tmp_path / "store" if road == "unix" else None) as (url, server):
        before = descriptors(server)
        early, late = asyncio.run(all_turns(), debug=False)
        assert early == late
        settle(url, server, before)


def test_groups_of_processes_leave_nothing_behind() -> None:
    """Twenty groups of four processes, and one whose processes are all killed: the store is what it was."""
    with serving() as (url, server):
        before = descriptors(server)
        with Ranks("forms_groups", 4, loop="mixed", at=url, programs=LEAKING).start(None, "20") as ranks:
            for stores, early, late in ranks.results().values():
                assert stores == [server]
                assert early == late
        with Ranks("is_killed", 4, loop="mixed", at=url, programs=LEAKING).start() as ranks:
            assert [ranks.line(rank) for rank in range(4)] == ["here"] * 4
            for rank in range(4):
                ranks.kill(rank)
            settle(url, server, before)


def test_hosted_stores_leave_no_process_behind() -> None:
    """Groups formed by create() one after another on one port: every process that served one of them is gone."""
    before = children()
    with Ranks("forms_groups", 2, loop="mixed", programs=LEAKING).start(None, "8") as ranks:
        for stores, early, late in (results := ranks.results()).values():
            assert 1 <= len(stores) <= 8
            assert early == late
    pids = {pid for stores, _, _ in results.values() for pid in stores}
    wait_until(lambda: not any(alive(pid) for pid in pids), "every store's process is gone")
    assert children() == before
