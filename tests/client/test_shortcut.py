"""Members on the store's host move to a unix socket by themselves, and come back to it."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from aiopg import AsyncStatelessGroup, AuthenticationError, StoreServer
from aiopg.address import Address
from aiopg.stores.native import NativeLink

from .conftest import LONG, families, member, name_of, passes, sockets

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names for sockets that are no files"),
    pytest.mark.usefixtures("nothing_left"),
]

TOKEN = "correct horse battery staple"


# ------------------------------------------------------------------------------------------------------- who moves


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
async def test_a_member_on_the_stores_host_moves_to_a_unix_socket(host: str) -> None:
    """By itself; of the connection over which it came nothing is left, and it did not come twice."""
    async with StoreServer(host, insecure=True) as server:
        port = Address.parse(server.address).port
        before = sockets()
        group = await member(str(Address("127.0.0.1" if host == "0.0.0.0" else host, port)))
        assert families(server) == {socket.AF_UNIX}
        assert server.address.startswith("aiopg://")
        await group.barrier()
        while len(server._started()._connections) > 1:  # noqa: ASYNC110 - nothing tells when the store has seen its end
            await asyncio.sleep(0)
        assert sockets() == before + 2
        assert "connections=1" in repr(group.store.link)
        await group.close()


async def test_large_and_small_objects_go_over_it() -> None:
    """As over any other connection."""
    async with StoreServer() as server:
        groups = await asyncio.gather(*(member(server.address, rank, 2) for rank in range(2)))
        large = b"x" * 3_000_000
        await asyncio.gather(groups[0].send(large, 1), groups[0].send("small", 1))
        assert (await groups[1].recv(0), await groups[1].recv(0)) == (large, "small")
        assert families(server) == {socket.AF_UNIX}
        await asyncio.gather(*(group.close() for group in groups))


@pytest.mark.parametrize("store_host", ["process", "thread", "loop"])
async def test_a_hosted_store_has_a_shortcut_too(store_host: str) -> None:
    """Wherever it runs."""
    group = await AsyncStatelessGroup.create("127.0.0.1", 0, 0, 1, store_host=store_host)  # type: ignore[arg-type]
    assert isinstance(group.store.link, NativeLink)
    connection = group.store.link._client._connection
    assert connection is not None
    assert connection._transport is not None
    assert connection._transport.get_extra_info("socket").family == socket.AF_UNIX
    await group.close()


async def test_a_member_with_the_token_moves_and_one_without_is_refused_as_ever() -> None:
    """The login is made anew on the shortcut."""
    async with StoreServer(token=TOKEN) as server:
        group = await member(server.address, token=TOKEN)
        assert families(server) == {socket.AF_UNIX}
        await group.barrier()
        for token in ("a token of somebody else", ""):
            with pytest.raises(AuthenticationError, match="token"):
                await member(server.address, group="other", token=token)
        assert server._started().doorkeeper._guesses._wrong["127.0.0.1"] == 1
        await group.close()


# ------------------------------------------------------------------------------------------------- ends and returns


async def test_a_member_whose_connection_is_cut_takes_it_again() -> None:
    """Nothing is lost and nothing is there twice; after that it is on the unix socket as before."""
    async with StoreServer() as server:
        groups = await asyncio.gather(*(member(server.address, rank, 2) for rank in range(2)))
        for turn in range(20):
            calls = [asyncio.ensure_future(group.all_gather((turn, group.rank))) for group in groups]
            await passes(turn)
            for group in groups[: 1 + turn % 2]:
                connection = group.store.link._client._connection  # type: ignore[attr-defined]
                if connection is not None:
                    connection._transport.abort()
            assert await asyncio.gather(*calls) == [[(turn, 0), (turn, 1)]] * 2
        await asyncio.gather(*(group.store.link.status() for group in groups))
        assert families(server) == {socket.AF_UNIX}
        await asyncio.gather(*(group.close() for group in groups))


async def test_a_store_that_is_started_again_has_it_again(tmp_path: Path) -> None:
    """By the same name, as its epoch and its port are the same."""
    server = StoreServer(journal=tmp_path)
    await server.start()
    group = await member(server.address)
    await group.barrier()
    name = name_of(server)
    await server.close()
    async with StoreServer(port=Address.parse(server.address).port, journal=tmp_path) as server:
        await group.barrier()
        assert name_of(server) == name
        assert families(server) == {socket.AF_UNIX}
        await group.close()


async def test_a_member_cancelled_at_any_step_leaves_nothing_open() -> None:
    """Also between its two connections: neither it nor the store has any of them then."""
    async with StoreServer() as server:
        before = sockets()
        count, done = 0, False
        while not done:
            going = asyncio.create_task(NativeLink.connect(server.address, timeout=LONG))
            await passes(count)
            going.cancel()
            try:
                store = await going
            except asyncio.CancelledError:
                pass
            else:
                done = True
                assert families(server) == {socket.AF_UNIX}
                await store.close()
            while server._started()._connections:  # noqa: ASYNC110 - nothing tells when the store has seen its end
                await asyncio.sleep(0)
            del going
            count += 1
            assert count < 10_000
        assert count > 5
        await passes(3)
        assert sockets() == before


async def test_a_store_cancelled_at_any_step_of_its_start_leaves_nothing_open() -> None:
    """Neither of its sockets: their names are free."""
    before = sockets()
    count, done = 0, False
    while not done:
        server = StoreServer()
        going = asyncio.create_task(server.start())
        await passes(count)
        going.cancel()
        try:
            await going
        except asyncio.CancelledError:
            pass
        else:
            done = True
        name = None if server._sessions is None else name_of(server)
        await server.close()
        del going, server
        await passes(3)
        assert sockets() == before
        if name is not None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(name)
        count += 1
    assert count > 1
