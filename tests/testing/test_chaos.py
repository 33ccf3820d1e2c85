"""A chaos: as many cuts as asked, other faults in between, the same plan for the same seed, and calm in the end."""

from __future__ import annotations

import asyncio
import random

import pytest

from aiopg.testing._spell import Spell

from .conftest import Road, Wire


async def echo(wire: Wire) -> None:
    """Send everything back until the connection ends."""
    try:
        while data := await wire.reader.read(1 << 16):
            wire.send(data)
    except ConnectionError:
        pass  # that is what a chaos is for
    finally:
        wire.writer.transport.abort()


async def answer(road: Road) -> None:
    """Be an echo for every connection, until cancelled."""
    async with asyncio.TaskGroup() as echoes:
        while True:
            echoes.create_task(echo(await road.arrival()))


async def talk(road: Road, stop: asyncio.Event) -> None:
    """Talk to the echo all the time; when a connection breaks, make the next at once."""
    data = random.Random(5).randbytes(20_000)
    while not stop.is_set():
        try:
            client = await road.client()
            while not stop.is_set():
                client.send(data)
                assert await client.read(len(data)) == data
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # that is what a chaos is for


async def test_chaos_cuts_as_often_as_asked_and_ends_calm(road: Road) -> None:
    """The cuts fall on connections that talk, the other faults happen, and the state after it is fault-free."""
    stop = asyncio.Event()
    answering, talking = asyncio.create_task(answer(road)), asyncio.create_task(talk(road, stop))
    await road.proxy.chaos(cuts=12, between=(0.02, 0.06))
    stop.set()
    await talking
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    faults = road.proxy.faults
    assert 10 <= faults["cut"] <= 12, road.proxy  # a slow machine may not have made the next connection in time
    assert min(faults["stall"], faults["fragment"]) > 0, road.proxy
    assert repr(road.proxy).endswith(f"accepted={road.proxy.accepted}>")


async def test_a_cut_that_so_few_bytes_do_not_reach_falls_at_the_end(road: Road) -> None:
    """A connection that says nothing is cut all the same."""
    for cuts in range(1, 9):
        await road.connect()
        await road.proxy.chaos(cuts=1, between=(0.0, 0.01))
        assert (road.proxy.faults["cut"], road.proxy.connections) == (cuts, 0)


async def test_chaos_ends_calm_when_it_is_cancelled_and_early_when_the_proxy_closes(road: Road) -> None:
    """However it ends, nothing of it is left."""
    await road.connect()
    chaos = asyncio.create_task(road.proxy.chaos(cuts=3, between=(60.0, 60.0)))
    await asyncio.sleep(0)
    road.proxy.stall()
    chaos.cancel()
    with pytest.raises(asyncio.CancelledError):
        await chaos
    assert "connections=1 accepted=1>" in repr(road.proxy)
    chaos = asyncio.create_task(road.proxy.chaos(cuts=3, between=(60.0, 60.0)))
    await asyncio.sleep(0)
    await road.proxy.close()
    async with asyncio.timeout(1.0):
        await chaos


def test_the_same_seed_gives_the_same_plan() -> None:
    """A plan depends on the seed alone, keeps its bounds, and holds cuts of both kinds, stalls and fragments."""

    def plan(seed: int) -> list[Spell]:
        chance = random.Random(seed)
        return [Spell.draw(chance, (0.1, 0.5)) for _ in range(200)]

    assert plan(7) == plan(7) != plan(8)
    for spell in plan(7):
        assert 0.1 <= spell.length <= 0.5
        assert spell.calm + spell.stall <= spell.length + 1e-9
        assert spell.stall <= 0.2
        assert spell.after is None or 1 <= spell.after <= 200_000
    for chosen in (lambda s: s.after is None, lambda s: s.most is None, lambda s: s.stall == 0.0):
        assert 50 < sum(map(chosen, plan(7))) < 150
