"""Each fault of the proxy is as it is described, and is counted."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import Literal

import pytest

from aiopg.address import Address

from .conftest import QUIET, Road, becomes, together

# -------------------------------------------------------------------------------------- faults that break


async def test_a_cut_resets_both_ends_and_drops_what_is_held(road: Road) -> None:
    """All live connections are reset at once; connections made later are whole."""
    ends = [*await road.connect(), *await road.connect()]
    road.proxy.stall()
    ends[0].send(b"held")
    road.proxy.cut()
    assert road.proxy.connections == 0
    assert await together(*(end.until_reset() for end in ends)) == [b""] * 4
    assert road.proxy.faults["cut"] == 2
    road.proxy.resume()
    client, target = await road.connect()
    client.send(b"new")
    assert await target.read(3) == b"new"
    road.proxy.cut()
    assert road.proxy.faults["cut"] == 3


async def test_a_cut_ends_a_connection_over_unix_sockets(unix_road: Road) -> None:
    """There is no reset there; each end hears at once that it is over."""
    client, target = await unix_road.connect()
    unix_road.proxy.cut()
    assert await together(client.rest(), target.rest()) == [b"", b""]


async def test_a_cut_after_so_many_bytes_falls_in_the_middle(any_road: Road) -> None:
    """Both ways are counted together, and not a byte more passes."""
    client, target = await any_road.connect()
    client.send(b"before")
    await target.read(6)
    any_road.proxy.cut(after=1000)
    target.send(b"x" * 400)
    await client.read(400)
    assert any_road.proxy.faults["cut"] == 0
    client.send(b"y" * 100_000)
    got = b""
    try:
        while piece := await target.reader.read(1 << 16):
            got += piece
    except ConnectionResetError:
        assert any_road.proxy.address.startswith("aiopg:")
    assert got == b"y" * 600
    assert (any_road.proxy.connections, any_road.proxy.faults["cut"]) == (0, 1)


async def test_a_gentle_close_comes_behind_the_bytes(any_road: Road) -> None:
    """Both ends read what the proxy had, then the end of file, and never a reset."""
    client, target = await any_road.connect()
    any_road.proxy.delay(0.02)
    client.send(b"there")
    target.send(b"back")
    await becomes(lambda: any_road.proxy.faults["delay"] >= 2)
    any_road.proxy.close_gently()
    client.send(b"too late")
    target.send(b"too late")
    assert await together(target.rest(), client.rest()) == [b"there", b"back"]
    assert any_road.proxy.faults["close_gently"] == 1
    for _ in range(3):
        client.send(b"and this comes back as a reset if the socket is closed already")
        await asyncio.sleep(QUIET / 5)
        assert not client.writer.transport.is_closing()
    client.writer.close()
    target.writer.close()
    await any_road.proxy_is_rid_of_all()


async def test_an_end_that_never_closes_is_closed_after_a_gentle_close(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers that ignore the end of file do not keep the proxy's sockets open."""
    monkeypatch.setattr("aiopg.testing._relay.LINGER_SECONDS", 0.05)
    client, target = await road.connect()
    road.proxy.close_gently()
    assert await together(target.rest(), client.rest()) == [b"", b""]
    await road.proxy_is_rid_of_all()


@pytest.mark.parametrize("direction", ["to_target", "to_client"])
async def test_a_half_close_leaves_the_other_way_open(
    any_road: Road, direction: Literal["to_target", "to_client"]
) -> None:
    """One end reads the end of file, and what it sends still arrives."""
    client, target = await any_road.connect()
    told, other = (target, client) if direction == "to_target" else (client, target)
    any_road.proxy.half_close(direction)
    any_road.proxy.half_close(direction)
    assert any_road.proxy.faults["half_close"] == 1
    other.send(b"into the void")
    assert await told.rest() == b""
    told.send(b"still here")
    assert await other.read(10) == b"still here"
    assert any_road.proxy.connections == 1
    told.writer.close()
    assert await other.rest() == b""
    other.writer.close()
    await any_road.proxy_is_rid_of_all()


async def test_nothing_comes_out_of_a_black_hole(any_road: Road) -> None:
    """Bytes and ends vanish in the connections that live; new ones are whole; a cut ends it."""
    client, target = await any_road.connect()
    any_road.proxy.blackhole()
    assert any_road.proxy.faults["blackhole"] == 1
    client.send(b"x" * 5_000_000)
    await client.writer.drain()  # it is read, so it does not fill up
    client.writer.close()
    target.send(b"anybody there?")
    await target.hears_nothing()
    fresh_client, fresh_target = await any_road.connect()
    fresh_client.send(b"fresh")
    assert await fresh_target.read(5) == b"fresh"
    assert any_road.proxy.connections == 2
    any_road.proxy.calm()
    await target.hears_nothing()
    any_road.proxy.cut()
    assert any_road.proxy.faults["cut"] == 2
    await any_road.proxy_is_rid_of_all()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_black_hole_is_gone_when_both_ends_are(road: Road, how: str) -> None:
    """Each end closes or is reset without a word to the other, and then the proxy closes too."""
    client, target = await road.connect()
    road.proxy.blackhole()
    for end in (client, target):
        assert road.proxy.connections == 1
        end.writer.close() if how == "close" else end.reset()
    await road.proxy_is_rid_of_all()
    assert road.proxy.connections == 0


