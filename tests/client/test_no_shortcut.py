"""Members stay on TCP wherever the shortcut is not to be had, or not to be trusted."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aiopg import GroupTimeoutError, StoreServer
from aiopg._core.handshake import pack_welcome, parse_hello
from aiopg.address import Address
from aiopg.client import _client
from aiopg.shortcut import shortcut_from, shortcut_to
from aiopg.stores.native import NativeLink
from aiopg.testing import FaultProxy
from tests.security.conftest import Certificates

from .conftest import LONG, families, member, name_of, passes

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names for sockets that are no files"),
    pytest.mark.usefixtures("nothing_left"),
]

TOKEN = "correct horse battery staple"


def in_its_place(server: StoreServer, backlog: int = 128) -> socket.socket:
    """Another socket that listens where the store's shortcut was."""
    server._listeners[1].close()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(name_of(server))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


async def stays_on_tcp(server: StoreServer, **options: Any) -> None:
    """A member comes in and works, over TCP."""
    group = await member(server.address, **options)
    await group.barrier()
    assert families(server) == {socket.AF_INET}
    await group.close()


async def test_a_proxy_keeps_what_was_put_through_it() -> None:
    """Whoever put something in the way wants it there: all that the members say passes it."""
    async with StoreServer() as server, FaultProxy(server.address) as proxy:
        groups = await asyncio.gather(*(member(proxy.address, rank, 2) for rank in range(2)))
        assert families(server) == {socket.AF_INET}
        proxy.stall()
        with pytest.raises(GroupTimeoutError):
            await groups[0].barrier(0.1)
        proxy.resume()
        proxy.cut()
        assert await asyncio.gather(*(group.all_gather(group.rank) for group in groups)) == [[0, 1], [0, 1]]
        assert families(server) == {socket.AF_INET}
        await asyncio.gather(*(group.close() for group in groups))


async def test_with_tls_there_is_none(tmp_path: Path) -> None:
    """The store does not listen there, and the member does not call: encryption was asked for."""
    certificates = Certificates(tmp_path)
    async with StoreServer(ssl=certificates.store, token=TOKEN) as server:
        with socket.socket(socket.AF_UNIX) as trap:
            trap.bind(name_of(server))
            trap.listen()
            trap.setblocking(False)
            await stays_on_tcp(server, ssl=certificates.member, token=TOKEN)
            with pytest.raises(BlockingIOError):
                trap.accept()


async def test_two_addresses_are_taken_for_two_hosts() -> None:
    """A member that comes from another address than it calls does not look for the store on its own host."""

    async def road(address: Address, protocol: Callable[[], Any]) -> Any:
        connect = asyncio.get_running_loop().create_connection
        return (await connect(protocol, address.host, address.port, local_addr=("127.0.0.2", 0)))[1]

    async with StoreServer() as server:
        deadline = asyncio.get_running_loop().time() + LONG
        store = await NativeLink.connect_by(Address.parse(server.address), deadline, road=road)
        await store.status()
        assert families(server) == {socket.AF_INET}
        await store.close()


async def test_of_a_transport_that_tells_nothing_there_is_none() -> None:
    """As in a simulated network."""
    assert shortcut_from(asyncio.Transport(), bytes(16)) is None


async def test_a_store_without_one_is_found_over_tcp() -> None:
    """Where nobody listens by that name."""
    async with StoreServer() as server:
        server._listeners[1].close()
        await passes(2)
        await stays_on_tcp(server)


