"""An etcd that asks for user and password, and one that speaks TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aiopg.cli._certs import write_certificates
from aiopg.errors import AuthenticationError, StoreUnreachableError
from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._messages import one, under
from aiopg.stores.etcd._wire import message, number, string
from aiopg.testing import GroupMaker
from aiopg.tls import Tls

from .keys import ON_ASYNCIO, ON_UVLOOP, renewed
from .servers import SLOW, EtcdServer

TIMEOUT = 10 * SLOW


@pytest_asyncio.fixture
async def locked(own_etcd: EtcdServer) -> AsyncIterator[EtcdServer]:
    """An etcd with the users "root", password "secret", and "guest", password "guest", who may do nothing."""
    async with await EtcdClient.connect([own_etcd.endpoint], timeout=TIMEOUT) as client:
        for method, request in [
            ("RoleAdd", string(1, b"root")),
            ("UserAdd", string(1, b"root") + string(2, b"secret")),
            ("UserGrantRole", string(1, b"root") + string(2, b"root")),
            ("UserAdd", string(1, b"guest") + string(2, b"guest")),
            ("AuthEnable", b""),
        ]:
            await client._requests.send(f"/etcdserverpb.Auth/{method}", request)
    yield own_etcd


class TestPasswords:
    @ON_UVLOOP
    async def test_the_right_one(self, locked: EtcdServer) -> None:
        """With user and password all works, also when etcd has forgotten what it gave for them."""
        async with await EtcdClient.connect(
            [locked.endpoint], timeout=TIMEOUT, user="root", password="secret"
        ) as client:
            revision = await client.put(b"a", b"1")
            lease = await client.lease(20)
            await client.put(b"session", b"", lease.id)
            with client.watch(one(b"a"), revision) as watch:
                assert (await anext(watch)).revision == revision
                await asyncio.to_thread(locked.kill)
                await asyncio.to_thread(locked.start)
                async with asyncio.timeout(TIMEOUT):
                    revision = await client.put(b"a", b"2")
                    assert (await anext(watch)).revision == revision
            await renewed(lease, TIMEOUT)
            assert (await client.range(one(b"session"))).entries
            assert not lease.lost.done()

    @ON_UVLOOP
    async def test_a_wrong_one_or_none(self, locked: EtcdServer) -> None:
        """AuthenticationError at once, which names no password."""
        for user, password, says in [
            ("root", "wrong", "does not know this user and password"),
            (None, None, "asks for a user and password, and none were given"),
        ]:
            with pytest.raises(AuthenticationError, match=says) as caught:
                async with await EtcdClient.connect(
                    [locked.endpoint], timeout=TIMEOUT, user=user, password=password
                ) as client:
                    await client.put(b"a", b"")
            assert "wrong" not in str(caught.value)

    @ON_ASYNCIO
    async def test_who_may_not(self, locked: EtcdServer) -> None:
        """What the user may not do raises AuthenticationError: writing, and watching."""
        async with await EtcdClient.connect(
            [locked.endpoint], timeout=TIMEOUT, user="guest", password="guest"
        ) as client:
            with pytest.raises(AuthenticationError, match="may not do this"):
                await client.put(b"a", b"")
            with pytest.raises(AuthenticationError), client.watch(one(b"a"), 1) as watch:
                await anext(watch)

    async def test_one_without_the_other(self) -> None:
        """User and password belong together."""
        with pytest.raises(ValueError, match="give both, or neither"):
            await EtcdClient.connect(["a:1"], timeout=1, user="root")

    async def test_a_password_that_nobody_asks_for(self, etcd_server: EtcdServer) -> None:
        """An etcd without users takes everybody."""
        async with await EtcdClient.connect(
            [etcd_server.endpoint], timeout=TIMEOUT, user="root", password="secret"
        ) as client:
            await client.status()
            lease = await client.lease(60)
            await renewed(lease, TIMEOUT)

    @ON_UVLOOP
    async def test_a_group_of_a_user_who_may_do_just_that(self, locked: EtcdServer) -> None:
        """Reading and writing below the prefix is all that a store needs; the user and password stand in the URL."""
        span = under(b"/mine/aiopg/")
        async with await EtcdClient.connect([locked.endpoint], timeout=TIMEOUT, user="root", password="secret") as root:
            permission = number(1, 2) + string(2, span.key) + string(3, span.end)
            for method, request in [
                ("RoleAdd", string(1, b"mine")),
                ("RoleGrantPermission", string(1, b"mine") + message(2, permission)),
                ("UserAdd", string(1, b"me") + string(2, b"p@ss:word")),
                ("UserGrantRole", string(1, b"me") + string(2, b"mine")),
            ]:
                await root._requests.send(f"/etcdserverpb.Auth/{method}", request)
        maker = GroupMaker(f"etcd://me:p%40ss%3Aword@{locked.endpoint}/mine", timeout=TIMEOUT)
        group = await maker(2)
        assert (
            await asyncio.gather(*(member.all_gather(bytes(100_000)) for member in group)) == [[bytes(100_000)] * 2] * 2
        )
        assert (await group[0].store.link.status())["members"] == 2
        await maker.close()
        for url in (f"etcd://me:p%40ss%3Aword@{locked.endpoint}", f"etcd://me:wrong@{locked.endpoint}/mine"):
            with pytest.raises(AuthenticationError, match=r"may not do|does not know") as refused:
                await GroupMaker(url, timeout=TIMEOUT)(1)
            assert "p@ss" not in str(refused.value)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of one authority."""
    directory = tmp_path_factory.mktemp("certs")
    write_certificates(directory, [])
    return directory


class TestTls:
    @pytest_asyncio.fixture
    async def secure(self, certs: Path, tmp_path: Path) -> AsyncIterator[EtcdServer]:
        """An etcd that asks clients for a certificate."""
        server = EtcdServer(
            tmp_path,
            *("--cert-file", str(certs / "store.pem"), "--key-file", str(certs / "store.key")),
            *("--trusted-ca-file", str(certs / "ca.pem"), "--client-cert-auth"),
        )
        await asyncio.to_thread(server.start)
        yield server
        await asyncio.to_thread(server.kill)

    @ON_ASYNCIO
    async def test_who_knows_whom(self, secure: EtcdServer, certs: Path) -> None:
        """With the authority and a certificate of it all works; without one of them nothing does."""
        member = Tls(str(certs / "member.pem"), str(certs / "member.key"), str(certs / "ca.pem"))
        async with await EtcdClient.connect([secure.endpoint], timeout=TIMEOUT, tls=member) as client:
            await client.put(b"a", b"1")
            lease = await client.lease(60)
            await renewed(lease, TIMEOUT)
        nameless = Tls(ca=str(certs / "ca.pem"))
        stranger = Tls(str(certs / "member.pem"), str(certs / "member.key"))  # believes the system's authorities
        for tls in (nameless, stranger, None):
            with pytest.raises(StoreUnreachableError):
                await EtcdClient.connect([secure.endpoint], timeout=0.3, tls=tls)

    @ON_UVLOOP
    async def test_a_group(self, secure: EtcdServer, certs: Path) -> None:
        """`etcds://`, with the files of a `Tls`."""
        member = Tls(str(certs / "member.pem"), str(certs / "member.key"), str(certs / "ca.pem"))
        maker = GroupMaker(f"etcds://{secure.endpoint}", timeout=TIMEOUT)
        group = await maker(2, ssl=member)
        assert await asyncio.gather(*(rank.all_reduce(1) for rank in group)) == [2, 2]
        await maker.close()
