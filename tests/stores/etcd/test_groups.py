"""Groups over etcd: every operation at every size, large payloads, and what they cost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiopg import AsyncStatelessGroup, AsyncStore, PayloadTooLargeError, StoreFullError
from aiopg.stores import open_link
from aiopg.stores.etcd import _housekeeping
from aiopg.stores.etcd._client import EtcdClient
from aiopg.testing import GroupMaker

from .keys import ON_UVLOOP, becomes, held, metric
from .servers import SLOW, EtcdServer

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [2, 4, 8])
async def test_all_operations(make: GroupMaker, size: int) -> None:
    """At every size what every rank gets of each."""
    group = await make(size)
    ranks = list(range(size))

    async def all_of(member: AsyncStatelessGroup) -> None:
        me = member.rank
        await member.send(("to the right", me), (me + 1) % size)
        assert await member.recv((me - 1) % size) == ("to the right", (me - 1) % size)
        assert await member.broadcast("x" if me == 1 else None, 1) == "x"
        assert await member.all_gather({"rank": me}) == [{"rank": rank} for rank in ranks]
        assert await member.gather(me, 1) == (ranks if me == 1 else None)
        assert await member.scatter([rank * 2 for rank in ranks] if me == 0 else None, 0) == me * 2
        assert await member.all_to_all([(me, rank) for rank in ranks]) == [(rank, me) for rank in ranks]
        assert await member.all_reduce(me) == sum(ranks)
        assert await member.reduce(me, 0, "max") == (size - 1 if me == 0 else None)
        await member.barrier(30 * SLOW)

    await asyncio.gather(*(all_of(member) for member in group))


# ------------------------------------------------------------------------------------------------- large payloads


async def test_a_large_message_is_read_by_its_reader_alone(
    make: GroupMaker, client: EtcdClient, etcd_server: EtcdServer
) -> None:
    """8 MiB to one of four ranks leave etcd once, and not four times."""
    group = await make(4)
    payload = bytes(range(256)) * (8 * MIB // 256)
    before = metric(etcd_server, "etcd_network_client_grpc_sent_bytes_total")
    await group[0].send(payload, 1)
    assert await group[1].recv(0) == payload
    await asyncio.gather(*(member.barrier(30 * SLOW) for member in group))
    assert metric(etcd_server, "etcd_network_client_grpc_sent_bytes_total") - before < 12 * MIB


async def test_large_parts_of_collectives(make: GroupMaker) -> None:
    """8 MiB by every way in which a rank gets something."""
    group = await make(3)
    large = [bytes([rank]) * (8 * MIB if rank == 1 else 70_000) for rank in range(3)]

    async def all_of(member: AsyncStatelessGroup) -> None:
        me = member.rank
        assert await member.broadcast(large[1] if me == 1 else None, 1) == large[1]
        assert await member.scatter(large if me == 0 else None, 0) == large[me]
        assert await member.all_gather(large[me]) == large
        assert await member.all_to_all([large[me]] * 3) == large

    await asyncio.gather(*(all_of(member) for member in group))


async def test_payloads_go_when_they_were_read(
    make: GroupMaker, client: EtcdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next snapshot; one that waits to be read stays."""
    monkeypatch.setattr(_housekeeping, "BLOB_BYTES", 1 * MIB)
    group = await make(2)
    name = group[0].name
    for tag in ("waits", "read", "read too"):
        await group[0].send(bytes(MIB), 1, tag=tag)
    assert len(await held(client, name, "blob/")) > 3
    for tag in ("read", "read too"):
        assert await group[1].recv(0, tag=tag) == bytes(MIB)

    async def one_is_left() -> bool:
        await group[0].send(None, 1)
        await group[1].recv(0)
        left = {entry.key.split(b"/")[-2] for entry in await held(client, name, "blob/")}
        return len(left) == 1

    await becomes(one_is_left)
    assert await group[1].recv(0, tag="waits") == bytes(MIB)


async def test_what_is_too_large_is_said_before_anything_is_sent(make: GroupMaker) -> None:
    """The limit is that of the capability record; the group goes on."""
    group = await make(2)
    with pytest.raises(PayloadTooLargeError) as refused:
        await group[0].send(bytes(65 * MIB), 1)
    assert refused.value.limit == 64 * MIB
    await group[0].send("small", 1)
    assert await group[1].recv(0) == "small"


@ON_UVLOOP
async def test_an_etcd_without_space_refuses_calls_and_the_link_goes_on(tmp_path: Path) -> None:
    """StoreFullError, and nothing was done. What was opened can be closed."""
    server = EtcdServer(tmp_path, "--quota-backend-bytes", str(24 * MIB))
    await asyncio.to_thread(server.start)
    maker = GroupMaker(server.url, "full", timeout=30 * SLOW)
    try:
        group = await maker(2)

        async def fill() -> None:
            for _ in range(8):
                await group[0].send(bytes(8 * MIB), 1)

        with pytest.raises(StoreFullError, match="etcd"):
            await fill()
        with pytest.raises(StoreFullError):
            await group[1].send("small", 0)
        with pytest.raises(StoreFullError):  # in a room that it has to come into first
            await AsyncStore(group[0].store.link).set("key", b"x")
        assert (await group[0].store.link.status())["members"] == 2
        await maker.close()
        async with await EtcdClient.connect([server.endpoint], timeout=10 * SLOW) as client:
            assert await held(client, group[0].name, "session/") == []
        with pytest.raises(StoreFullError):
            await open_link(server.url)
    finally:
        await maker.close()
        await asyncio.to_thread(server.kill)


# ------------------------------------------------------------------------------------------------- what it costs


@ON_UVLOOP
async def test_a_round_costs_each_rank_one_request_whatever_their_number(
    make: GroupMaker, etcd_server: EtcdServer
) -> None:
    """Counted by etcd itself: transactions, and all other requests but renewals of leases."""
    rounds, costs = 50, {}
    for size in (2, 8):
        group = await make(size)
        await asyncio.gather(*(member.barrier(30 * SLOW) for member in group))
        before = requests(etcd_server)
        for _ in range(rounds):
            await asyncio.gather(*(member.all_gather(member.rank) for member in group))
        costs[size] = (requests(etcd_server) - before) / rounds / size
        await make.close()
    # A snapshot now and then comes on top; where ranks come late, two of their rounds' words may be one.
    assert costs[2] < 1.2
    assert costs[8] < 1.2


def requests(server: EtcdServer) -> int:
    """That etcd has handled, of those that we make for calls."""
    lines = [line for line in server.metrics().splitlines() if line.startswith("grpc_server_handled_total{")]
    ours = [line for line in lines if 'grpc_service="etcdserverpb.KV"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in ours)
