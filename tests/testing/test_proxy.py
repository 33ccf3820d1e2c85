"""The fault proxy while no fault is asked for: it is not there; and how it begins and ends."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.address import Address
from aiopg.errors import AddressInUseError, GroupClosedError
from aiopg.testing import FaultProxy

from .conftest import Road, Wire, becomes, together, unused_port


async def test_bytes_pass_whole_and_in_order_both_ways_at_once(any_road: Road) -> None:
    """Without a fault the proxy is not there: all bytes, and the end of file behind them."""
    client, target = await any_road.connect()
    there, back = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(2_000_000)
    client.send(there)
    target.send(back)
    client.writer.write_eof()
    target.writer.write_eof()
    assert await together(target.rest(), client.rest()) == [there, back]
    await any_road.proxy_is_rid_of_all()
    assert (any_road.proxy.connections, any_road.proxy.accepted) == (0, 1)


async def test_one_way_goes_on_when_the_other_has_ended(any_road: Road) -> None:
    """An end of file is passed on as such, and not as the end of the connection."""
    client, target = await any_road.connect()
    client.send(b"question")
    client.writer.write_eof()
    assert await target.rest() == b"question"
    target.send(b"answer")
    assert await client.read(6) == b"answer"
    assert any_road.proxy.connections == 1
    target.writer.close()
    assert await client.rest() == b""
    await any_road.proxy_is_rid_of_all()


@pytest.mark.parametrize("from_client", [True, False])
async def test_a_reset_comes_out_as_a_reset_behind_the_bytes(road: Road, from_client: bool) -> None:
    """An end that is reset makes the other end reset, and what it sent before still arrives."""
    client, target = await road.connect()
    here, there = (client, target) if from_client else (target, client)
    road.proxy.delay(0.02)
    here.send(b"last words")
    here.reset()
    assert await there.until_reset() == b"last words"
    await road.proxy_is_rid_of_all()


async def test_the_proxy_sends_without_waiting_for_more(road: Road) -> None:
    """TCP_NODELAY is set on the sockets to both sides."""
    await road.connect()
    (relay,) = road.proxy._relays
    for end in (relay.client, relay.target):
        assert end._transport is not None
        sock = end._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("delay", [0.0, 0.01])
async def test_a_slow_reader_slows_its_writer_down(road: Road, delay: float) -> None:
    """The proxy holds a bounded number of bytes, and reads on when they are gone."""
    road.proxy.delay(delay)
    client, target = await road.connect()
    data = random.Random(3).randbytes(1 << 20) * 48
    client.send(data)
    client.writer.write_eof()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.writer.drain()
    (relay,) = road.proxy._relays
    assert relay.to_target._bytes < 2 << 20
    road.proxy.delay(0.0)
    assert await target.rest() == data


async def test_a_piece_is_written_when_the_kernel_has_the_one_before(road: Road) -> None:
    """Nothing is held behind the lane, where what comes next would overtake it or be lost."""
    client, _ = await road.connect()
    (relay,) = road.proxy._relays
    road.proxy.fragment(4_000)
    client.send(b"x" * 32_000_000)
    await becomes(lambda: not relay.target.is_writable)
    assert relay.target._transport is not None
    assert relay.target._transport.get_write_buffer_size() < 4_000


async def test_a_cut_that_falls_just_when_an_end_takes_more_ends_it_once(any_road: Road) -> None:
    """asyncio ends a connection twice that is aborted within `resume_writing`: it would say so on stderr."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    client, target = await any_road.connect()
    (relay,) = any_road.proxy._relays
    client.send(b"x" * 32_000_000)
    await becomes(lambda: not relay.target.is_writable)
    any_road.proxy.cut(after=1)
    try:
        await target.rest()
    except ConnectionResetError:
        pass  # on TCP
    await any_road.proxy_is_rid_of_all()
    assert told == []


async def test_a_lost_end_does_not_hold_the_other_up(road: Road) -> None:
    """What is for an end that is lost is read and thrown away, until its peer can be told."""
    client, target = await road.connect()
    (relay,) = road.proxy._relays
    road.proxy.stall()
    client.reset()
    await becomes(lambda: relay.client.has_ended)
    target.send(b"x" * 32_000_000)
    async with asyncio.timeout(5.0):
        await target.writer.drain()
    road.proxy.resume()
    assert await target.until_reset() == b""


