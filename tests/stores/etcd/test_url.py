"""URLs of stores in etcd, and what is said of wrong ones and of what is missing."""

from __future__ import annotations

import ssl
import subprocess
import sys

import pytest

from aiopg import AsyncStore, StoreUnreachableError, Tls
from aiopg.stores import open_link
from aiopg.stores.etcd import EtcdLink
from aiopg.stores.etcd._layout import Layout
from aiopg.stores.etcd._url import EtcdUrl

from .servers import SLOW, EtcdServer


def test_the_parts_of_a_url() -> None:
    """Several endpoints, a login, a prefix; the password is in no text for people."""
    plain = EtcdUrl.parse("etcd://127.0.0.1:2379")
    assert plain == EtcdUrl(False, ("127.0.0.1:2379",), None, None, "")
    whole = EtcdUrl.parse("etcds://me%40home:se%3Acret@a:1,b:2,[::1]:3/some/where/")
    assert whole == EtcdUrl(True, ("a:1", "b:2", "[::1]:3"), "me@home", "se:cret", "/some/where")
    assert str(whole) == "etcds://me@home@a:1,b:2,[::1]:3/some/where"


@pytest.mark.parametrize(
    "url",
    ["etcd://", "etcd://host", "etcd://host:0", "etcd://a:1,,b:2", "etcd://me@a:1", "etcd://a:1/x?y=1", "etcd:///x"],
)
async def test_a_wrong_url_is_said_at_once(url: str) -> None:
    """With the form that it should have."""
    with pytest.raises(ValueError, match=r"etcd://\[user:password@\]host:port"):
        await open_link(url)


async def test_arguments_that_mean_nothing_to_etcd_are_said_at_once() -> None:
    """A token; TLS where the URL asks for none; a context of ssl, which gRPC cannot use."""
    with pytest.raises(ValueError, match="no token"):
        await open_link("etcd://127.0.0.1:1", token="secret")
    with pytest.raises(ValueError, match="etcds://"):
        await open_link("etcd://127.0.0.1:1", ssl=Tls())
    with pytest.raises(ValueError, match=r"aiopg\.Tls"):
        await open_link("etcds://127.0.0.1:1", ssl=ssl.create_default_context())


async def test_nobody_there() -> None:
    """At the timeout; what it says holds no password."""
    with pytest.raises(StoreUnreachableError) as error:
        await open_link("etcd://me:secret@127.0.0.1:1", timeout=0.3)
    assert "127.0.0.1:1" in str(error.value)
    assert "secret" not in str(error.value)


async def test_what_a_link_says_of_itself(etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its capability record; etcd rounds a lease up to whole seconds. A token in the environment is another store's."""
    monkeypatch.setenv("AIOPG_TOKEN", "a token that is long enough for another store")
    link = await open_link(etcd_server.url, grace=2.5)
    assert isinstance(link, EtcdLink)
    assert link.url == etcd_server.url
    assert link.capabilities.fields() == {
        "engine": "etcd",
        "exactly_once": True,
        "survives": ["connection", "restart", "host", "minority"],
        "keys": True,
        "payload_bytes": 64 * 1024 * 1024,
        "death_seconds": 5.0,
    }
    assert etcd_server.endpoint in repr(link)
    await link.close()
    await link.close()


async def test_stores_with_different_prefixes_do_not_meet(etcd_server: EtcdServer) -> None:
    """They are stores of their own."""
    async with (
        await AsyncStore.connect(f"{etcd_server.url}/apart/a") as one,
        await AsyncStore.connect(f"{etcd_server.url}/apart/b") as other,
    ):
        await one.set("key", b"value")
        assert not await other.check("key")


def test_names_of_rooms_are_apart() -> None:
    """Whatever characters a group's name has, and however long it is."""
    names = ["a", "a/log", "a%2Flog", "", "x" * 5000, "x" * 5001, "é", "\udcff", None, "keys"]
    homes = [Layout("").room(name).all for name in names]
    assert len({home.key for home in homes}) == len(names)
    for home in homes:
        assert not any(home.key < other.key < home.end for other in homes)
        assert len(home.key) < 1024


def test_aiopg_imports_no_grpc() -> None:
    """Only who opens such a store needs it; who has it not is told how to get it."""
    program = """
import sys, asyncio
import aiopg, aiopg.stores
assert "grpc" not in sys.modules
sys.modules["grpc"] = None
try:
    asyncio.run(aiopg.stores.open_link("etcd://127.0.0.1:1"))
except ImportError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50 * SLOW, check=True)
    assert "pip install 'aiopg-group[etcd]'" in ran.stdout