# --------------------------------------------------------------------------------------- faults that last


async def test_a_stall_holds_everything_back_and_loses_nothing(any_road: Road) -> None:
    """Both ways stand still, ends of file too, also in new connections; then all goes on."""
    client, target = await any_road.connect()
    any_road.proxy.stall()
    later_client, later_target = await any_road.connect()
    assert any_road.proxy.faults["stall"] == 2
    client.send(b"there")
    target.send(b"back")
    later_client.send(b"later")
    for wire in (client, later_client):
        wire.writer.write_eof()
    await asyncio.gather(*(wire.hears_nothing() for wire in (client, target, later_target)))
    assert any_road.proxy.connections == 2
    any_road.proxy.resume()
    assert await together(target.rest(), later_target.rest()) == [b"there", b"later"]
    assert await client.read(4) == b"back"


async def test_ends_that_are_lost_in_a_stall_are_gone_after_it(road: Road) -> None:
    """Both are reset while nothing passes: the proxy keeps no trace of them."""
    for end in await road.connect():
        road.proxy.stall()
        end.reset()
    road.proxy.resume()
    await road.proxy_is_rid_of_all()


async def test_fragments_are_small_and_make_the_whole(road: Road) -> None:
    """Reads come small at the other end, in order; off, they are whole again."""
    client, target = await road.connect()
    data = random.Random(4).randbytes(5_000)
    road.proxy.fragment(10)
    client.send(data)
    reads: list[bytes] = []
    while sum(map(len, reads)) < len(data):
        reads.append(await target.reader.read(1 << 16))
    assert b"".join(reads) == data
    assert max(map(len, reads)) <= 50  # pieces of 1 to 10, and this reader may be a few behind
    assert len(set(map(len, reads))) > 1
    assert road.proxy.faults["fragment"] >= len(data) / 10 - 1
    before = road.proxy.faults["fragment"]
    road.proxy.fragment(None)
    client.send(data)
    assert await target.reader.read(1 << 16) == data
    assert road.proxy.faults["fragment"] == before


async def test_a_delay_is_added_each_way_and_keeps_order(road: Road) -> None:
    """A round trip takes twice the delay, and many under way at once take no longer."""
    client, target = await road.connect()
    road.proxy.delay(0.05)
    began = time.monotonic()
    for i in range(50):
        client.send(b"%02d" % i)
        await asyncio.sleep(0)
    question = await target.read(100)
    assert question == b"".join(b"%02d" % i for i in range(50))
    assert time.monotonic() - began >= 0.048
    target.send(b"answer")
    assert await client.read(6) == b"answer"
    assert 0.096 <= time.monotonic() - began < 1.0
    assert road.proxy.faults["delay"] >= 2
    before = road.proxy.faults["delay"]
    client.send(b"slow")
    await becomes(lambda: road.proxy.faults["delay"] > before)
    road.proxy.delay(0)
    client.send(b"fast")
    assert await target.read(8) == b"slowfast"


async def test_a_throttle_keeps_its_rate(road: Road) -> None:
    """Bytes come no faster than asked, but for one piece, and not much slower; off, the rest comes at once."""
    client, target = await road.connect()
    road.proxy.throttle(100_000)
    began = time.monotonic()
    client.send(b"x" * 30_000)
    await target.read(30_000)
    assert 0.24 <= time.monotonic() - began < 1.0
    assert road.proxy.faults["throttle"] >= 10
    road.proxy.throttle(1)
    client.send(b"y" * 30_000)
    await target.read(1)
    began = time.monotonic()
    road.proxy.throttle(1_000_000)
    await target.read(10_000)
    road.proxy.throttle(None)
    assert await target.read(19_999) == b"y" * 19_999
    assert time.monotonic() - began < 0.5


async def test_refused_connections_are_reset_and_live_ones_go_on(road: Road) -> None:
    """A refused client is reset before a byte, and the target never hears of it."""
    client, target = await road.connect()
    road.proxy.refuse()
    with socket.create_connection(("127.0.0.1", Address.parse(road.proxy.address).port)) as refused:
        refused.setblocking(False)
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(refused, 1)
    assert (road.proxy.faults["refuse"], road.proxy.accepted, road.proxy.connections) == (1, 1, 1)
    client.send(b"on")
    assert await target.read(2) == b"on"
    road.proxy.accept()
    client, target = await road.connect()
    client.send(b"in")
    assert await target.read(2) == b"in"


async def test_calm_takes_everything_back(road: Road) -> None:
    """After calm() bytes pass at once, new connections are taken, and no cut is still to fall."""
    client, target = await road.connect()
    proxy = road.proxy
    proxy.cut(after=10)
    proxy.stall()
    proxy.fragment(3)
    proxy.delay(0.5)
    proxy.throttle(7)
    proxy.refuse()
    state = f"{client.writer.get_extra_info('peername')[1]} -> {proxy.target} seed=1 connections=1 accepted=1"
    faults = "stalled refusing fragment=3 delay=0.5 throttle=7"
    assert repr(proxy) == f"<FaultProxy aiopg://127.0.0.1:{state} {faults}>"
    proxy.calm()
    assert repr(proxy) == f"<FaultProxy aiopg://127.0.0.1:{state}>"
    client.send(b"x" * 100)
    async with asyncio.timeout(0.4):
        assert await target.read(100) == b"x" * 100
    await road.connect()
