"""Groups on a cluster of etcd whose members are killed, stopped and cut off: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiopg import AsyncStatelessGroup, PeerLostError, StoreLostError
from aiopg.stores import open_link
from aiopg.stores.etcd import _housekeeping
from aiopg.stores.etcd._client import EtcdClient
from aiopg.testing.proxy import FaultProxy

from .clusters import EtcdCluster
from .crowd import Crowd
from .keys import ON_ASYNCIO, ON_UVLOOP
from .servers import SLOW, EtcdServer

KILLS = 20 if os.environ.get("AIOPG_TEST_LONG") == "1" else 2
RANKS = 4
DEADLINE = 60.0 * SLOW

_numbers = itertools.count()


def name() -> str:
    """Of a group that no other test has."""
    return f"cluster {os.getpid()} {next(_numbers)}"


def urls(cluster: EtcdCluster) -> list[str]:
    """The cluster's, for each rank; each begins with another member."""
    ends = cluster.endpoints
    turned = (ends[rank % len(ends) :] + ends[: rank % len(ends)] for rank in range(RANKS))
    return [f"etcd://{','.join(some)}" for some in turned]


@pytest.mark.timeout(60 * SLOW + 30 * KILLS)
@ON_UVLOOP
async def test_leaders_are_killed_under_load(cluster: EtcdCluster) -> None:
    """Each time the leader is killed the others elect one, and two groups go on with all that they were about to do."""
    waits = []
    async with Crowd(urls(cluster), name()) as first, Crowd(urls(cluster)[:2], name()) as second:
        for _ in range(KILLS):
            await asyncio.gather(first.more_turns(2), second.more_turns(2))
            leader = await cluster.leader()
            await asyncio.to_thread(leader.kill)
            began = time.monotonic()
            async with asyncio.timeout(50 * SLOW):
                await asyncio.gather(first.more_turns(2), second.more_turns(2))
            waits.append(time.monotonic() - began)
            await asyncio.to_thread(leader.start)
    print(f"{KILLS} kills; turns {first.turns} {second.turns}; the first turns behind a kill took {sorted(waits)} s")
    await nothing_is_left(cluster)


@ON_ASYNCIO
async def test_a_member_that_is_cut_off_changes_nothing(cluster: EtcdCluster) -> None:
    """A leader that is cut off from the others is left by its clients; groups go on, then and after."""
    async with Crowd(urls(cluster), name()) as crowd:
        await crowd.more_turns(2)
        cluster.isolate(await cluster.leader())
        await go_on(cluster, crowd)
    await nothing_is_left(cluster)


@ON_UVLOOP
async def test_a_member_that_is_stopped_changes_nothing(cluster: EtcdCluster) -> None:
    """A follower that is stopped, with connections open, is left by its clients; groups go on, then and after."""
    async with Crowd(urls(cluster), name()) as crowd:
        await crowd.more_turns(2)
        leader = await cluster.leader()
        next(member for member in cluster.members if member is not leader).pause()
        await go_on(cluster, crowd)
    await nothing_is_left(cluster)


async def go_on(cluster: EtcdCluster, crowd: Crowd) -> None:
    """As the cluster is, and when it is well again."""
    async with asyncio.timeout(50 * SLOW):
        await crowd.more_turns(3)
    await asyncio.to_thread(cluster.mend)
    async with asyncio.timeout(50 * SLOW):
        await crowd.more_turns(2)


async def nothing_is_left(cluster: EtcdCluster) -> None:
    """No group, and no byte of any, is in etcd."""
    link = await open_link(cluster.url)
    try:
        status = await link.status()
    finally:
        await link.close()
    assert (status["groups"], status["bytes"], status["rounds"]) == ([], 0, 0), status


@ON_ASYNCIO
@pytest.mark.parametrize("log_entries", [1000, 2], ids=["its log is there", "only a snapshot is"])
async def test_compaction_while_a_member_was_away(
    own_etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch, log_entries: int
) -> None:
    """A member that comes back to changes that were compacted reads them from the log; where that is not there any
    more, since somebody has made a snapshot meanwhile, it is told so, and the others are told of it.
    """
    monkeypatch.setattr(_housekeeping, "LOG_ENTRIES", log_entries)
    async with FaultProxy(f"aiopg://{own_etcd.endpoint}") as proxy:
        behind = f"etcd://{proxy.address.removeprefix('aiopg://')}"
        group = name()
        away, here = await asyncio.gather(
            AsyncStatelessGroup.connect(behind, rank=0, world_size=2, group=group, reconnect_grace=60),
            AsyncStatelessGroup.connect(own_etcd.url, rank=1, world_size=2, group=group, reconnect_grace=60),
        )
        async with here:
            await asyncio.gather(away.barrier(DEADLINE), here.barrier(DEADLINE))
            receiving = asyncio.ensure_future(away.recv(1, tag="never", timeout=DEADLINE))
            await asyncio.sleep(0.1)
            proxy.refuse()
            proxy.cut()
            for number in range(20):
                await here.send(number, 0, timeout=DEADLINE)
            async with await EtcdClient.connect([own_etcd.endpoint], timeout=10 * SLOW) as operator:
                await operator.compact(await operator.put(b"elsewhere", b""))
            proxy.accept()
            if log_entries > 20:
                for number in range(20):
                    assert await away.recv(1, timeout=DEADLINE) == number
                receiving.cancel()
                await asyncio.gather(away.barrier(DEADLINE), here.barrier(DEADLINE))
            else:
                async with asyncio.timeout(30 * SLOW):
                    with pytest.raises(StoreLostError, match="not kept any more"):
                        await receiving
                    with pytest.raises(PeerLostError):
                        await here.recv(0, timeout=DEADLINE)
                with pytest.raises(StoreLostError, match="not kept any more"):
                    await away.send(1, 1)
            await away.close()


MEMBER = """
import asyncio, sys
from aiopg import AsyncStatelessGroup

async def main():
    group = await AsyncStatelessGroup.connect(sys.argv[1], rank=1, world_size=2, group=sys.argv[2], reconnect_grace=1)
    await group.send("alive", 0)
    print("sent", flush=True)
    await group.recv(0)

asyncio.run(main())
"""


@asynccontextmanager
async def member(url: str, group: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Rank 1 of 2, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEMBER, url, group, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@ON_UVLOOP
async def test_a_killed_process_is_told_in_time(etcd_server: EtcdServer) -> None:
    """The others hear that a process died when its lease ends: within the seconds that its store promises."""
    group, url = name(), etcd_server.url
    link = await open_link(url, grace=1)
    promised = link.capabilities.death_seconds
    await link.close()
    async with (
        member(url, group) as process,
        await AsyncStatelessGroup.connect(url, rank=0, world_size=2, group=group) as survivor,
    ):
        assert await survivor.recv(1, timeout=DEADLINE) == "alive"
        assert process.stdout is not None
        await process.stdout.readline()
        receiving = asyncio.ensure_future(survivor.recv(1, timeout=DEADLINE))
        process.kill()
        killed = time.monotonic()
        with pytest.raises(PeerLostError, match="its lease in etcd has ended") as caught:
            await receiving
        took = time.monotonic() - killed
    assert list(caught.value.ranks) == [1]
    assert promised < 6
    assert took < promised * max(1.0, SLOW), (took, promised)
