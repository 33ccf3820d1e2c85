"""Looking at a store through a link."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.observe.picture import GroupView, Picture
from aiopg.observe.reader import READS_MOST, Reader
from aiopg.stores import StoreLink, open_link
from aiopg.stores.base import HAPPENINGS_READ
from aiopg.stores.memory import MemoryLink

CREW = 3


async def form(url: str) -> list[AsyncStatelessGroup]:
    ranks = [
        AsyncStatelessGroup.connect(url, rank=rank, world_size=CREW, group="crew", store_timeout=30)
        for rank in range(CREW)
    ]
    return await asyncio.gather(*ranks)


async def close(groups: list[AsyncStatelessGroup]) -> None:
    for group in groups:
        await group.close()


async def look(reader: Reader, is_there: Callable[[GroupView], object]) -> GroupView:
    """The crew, as soon as it looks like that."""
    async with asyncio.timeout(20):
        while True:
            picture: Picture = await reader.refresh()
            found = next((group for group in picture.groups if is_there(group)), None)
            if found is not None:
                return found
            await asyncio.sleep(0.01)


async def test_what_waits_is_seen_as_soon_as_it_waits_and_no_longer() -> None:
    """Over a real server: a round in flight, its end, its latency, and a rank that leaves."""
    async with StoreServer(token="") as server:
        groups, link = await form(server.address), await open_link(server.address, token="")
        reader = Reader(link)
        barriers = [asyncio.create_task(group.barrier()) for group in groups[:2]]
        seen = await look(reader, lambda group: group.rounds and len(group.rounds[0].arrived) == 2)
        assert [(round.op, round.missing, round.gone) for round in seen.rounds] == [("barrier", [2], [])]
        await asyncio.gather(*barriers, groups[2].barrier())
        seen = await look(reader, lambda group: not group.rounds)
        seen = await look(reader, lambda group: True)
        assert seen.latency.count == 1  # what was heard is not heard again
        assert [rank for rank, _ in seen.slowest][:1] == [2]
        await groups[2].close()
        seen = await look(reader, lambda group: group.ranks[2].state == "left")
        assert seen.ranks[2].reason == "it left the group"
        await close(groups)
        await link.close()


async def test_a_store_without_a_recorder_is_looked_at_by_its_status_alone() -> None:
    """Who waits is seen there too, and for how long since somebody looked."""

    class Silent(MemoryLink):
        trace = StoreLink.trace

    groups = await form("memory://silent")
    link = await Silent.connect("memory://silent", timeout=5, grace=5, token="", tls=None)
    reader = Reader(link)
    barriers = [asyncio.create_task(group.barrier()) for group in groups[:2]]
    seen = await look(reader, lambda group: group.rounds and len(group.rounds[0].arrived) == 2)
    assert not reader.has_recorder
    assert (seen.rounds[0].missing, seen.latency.count) == ([2], 0)
    await asyncio.gather(*barriers, groups[2].barrier())
    await close(groups)
    await link.close()


async def test_who_reads_too_slowly_goes_on_from_the_newest() -> None:
    """Of a store in which more happens than can be read, what waits now is seen all the same."""
    groups = await form("memory://busy")
    link = await open_link("memory://busy")
    reader = Reader(link)
    await reader.refresh()
    for tag in itertools.count():
        await asyncio.gather(*(group.barrier(tag=tag % 7) for group in groups))
        if tag * (CREW + 2) > 1.2 * READS_MOST * HAPPENINGS_READ:
            break
    barriers = [asyncio.create_task(group.barrier(tag="last")) for group in groups[:2]]
    seen = await look(reader, lambda group: group.rounds and len(group.rounds[0].arrived) == 2)
    assert [(round.tag, round.missing) for round in seen.rounds] == [("last", [2])]
    await asyncio.gather(*barriers, groups[2].barrier(tag="last"))
    await look(reader, lambda group: not group.rounds)
    await close(groups)
    await link.close()


async def test_a_store_that_was_started_anew_is_looked_at_anew(tmp_path: Path) -> None:
    """Its recorder counts from 1 again; what was under way before is not shown for ever."""
    async with StoreServer(token="", journal=tmp_path) as server:
        port = int(server.address.rpartition(":")[2])
        groups, link = await form(server.address), await open_link(server.address, token="")
        reader = Reader(link)
        for _ in range(20):
            await asyncio.gather(*(group.barrier() for group in groups))
        barriers = [asyncio.create_task(group.barrier()) for group in groups[:2]]
        await look(reader, lambda group: group.rounds and len(group.rounds[0].arrived) == 2)
    async with StoreServer(port=port, token="", journal=tmp_path):
        seen = await look(reader, lambda group: group.rounds and len(group.rounds[0].arrived) == 2)
        assert (seen.rounds[0].missing, seen.latency.count) == ([2], 0)
        await asyncio.gather(*barriers, groups[2].barrier())
        await look(reader, lambda group: not group.rounds)
        await close(groups)
        await link.close()
