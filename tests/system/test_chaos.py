"""Promise 2, exactly once: eight processes under load, over connections that are cut, stalled and torn to pieces.

The ranks are those of `chaotic`: seven asynchronous ones, on asyncio's loop and uvloop by turns, and a blocking one. A
`FaultProxy` in the test's process is all the way to the store. AIOPG_CHAOS_CUTS sets how often everything is cut,
AIOPG_CHAOS_SEED replays a plan (where its cuts fall depends on timing too).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from pathlib import Path
from typing import Any, cast

import pytest

from aiopg.stores import open_link
from aiopg.testing import FaultProxy

from .ranks import Ranks, serving

RANKS = 8
CUTS = int(os.environ.get("AIOPG_CHAOS_CUTS", "60"))
SEED = int(os.environ.get("AIOPG_CHAOS_SEED", secrets.randbits(32)))

BETWEEN = (0.02, 0.22)
"""Seconds from one cut to the next."""

pytestmark = pytest.mark.timeout(60 + 2 * CUTS)


@pytest.mark.parametrize("road", ["tcp", "unix"])
def test_a_load_over_broken_connections_is_exactly_once(road: str, tmp_path: Path) -> None:
    """Nothing lost, doubled or reordered; every call within its deadline; nothing left on the store."""
    # The chaos of unix sockets is the same code, with another kind of end: a third of the cuts will do.
    cuts = CUTS if road == "tcp" else max(CUTS // 3, 1)
    print(f"AIOPG_CHAOS_SEED={SEED} AIOPG_CHAOS_CUTS={CUTS} {road}")
    with serving(tmp_path / "store" if road == "unix" else None) as (url, _):
        asyncio.run(live_through(url, f"unix://{tmp_path}/proxy" if road == "unix" else None, cuts))


async def live_through(url: str, listen: str | None, cuts: int) -> None:
    """Put the load on the proxy, let chaos loose, and look at what came of it."""
    async with FaultProxy(url, seed=SEED, listen=listen) as proxy:
        ranks = Ranks("chaotic", RANKS, loop="mixed", at=proxy.address, programs="tests.system.chaotic")
        with ranks.start(None, str(SEED), str(least_turns(cuts))):
            await lines(ranks)
            first = proxy.accepted
            worked = asyncio.ensure_future(lines(ranks))  # a rank that fails ends it early
            await cut_until(worked, proxy, cuts)
            for rank in range(RANKS):
                ranks.go_on(rank)
            await worked
            loads = await lines(ranks)
            print(f"{proxy!r} {dict(proxy.faults)} {loads}")
            await check_store(url)
            for rank in range(RANKS):
                ranks.go_on(rank)
            await asyncio.to_thread(ranks.results)
    assert first == RANKS
    check_load(loads, cuts)
    assert proxy.faults["cut"] >= 0.6 * RANKS * cuts
    assert proxy.accepted - first >= 0.6 * RANKS * cuts
    if cuts >= 20:
        assert min(proxy.faults["stall"], proxy.faults["fragment"]) > 0


def least_turns(cuts: int) -> int:
    """How often the load goes round at the least: a run with next to no load proves nothing."""
    return max(cuts // 4, 1)


async def lines(ranks: Ranks) -> list[Any]:
    """What each rank says next."""
    return await asyncio.gather(*(asyncio.to_thread(ranks.line, rank) for rank in range(RANKS)))


async def cut_until(worked: asyncio.Future[Any], proxy: FaultProxy, cuts: int) -> None:
    """Cut so often, and on a busy host for as long as it takes the ranks to have gone round `least_turns` times."""
    for number in itertools.count(1):
        await proxy.chaos(cuts=1, between=BETWEEN)
        if worked.done() and (number >= cuts or worked.exception() is not None):
            return


async def check_store(url: str) -> None:
    """All was read, and the group still has all its members."""
    store = await open_link(url, timeout=10)
    status = await store.status()
    await store.close()
    (group,) = cast(list[dict[str, Any]], status["groups"])
    assert len(group["members"]) == RANKS
    assert (group["messages"], group["mailboxes"], group["rounds"], group["bytes"]) == (0, 0, [], 0), group


def check_load(loads: list[dict[str, int]], cuts: int) -> None:
    """Every rank went all the way round, as often as the others."""
    turns = loads[0]["turns"]
    assert turns >= least_turns(cuts)
    for load in loads:
        assert load["turns"] == turns
        assert load["received"] >= turns * (RANKS - 1)
        assert load["collectives"] == 3 * turns