async def test_a_store_that_cannot_have_the_name_serves_without() -> None:
    """Somebody has it already, in a store whose epoch was known before."""
    server = StoreServer()
    epoch = server.begin().epoch
    await server.close()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(shortcut_to(epoch, listening.getsockname()[1]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("aiopg.server._server.secrets.token_bytes", lambda size: epoch)
            server = StoreServer(listen_socket=listening.dup())
            await server.start()
        await stays_on_tcp(server)
        await server.close()


async def test_a_shortcut_on_which_too_many_wait_is_not_waited_for() -> None:
    """A full backlog is an answer."""
    async with StoreServer() as server:
        with in_its_place(server, backlog=0) as full, socket.socket(socket.AF_UNIX) as first:
            first.connect(full.getsockname())
            await stays_on_tcp(server)


async def test_a_shortcut_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time, in which the connection over TCP waits."""
    monkeypatch.setattr(_client, "SHORTCUT_SECONDS", 0.1)
    async with StoreServer() as server:
        with in_its_place(server):
            await stays_on_tcp(server)


@pytest.mark.parametrize("kind", ["another store", "no store", "gone"])
async def test_who_answers_wrong_on_the_shortcut_is_left(kind: str) -> None:
    """Also a store, if its epoch is another one: then it is not the one that was called."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = parse_hello(await reader.readexactly(64))
        if kind == "another store":
            writer.write(pack_welcome(hello, bytes(16), bytes(32))[0])
        elif kind == "no store":
            writer.write(b"220 mail.example.com ESMTP\r\n" + bytes(64))
        try:
            if kind != "gone":
                heard.extend(await reader.read())
        except ConnectionResetError:
            pass  # it left before it had read all that
        writer.close()
        answered.set()

    heard, answered = bytearray(), asyncio.Event()
    async with StoreServer() as server:
        other = await asyncio.start_unix_server(answer, sock=in_its_place(server))
        await stays_on_tcp(server)
        await answered.wait()
        other.close()
        await other.wait_closed()
    assert b"aiopg" not in heard
    assert len(heard) < 100


# ----------------------------------------------------------------------------------------------------- other users

ANOTHER_USER = """
import asyncio, os, socket, sys
import aiopg

def become_another():
    os.setgroups([]), os.setgid(65534), os.setuid(65534)

async def main():
    for is_another in (False, True):  # once before, as another user may not be able to read what is imported on the way
        if is_another:
            become_another()
        group = await aiopg.AsyncStatelessGroup.connect(sys.argv[1], rank=0, world_size=1, store_timeout=20.0)
        family = group.store.link._client._connection._transport.get_extra_info("socket").family
        await group.close()
    print(family.name)

if sys.argv[1].startswith("aiopg://"):
    asyncio.run(main())
else:
    become_another()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(b"\\0" + sys.argv[1].encode())
    sock.listen()
    print("listening", flush=True)
    sys.stdin.read()
    sock.setblocking(False)
    try:
        print(sock.accept()[0].recv(1000))
    except BlockingIOError:
        print("nobody came")
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="ANOTHER USER IS NOT TRIED: needs root")


@contextmanager
def another_user(argument: str) -> Iterator[subprocess.Popen[str]]:
    """Somebody else on this host: a member at this URL, or one who takes this name."""
    command = [sys.executable, "-c", ANOTHER_USER, argument]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@needs_root
@pytest.mark.parametrize("token", ["", TOKEN])
async def test_another_users_member_stays_on_tcp(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """He is put out of a unix socket as ever, and comes in over TCP as ever; with a token he may be on either."""
    monkeypatch.setenv("AIOPG_TOKEN", token)
    async with StoreServer() as server:
        with another_user(server.address) as process:
            said, _ = await asyncio.to_thread(process.communicate)
    assert said == ("AF_UNIX\n" if token else "AF_INET\n")


@needs_root
async def test_another_user_who_takes_the_name_is_told_nothing(tmp_path: Path) -> None:
    """While a store with a journal is down, anybody may take its name: members of the next one do not go there."""
    server = StoreServer(journal=tmp_path, token=TOKEN)
    await server.start()
    name, port = name_of(server), Address.parse(server.address).port
    await server.close()
    with another_user(name[1:].decode()) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "listening\n"
        async with StoreServer(port=port, journal=tmp_path, token=TOKEN) as server:
            assert name_of(server) == name
            await stays_on_tcp(server, token=TOKEN)
        said, _ = await asyncio.to_thread(process.communicate, "")
    assert said == "b''\n"
