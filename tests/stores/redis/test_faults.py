"""Connections that break, servers that die and come back, replicas that take over: what goes on, and what is told."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiopg import StoreLostError
from aiopg._core.messages import Put
from aiopg.address import Address
from aiopg.stores import open_link
from aiopg.stores.redis._address import room_prefix
from aiopg.stores.redis._outbox import Outbox
from aiopg.stores.redis._status import REGISTRY
from aiopg.testing import FaultProxy
from tests.system.ranks import free_port

from .conftest import SLOW
from .load import Load, form
from .servers import Server, binaries, cluster, cluster_node, replicated, sentinel, wait_for

LONG = os.environ.get("AIOPG_TEST_LONG") == "1"

SEED = int(os.environ.get("AIOPG_TEST_SEED", time.time_ns() % 2**32))

# Where it is the server's matter, on one loop.
ONE_LOOP = pytest.mark.asyncio(loop_factories=["asyncio"])


def behind(proxy: FaultProxy) -> str:
    """The URL of the Redis behind a proxy."""
    return proxy.address.replace("aiopg:", "redis:")


def before(server: Server) -> str:
    """A server as the proxy names it."""
    return f"aiopg://127.0.0.1:{server.port}"


async def test_cuts_lose_and_double_nothing(server: Server, name: str) -> None:
    """Promise 2: under load, whenever and wherever connections are cut, each command takes effect once."""
    print(f"seed {SEED}")
    async with FaultProxy(before(server), seed=SEED) as proxy:
        load = Load(await form([behind(proxy)] * 3, name))
        await load.run(lambda: proxy.chaos(cuts=100 if LONG else 10, between=(0.02, 0.2)))
        assert proxy.faults["cut"] > 5
        await load.step()
        await load.close()


def test_what_may_have_been_applied_is_not_refused() -> None:
    """A server that is full when a command comes again may have applied it before the cut: its number is taken."""
    outbox = Outbox()
    for call in (1, 2):
        outbox.add(Put(call, 1, 0, 0, (b"x",)))
    outbox.batch(anew=False)
    outbox.doubt()
    outbox.add(Put(3, 1, 0, 0, (b"x",)))
    assert (outbox.batch(anew=True)[0], outbox.refuse_payloads(2)) == (1, [])
    assert (outbox.batch(anew=False)[0], outbox.refuse_payloads(2)) == (3, [])  # that of the call before it
    assert [put.call for put in outbox.refuse_payloads(3)] == [3]
    assert outbox.applied(2)
    outbox.add(Put(4, 1, 0, 0, (b"x",)))
    assert (outbox.batch(anew=False)[0], [put.call for put in outbox.refuse_payloads(1)]) == (3, [4])
    assert len(outbox) == 0


@ONE_LOOP
async def test_who_waits_for_what_is_refused_goes_on() -> None:
    """The refused have no numbers any more: what is behind them has smaller ones, and is waited for by these."""
    outbox = Outbox()
    for call, body in ((1, (b"x",)), (2, ()), (3, (b"x",))):
        outbox.add(Put(call, 1, 0, 0, body))
    waits = asyncio.create_task(outbox.settled())
    await asyncio.sleep(0)
    outbox.batch(anew=False)
    assert [put.call for put in outbox.refuse_payloads(3)] == [1, 3]
    outbox.add(Put(4, 1, 0, 0, (b"x",)))
    assert outbox.applied(1)
    await waits


@ONE_LOOP
async def test_a_connection_that_is_dead_and_does_not_say_so_is_left(newest: Server, name: str) -> None:
    """A call that has no answer for half the grace goes again over a new one."""
    async with FaultProxy(before(newest), seed=SEED) as proxy:
        load = Load(await form([behind(proxy)] * 2, name, grace=2.0 * SLOW))
        await load.step()
        proxy.blackhole()
        await load.step()
        assert proxy.accepted > 4
        await load.close()


@ONE_LOOP
async def test_a_server_that_stays_away_is_told(own_server: Server, name: str) -> None:
    """StoreLostError for all calls, when the grace is over; what waited for room too."""
    load = Load(await form([own_server.url] * 2, name, grace=0.6))
    await load.step()
    own_server.kill()
    with pytest.raises(StoreLostError, match=r"not reached for 0\.6 s"):
        await load.step()
    with pytest.raises(StoreLostError):
        await load.step()
    await load.close()


@ONE_LOOP
async def test_groups_go_on_after_a_restart_of_a_server_that_syncs_always(
    binary: str, tmp_path: Path, name: str
) -> None:
    """kill -9 under load with appendonly always: nothing lost, nothing doubled; the capability record says so."""
    print(f"seed {SEED}")
    moments = random.Random(SEED)
    server = Server(binary, tmp_path / "redis", "--save", "", "--appendonly", "yes", "--appendfsync", "always")
    with server:
        load = Load(await form([server.url] * 2, name))

        async def restarts() -> None:
            for _ in range(20 if LONG else 2):
                await load.stepped()
                await asyncio.sleep(moments.uniform(0, 0.05))  # at whatever a step is at then
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)

        await load.run(restarts)
        link = await open_link(server.url)
        assert link.capabilities.survives == ("connection", "restart")
        await link.close()
        await load.step()
        await load.close()


@ONE_LOOP
async def test_what_a_server_lost_is_told(binary: str, tmp_path: Path, name: str) -> None:
    """With appendonly everysec, a host that crashes loses up to a second of what was acknowledged: never in silence."""
    server = Server(binary, tmp_path / "redis", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
    with server:
        load = Load(await form([server.url] * 2, name))
        for _ in range(20):
            await load.step()
        link = await open_link(server.url)
        assert link.capabilities.survives == ("connection",)
        await link.close()
        server.kill()
        lose_the_end(server.place)
        server.start()
        await load.lost()
        await load.close()


@ONE_LOOP
async def test_a_server_that_keeps_nothing_is_told(own_server: Server, name: str) -> None:
    """It comes back with nothing: StoreLostError, and the name can be used anew."""
    load = Load(await form([own_server.url] * 2, name))
    await load.step()
    own_server.kill()
    own_server.start()
    await load.lost()
    await load.close()
    again = Load(await form([own_server.url] * 2, name))
    await again.step()
    await again.close()


@ONE_LOOP
async def test_sentinel_names_the_replica_that_took_over(tmp_path: Path, name: str) -> None:
    """It had all that was acknowledged: groups go on."""
    with sentinel(list(binaries().values())[-1], tmp_path) as (primary, replica, watch):
        load = Load(await form([f"redis+sentinel://127.0.0.1:{watch.port}/aiopg"] * 2, name))
        await load.step()
        await asyncio.to_thread(wait_for, lambda: offset(primary, "master") == offset(replica, "slave"))
        primary.kill()
        await load.step()
        assert "role:master" in str(replica.ask("INFO", "replication"))
        await load.step()
        await load.close()


@ONE_LOOP
async def test_a_sentinel_that_knows_only_an_old_primary_is_passed_over(tmp_path: Path, name: str) -> None:
    """It is the first of the URL, and answers: with a server that is not there any more. The next one is asked."""
    binary = list(binaries().values())[-1]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "sentinel.conf").write_text(f"sentinel monitor aiopg 127.0.0.1 {free_port()} 2\n")
    with (
        sentinel(binary, tmp_path) as (_, _, watch),
        Server(binary, tmp_path / "old", sentinel=True) as old,
    ):
        url = f"redis+sentinel://127.0.0.1:{old.port},127.0.0.1:{watch.port}/aiopg"
        load = Load(await form([url] * 2, name))
        await load.step()
        await load.close()


@ONE_LOOP
async def test_what_a_replica_had_not_got_is_told(binary: str, tmp_path: Path, name: str) -> None:
    """Writes that the primary had acknowledged are lost when it fails: StoreLostError, never silence."""
    with replicated(binary, tmp_path) as (primary, replica):
        async with FaultProxy(before(primary)) as proxy:
            load = Load(await form([behind(proxy)] * 2, name))
            await load.step()
            await asyncio.to_thread(wait_for, lambda: offset(primary, "master") == offset(replica, "slave"))
            replica.ask("REPLICAOF", "NO", "ONE")  # from here on it gets nothing more
            await load.step()
            proxy.target = Address.parse(before(replica))
            primary.kill()
            proxy.cut()
            await load.lost()
            await load.close()


@ONE_LOOP
async def test_other_events_of_the_same_number_are_told_from_those_that_were_lost(
    binary: str, tmp_path: Path, name: str
) -> None:
    """A member was told what the new primary does not know, and the others make as much happen before it asks."""
    with replicated(binary, tmp_path) as (primary, replica):
        async with FaultProxy(before(primary)) as proxy, FaultProxy(before(primary)) as slow:
            first, second, third = await form([behind(proxy), behind(proxy), behind(slow)], name)
            of_first, of_second = asyncio.create_task(third.recv(0)), asyncio.create_task(third.recv(1))
            await asyncio.sleep(0)
            await third.store.link.status()
            await asyncio.to_thread(wait_for, lambda: offset(primary, "master") == offset(replica, "slave"))
            replica.ask("REPLICAOF", "NO", "ONE")
            await second.send("lost", 2)
            assert await of_second == "lost"
            for one in (proxy, slow):
                one.target = Address.parse(before(replica))
            slow.refuse()
            primary.kill()
            proxy.cut()
            slow.cut()
            await first.send("other", 2)  # the third one's next event, as "lost" was, and of the same number
            slow.accept()
            with pytest.raises(StoreLostError, match="lost what it had acknowledged"):
                await of_first
            await Load([first, second, third]).close()


def offset(server: Server, role: str) -> str:
    """How far the replication has come there."""
    told = dict(line.split(":", 1) for line in str(server.ask("INFO", "replication")).split("\r\n") if ":" in line)
    return told["master_repl_offset" if role == "master" else "slave_repl_offset"]


def lose_the_end(place: Path) -> None:
    """What a crash of the host leaves of a log that was written and not synced: a part of it."""
    (log,) = [path for path in place.rglob("*.aof") if path.stat().st_size and "base" not in path.name]
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size * 2 // 3)


@ONE_LOOP
async def test_a_group_goes_on_when_its_slot_moves(tmp_path: Path, name: str) -> None:
    """On a Cluster, under load, from one node to another, with the commands by which an operator does it.

    So does its status when the list of rooms moves.
    """
    with cluster(next(iter(binaries().values())), tmp_path) as nodes:
        groups = await form([f"redis+cluster://127.0.0.1:{nodes[0].port}"] * 2, name)
        load = Load(groups)
        await load.step()
        slot, source, target = way_of(room_prefix(name).decode(), nodes)

        def was_met() -> bool:
            return "errorstat_ASK" in str(source.ask("INFO", "errorstats"))

        await load.run(lambda: asyncio.to_thread(move_slot, slot, source, target, was_met))
        await load.step()
        assert source.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
        await asyncio.to_thread(move_slot, *way_of(REGISTRY.decode(), nodes))
        described: Any = await groups[0].store.link.status()
        assert [group["name"] for group in described["groups"]] == [name]
        await load.close()


@ONE_LOOP
@pytest.mark.skipif(not LONG, reason="an election takes long: AIOPG_TEST_LONG=1")
@pytest.mark.timeout(120)
async def test_a_replica_takes_over_in_a_cluster(tmp_path: Path, name: str) -> None:
    """The node of a group dies, and the other nodes name its replica."""
    binary = list(binaries().values())[-1]
    with cluster(binary, tmp_path) as nodes, cluster_node(binary, tmp_path / "replica") as replica:
        slot = int(str(nodes[0].ask("CLUSTER", "KEYSLOT", room_prefix(name).decode())))
        primary = nodes[slot * 3 // 16384]
        rest = [node for node in nodes if node is not primary]
        replica.ask("CLUSTER", "MEET", "127.0.0.1", str(rest[0].port))
        of = str(primary.ask("CLUSTER", "MYID"))
        await asyncio.to_thread(wait_for, lambda: of in str(replica.ask("CLUSTER", "NODES")))
        replica.ask("CLUSTER", "REPLICATE", of)
        load = Load(
            await form([f"redis+cluster://127.0.0.1:{rest[0].port},127.0.0.1:{rest[1].port}"] * 2, name, grace=50.0)
        )
        await load.step()
        await asyncio.to_thread(wait_for, lambda: "master_link_status:up" in str(replica.ask("INFO", "replication")))
        await asyncio.to_thread(wait_for, lambda: offset(primary, "master") == offset(replica, "slave"))
        # Who votes hears of the replica by gossip: where the node died before that, there was no election in 50 s.
        await asyncio.to_thread(wait_for, lambda: all(knows_replica(node, replica, of) for node in (*rest, replica)))
        primary.kill()
        await load.step()
        assert replica.ask("CLUSTER", "COUNTKEYSINSLOT", str(slot))
        await load.close()


def knows_replica(node: Server, replica: Server, of: str) -> bool:
    """Whether a node knows all four, and `replica` as that of the node whose id is `of`."""
    known = [line.split() for line in str(node.ask("CLUSTER", "NODES")).splitlines()]
    name = str(replica.ask("CLUSTER", "MYID"))
    return len(known) == 4 and any(it[0] == name and "slave" in it[2] and it[3] == of for it in known)


def way_of(key: str, nodes: list[Server]) -> tuple[str, Server, Server]:
    """The slot of a key that is there, the node where it is, and another one."""
    slot = str(nodes[0].ask("CLUSTER", "KEYSLOT", key))
    (source,) = [node for node in nodes if node.ask("CLUSTER", "COUNTKEYSINSLOT", slot)]
    return slot, source, next(node for node in nodes if node is not source)


def move_slot(slot: str, source: Server, target: Server, was_met: Callable[[], bool] = lambda: True) -> None:
    """Give a slot and its keys to another node. `was_met`: it is on its way until this is so."""
    names = {node: str(node.ask("CLUSTER", "MYID")) for node in (source, target)}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    wait_for(was_met)
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, "100"):
        assert isinstance(keys, list)
        source.ask("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *keys)
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])
