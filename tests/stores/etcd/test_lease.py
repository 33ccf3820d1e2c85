"""Leases of etcd: kept while the process lives, whatever else happens; and told when they are lost."""

from __future__ import annotations

import asyncio
import threading
import time

from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._lease import REVOKE
from aiopg.stores.etcd._messages import one, under
from aiopg.stores.etcd._wire import number

from .clusters import EtcdCluster
from .keys import ON_ASYNCIO, ON_UVLOOP, own, renewed
from .servers import SLOW, EtcdServer

SHORT = 1.0
"""Seconds: as short as the etcds of these tests take."""


async def test_a_blocked_loop_keeps_its_lease(client: EtcdClient) -> None:
    """Renewals are answered while the loop of the process is blocked; a lease that is given back is not lost."""
    key = own() + b"session"
    lease = await client.lease(60)
    await client.put(key, b"", lease.id)
    began = time.monotonic()
    lease._keeper._hurry()
    while lease._keeper._renewed < began and time.monotonic() < began + 10 * SLOW:
        time.sleep(0.01)  # noqa: ASYNC251 - it is what the test is about
    assert lease._keeper._renewed >= began
    (entry,) = (await client.range(one(key))).entries
    assert entry.lease == lease.id
    await lease.revoke()
    assert not (await client.range(one(key))).entries
    assert not lease.lost.done()


async def test_a_lease_that_was_revoked_elsewhere_is_told(client: EtcdClient) -> None:
    """`lost` says so at the next renewal."""
    lease = await client.lease(SHORT)
    await client._requests.send(REVOKE, number(1, lease.id))
    async with asyncio.timeout(10 * SLOW):
        assert "has expired, or was revoked" in await lease.lost
    await lease.revoke()  # which it is, and no error
    await lease.close()


@ON_UVLOOP
async def test_a_lease_that_nobody_renews_expires(etcd_server: EtcdServer, client: EtcdClient) -> None:
    """Its keys are deleted, and whoever watches them is told, not much later than its time is over."""
    prefix = own()
    async with await EtcdClient.connect([etcd_server.endpoint], timeout=10 * SLOW) as other:
        lease = await other.lease(SHORT)
        revision = await other.put(prefix + b"session", b"", lease.id)
    closed = time.monotonic()
    with client.watch(under(prefix), revision + 1) as watch:
        async with asyncio.timeout(30 * SLOW):
            (event,) = (await anext(watch)).events
    assert event.kind == "delete"
    assert time.monotonic() - closed < lease.ttl + 2.0 * SLOW


@ON_ASYNCIO
async def test_an_etcd_that_does_not_answer(own_etcd: EtcdServer) -> None:
    """After `patience` seconds without a renewal `lost` says so, and what the last one met."""
    async with await EtcdClient.connect([own_etcd.endpoint], timeout=10 * SLOW) as client:
        lease = await client.lease(60, patience=0.5)
        assert lease.ttl == 60
        await asyncio.to_thread(own_etcd.kill)
        lease._keeper._hurry()
        async with asyncio.timeout(10 * SLOW):
            reason = await lease.lost
    assert "not renewed for 0.5 s" in reason
    assert "UNAVAILABLE" in reason


@ON_UVLOOP
async def test_a_lease_outlives_the_leader(cluster: EtcdCluster) -> None:
    """A lease is kept while the leader dies and another one is elected."""
    key = own() + b"session"
    async with await EtcdClient.connect(cluster.endpoints, timeout=10 * SLOW) as client:
        lease = await client.lease(20)
        await client.put(key, b"", lease.id)
        leader = await cluster.leader()
        await asyncio.to_thread(leader.kill)
        await cluster.leader([member for member in cluster.members if member is not leader])
        await renewed(lease, 30 * SLOW)
        assert (await client.range(one(key))).entries
        assert not lease.lost.done()


async def test_closing_ends_the_thread(etcd_server: EtcdServer) -> None:
    """No thread of a lease, nor of a watch, outlives its client."""
    before = set(threading.enumerate())
    async with await EtcdClient.connect([etcd_server.endpoint], timeout=10 * SLOW) as client:
        first = await client.lease(60)
        await client.lease(60)
        await first.close()
        watch = client.watch(one(own()), await client.put(own(), b"") + 1)
        read = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.05)
        read.cancel()
        assert {thread.name.split()[0] for thread in set(threading.enumerate()) - before} >= {"lease", "watch"}
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.split()[0] in ("lease", "watch")]
    for thread in left:
        thread.join(10 * SLOW)  # it has said its last word to the loop
        assert not thread.is_alive()
