"""Watches of etcd: all changes, each once, whatever breaks meanwhile; and what is told when that cannot be."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import pytest

from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._errors import CompactedError
from aiopg.stores.etcd._messages import Delete, Put, one, under
from aiopg.stores.etcd._watch import Batch, Watch

from .clusters import EtcdCluster
from .keys import ON_ASYNCIO, ON_UVLOOP, all_calls_ended, own
from .servers import SLOW, EtcdServer

TURNS = 6 if os.environ.get("AIOPG_TEST_LONG") == "1" else 1


async def read_until(watch: Watch, revision: int) -> list[Batch]:
    """What is read up to that revision."""
    batches: list[Batch] = []
    async with asyncio.timeout(30 * SLOW):
        while not batches or batches[-1].revision < revision:
            batches.append(await anext(watch))
    return batches


async def test_changes_come_in_order_and_whole(client: EtcdClient) -> None:
    """A watch tells what was written and deleted under its prefix from its revision on, each transaction in one."""
    prefix = own()
    first = await client.put(prefix + b"a", b"1")
    await client.put(prefix[:-1] + b"0", b"not under it")
    with client.watch(under(prefix), first) as watch:
        (batch,) = await read_until(watch, first)
        assert [(event.kind, event.entry.value) for event in batch.events] == [("put", b"1")]
        result = await client.txn([], [Delete(one(prefix + b"a")), Put(prefix + b"b", b"2"), Put(prefix + b"c", b"3")])
        (batch,) = await read_until(watch, result.revision)
        assert batch.revision == result.revision
        assert [(event.kind, event.entry.key[-1:], event.entry.mod_revision) for event in batch.events] == [
            ("delete", b"a", result.revision),
            ("put", b"b", result.revision),
            ("put", b"c", result.revision),
        ]
        assert watch.next_revision == result.revision + 1


async def test_what_comes_in_pieces_is_handed_out_in_whole_revisions(client: EtcdClient) -> None:
    """A watch that has much to catch up with gets it in fragments: no transaction is torn by that."""
    prefix = own()
    revisions = []
    for _ in range(6):
        result = await client.txn([], [Put(prefix + b"%d" % number, bytes(500_000)) for number in range(3)])
        revisions.append(result.revision)
    with client.watch(under(prefix), revisions[0]) as watch:
        batches = await read_until(watch, revisions[-1])
    assert len(batches) > 1
    told = [event.entry.mod_revision for batch in batches for event in batch.events]
    assert told == [revision for revision in revisions for _ in range(3)]
    for before, after in itertools.pairwise(batches):
        assert before.events[-1].entry.mod_revision < after.events[0].entry.mod_revision


async def test_a_cancelled_read_loses_nothing(client: EtcdClient) -> None:
    """Reads that are cancelled at any moment, and go on, tell each change once."""
    prefix = own()
    first = await client.put(prefix + b"n", b"0")
    told: list[bytes] = []
    cancelled = 0

    async def write() -> int:
        revision = 0
        for number in range(1, 200):
            revision = await client.put(prefix + b"n", b"%d" % number)
        return revision

    writing = asyncio.ensure_future(write())
    with client.watch(under(prefix), first) as watch:
        async with asyncio.timeout(30 * SLOW):
            for steps in itertools.cycle(range(7)):
                read = asyncio.ensure_future(anext(watch))
                for _ in range(steps):
                    await asyncio.sleep(0)
                read.cancel()
                await asyncio.wait([read])
                if read.cancelled():
                    cancelled += 1
                else:
                    told += [event.entry.value for event in read.result().events]
                if told and told[-1] == b"199":
                    break
    await writing
    assert cancelled > 50
    assert told == [b"%d" % number for number in range(200)]


async def test_streams_are_given_back(own_etcd: EtcdServer) -> None:
    """Watches that are left, cancelled in their first read or later, leave nothing at etcd."""
    async with await EtcdClient.connect([own_etcd.endpoint], timeout=10 * SLOW) as client:
        revision = await client.put(b"a", b"")
        for steps in range(30):
            with client.watch(one(b"a"), revision + 1 if steps % 2 else revision) as watch:
                read = asyncio.ensure_future(anext(watch))
                await asyncio.sleep(0.002 * (steps % 3))
                read.cancel()
                await asyncio.wait([read])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not client._requests._streams
        await all_calls_ended(own_etcd, 10 * SLOW)
        await client.put(b"a", b"still well")


async def test_what_nobody_reads_waits_at_etcd(client: EtcdClient) -> None:
    """A reader that is slow is sent no more than a few messages ahead, and gets all in the end."""
    prefix = own()
    first = await client.put(prefix + b"n", b"first")
    with client.watch(under(prefix), first) as watch:
        await anext(watch)
        for number in range(60):
            last = await client.put(prefix + b"n", b"%d" % number)
        await asyncio.sleep(0.1)
        assert watch._stream is not None
        assert len(watch._stream._messages) <= 8
        told = [event.entry.value for batch in await read_until(watch, last) for event in batch.events]
    assert told == [b"%d" % number for number in range(60)]


async def test_compaction_is_told(client: EtcdClient) -> None:
    """A watch that was away while its changes were compacted raises CompactedError, every time."""
    prefix = own()
    first = await client.put(prefix + b"n", b"1")
    with client.watch(under(prefix), first) as watch:
        await read_until(watch, first)
        watch.close()
        await client.put(prefix + b"n", b"2")
        last = await client.put(prefix + b"n", b"3")
        await client.compact(last)
        for _ in range(2):
            with pytest.raises(CompactedError, match=f"from revision {first + 1} on") as caught:
                await anext(watch)
            assert caught.value.oldest == last
    with client.watch(under(prefix), last) as watch:
        assert (await anext(watch)).events[0].entry.value == b"3"


async def test_compaction_behind_a_watch_changes_nothing(client: EtcdClient) -> None:
    """What a watch has read may be compacted under its feet."""
    prefix = own()
    first = await client.put(prefix + b"n", b"1")
    with client.watch(under(prefix), first) as watch:
        await read_until(watch, first)
        last = await client.put(prefix + b"n", b"2")
        await read_until(watch, last)
        await client.compact(last)
        watch.close()
        last = await client.put(prefix + b"n", b"3")
        assert [event.entry.value for event in (await anext(watch)).events] == [b"3"]


@ON_ASYNCIO
async def test_no_gap_and_no_double_while_members_die(cluster: EtcdCluster) -> None:
    """A watch whose members are killed, cut off and started again under load tells each change once, in order; and it
    goes on with others meanwhile, though its client sends nothing that would find out."""
    prefix = own()
    count, told = 0, list[bytes]()
    enough = asyncio.Event()
    async with (
        await EtcdClient.connect(cluster.endpoints, timeout=10 * SLOW) as writer,
        await EtcdClient.connect(cluster.endpoints, timeout=10 * SLOW) as reader,
    ):
        first = await writer.put(prefix + b"begin", b"")

        async def write() -> None:
            nonlocal count
            while not enough.is_set():
                await writer.put(prefix + b"%06d" % count, b"")
                count += 1
            await writer.put(prefix + b"end", b"")

        async def read() -> None:
            with reader.watch(under(prefix), first + 1) as watch:
                async for batch in watch:
                    told.extend(event.entry.key for event in batch.events if event.entry.version == 1)
                    if told[-1:] == [prefix + b"end"]:
                        return

        async def break_things() -> None:
            for turn in range(TURNS):
                member = next(member for member in cluster.members if member.endpoint == reader.endpoint)
                if turn % 2:
                    await asyncio.to_thread(member.kill)
                else:
                    cluster.isolate(member)
                before = len(told)
                while len(told) < before + 20:  # noqa: ASYNC110 - what is waited for is the way through etcd
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(cluster.mend)
            enough.set()

        async with asyncio.timeout(50 * SLOW), asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            tasks.create_task(read())
            tasks.create_task(break_things())
    assert told == [prefix + b"%06d" % number for number in range(count)] + [prefix + b"end"]


@ON_UVLOOP
async def test_a_watch_goes_on_where_its_etcd_comes_back(own_etcd: EtcdServer) -> None:
    """A watch of a member that is killed and started again tells what was written since."""
    async with await EtcdClient.connect([own_etcd.endpoint], timeout=10 * SLOW) as client:
        first = await client.put(b"n", b"1")
        with client.watch(one(b"n"), first) as watch:
            await anext(watch)
            read = asyncio.ensure_future(anext(watch))
            await asyncio.to_thread(own_etcd.kill)
            await asyncio.to_thread(own_etcd.start)
            await client.put(b"n", b"2")
            async with asyncio.timeout(30 * SLOW):
                assert [event.entry.value for event in (await read).events] == [b"2"]


@ON_UVLOOP
async def test_a_quiet_watch_keeps_up(tmp_path: Path) -> None:
    """etcd says from time to time that nothing happened: what is compacted since then is no loss to a quiet watch."""
    server = EtcdServer(tmp_path, "--experimental-watch-progress-notify-interval", "300ms")
    await asyncio.to_thread(server.start)
    try:
        async with await EtcdClient.connect([server.endpoint], timeout=10 * SLOW) as client:
            with client.watch(one(b"quiet"), await client.put(b"quiet", b"")) as watch:
                await anext(watch)
                last = await client.put(b"elsewhere", b"")
                for batch in await read_until(watch, last):
                    assert batch.events == []
                await client.compact(last)
                watch.close()
                await client.put(b"quiet", b"2")
                assert [event.entry.value for event in (await anext(watch)).events] == [b"2"]
    finally:
        await asyncio.to_thread(server.kill)


async def test_a_start_before_the_first_revision(client: EtcdClient) -> None:
    """Revisions begin at 1."""
    with pytest.raises(ValueError, match="revision 1 or later, or at 0, which is now; not at -1"):
        client.watch(one(b"a"), -1)


async def test_a_start_now(client: EtcdClient) -> None:
    """What was written before is not told, what is written when it has begun is."""
    key = own()
    await client.put(key, b"before")
    with client.watch(one(key), 0) as watch:
        await watch.begin()
        written = await client.put(key, b"behind")
        batch = await anext(watch)
    assert [(event.entry.value, event.entry.mod_revision) for event in batch.events] == [(b"behind", written)]