async def test_a_target_that_does_not_answer_does_not_hold_closing_up() -> None:
    """The proxy is closed at once although a connection to the target is still being made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        name = server.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(name)
        async with FaultProxy(f"aiopg://127.0.0.1:{name[1]}") as proxy:
            address = Address.parse(proxy.address)
            client = Wire(*await asyncio.open_connection(address.host, address.port))
            client.send(b"anybody there?")
            await client.hears_nothing()
            (relay,) = proxy._relays
            assert not relay.target.is_attached
            began = time.monotonic()
            await proxy.close()
            assert time.monotonic() - began < 0.5
        assert await client.until_reset() == b""
        client.writer.close()
        for filler in fillers:
            filler.close()


async def test_a_target_that_is_not_there_is_a_reset(unix_road: Road) -> None:
    """Where nobody serves, a client is reset; as soon as somebody does, connections go through."""
    path = unix_road.proxy.target.path
    os.rename(path, path + ".away")
    client = await unix_road.client()
    assert await client.rest() == b""
    os.rename(path + ".away", path)
    client, target = await unix_road.connect()
    client.send(b"hello")
    assert await target.read(5) == b"hello"
    assert (unix_road.proxy.accepted, unix_road.proxy.connections) == (2, 1)


async def test_a_target_that_refuses_is_a_reset() -> None:
    """The same over TCP, where a reset is one."""
    async with FaultProxy(f"aiopg://127.0.0.1:{unused_port()}") as proxy:
        address = Address.parse(proxy.address)
        client = Wire(*await asyncio.open_connection(address.host, address.port))
        assert await client.until_reset() == b""
        client.writer.close()
        assert (proxy.accepted, proxy.faults.total()) == (1, 0)


async def test_closing_ends_every_connection(any_road: Road) -> None:
    """After close() there is no connection, and the address is free; closing again is fine."""
    await any_road.connect()
    await any_road.client()  # may still be waiting for its target
    await any_road.proxy.close()
    await any_road.proxy.close()
    assert (any_road.proxy.connections, len(any_road.proxy._relays)) == (0, 0)
    assert any_road.proxy.faults.total() == 0
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await any_road.client()
    with pytest.raises(GroupClosedError):
        await any_road.proxy.start()


async def test_an_address_in_use_is_refused(road: Road) -> None:
    """`listen` is taken as it is, and a port that is held is named as such; before the start there is no address."""
    proxy = FaultProxy("aiopg://127.0.0.1:1", listen=road.proxy.address)
    with pytest.raises(GroupClosedError):
        _ = proxy.address
    with pytest.raises(AddressInUseError):
        await proxy.start()


async def test_accepting_goes_on_after_a_shortage_of_descriptors(
    road: Road, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that could not be accepted waits, is accepted a moment later, and the log says so."""
    monkeypatch.setattr("aiopg.testing.proxy.ACCEPT_PAUSE", 0.05)
    accept, failures = socket.socket.accept, [OSError(errno.EMFILE, "too many open files")] * 2

    def fail_twice(self: socket.socket) -> tuple[socket.socket, Any]:
        if self is road.proxy._listener and failures:
            raise failures.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", fail_twice)
    began = time.monotonic()
    client, target = await road.connect()
    client.send(b"late")
    assert await target.read(4) == b"late"
    assert time.monotonic() - began >= 0.096
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == ["[Errno 24] too many open files"] * 2


@pytest.mark.parametrize("passes", range(8))
async def test_a_connection_can_be_cut_at_any_moment_of_its_making(any_road: Road, passes: int) -> None:
    """However far it has come, it is over at once, and no socket and no task of it is left."""
    await any_road.client()
    for _ in range(passes):
        await asyncio.sleep(0)
    any_road.proxy.cut()
    await any_road.proxy_is_rid_of_all()
    await any_road.client()
    for _ in range(passes):
        await asyncio.sleep(0)
    await any_road.proxy.close()


def test_a_seed_is_drawn_and_told() -> None:
    """Without a seed one is drawn, and the repr tells it, so that a failing run can be had again."""

    async def look() -> None:
        first, second = FaultProxy("aiopg://127.0.0.1:1"), FaultProxy("aiopg://127.0.0.1:1")
        assert first.seed != second.seed
        assert f" seed={first.seed} " in repr(first)
        assert "not started" in repr(first)

    asyncio.run(look())


@pytest.mark.parametrize(
    "call",
    [
        lambda proxy: proxy.cut(after=0),
        lambda proxy: proxy.half_close("both"),
        lambda proxy: proxy.fragment(0),
        lambda proxy: proxy.delay(-1),
        lambda proxy: proxy.delay(float("nan")),
        lambda proxy: proxy.throttle(0),
        lambda proxy: FaultProxy("http://127.0.0.1:1"),
        lambda proxy: FaultProxy("aiopg://127.0.0.1:1", listen="nowhere"),
        lambda proxy: asyncio.run(proxy.chaos(cuts=-1, between=(0, 1))),
        lambda proxy: asyncio.run(proxy.chaos(cuts=1, between=(2, 1))),
        lambda proxy: asyncio.run(proxy.chaos(cuts=1, between=(0, float("inf")))),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[FaultProxy], Any]) -> None:
    """What cannot be is a ValueError, and nothing was changed."""
    proxy = FaultProxy("aiopg://127.0.0.1:1", seed=1)
    before = repr(proxy)
    with pytest.raises(ValueError, match=r"must|URL"):
        call(proxy)
    assert repr(proxy) == before


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        (lambda proxy: None, None),
        (lambda proxy: proxy.fragment(7), "fragment"),
        (lambda proxy: proxy.delay(0.002), "delay"),
        (lambda proxy: proxy.throttle(200_000), None),
    ],
    ids=["none", "fragment", "delay", "throttle"],
)
async def test_groups_work_through_the_proxy(fault: Callable[[FaultProxy], None], counted: str | None) -> None:
    """Members of a store meet, exchange objects and part through faults that only slow them down."""
    async with StoreServer() as server, FaultProxy(server.address) as proxy:
        fault(proxy)
        groups = await asyncio.gather(
            *(AsyncStatelessGroup.connect(proxy.address, rank=rank, world_size=2) for rank in range(2))
        )
        for i in range(10):
            await asyncio.gather(*(group.barrier() for group in groups))
            gathered = await asyncio.gather(*(group.all_gather((group.rank, i)) for group in groups))
            assert gathered == [[(0, i), (1, i)]] * 2, proxy
        assert (proxy.connections, proxy.accepted) == (2, 2)
        await asyncio.gather(*(group.close() for group in groups))
        await server.wait_vacated()
    assert proxy.faults.total() > 0 if counted else proxy.faults["cut"] == 0
    assert counted is None or proxy.faults[counted] > 0
