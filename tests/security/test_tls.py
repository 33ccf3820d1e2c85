"""TLS: encrypted, both ends known by certificates, and the login bound to the channel."""

from __future__ import annotations

import asyncio
import ssl
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from aiopg import (
    AsyncStatelessGroup,
    AuthenticationError,
    Limits,
    ProtocolError,
    StatelessGroup,
    StoreServer,
    StoreUnreachableError,
    Tls,
    UsageError,
)
from aiopg.cli._authority import Authority
from aiopg.cli._certs import write_certificates
from aiopg.client import take_road
from aiopg.testing import FaultProxy
from aiopg.tls import channel_binding
from tests.security.conftest import Certificates
from tests.security.stranger import Stranger

TOKEN = "correct horse battery staple"
SOON = 2.0


async def pair(url: str, **options: Any) -> list[AsyncStatelessGroup]:
    """A group of two."""
    return await asyncio.gather(
        *(AsyncStatelessGroup.connect(url, rank=r, world_size=2, store_timeout=30.0, **options) for r in range(2))
    )


async def work(groups: list[AsyncStatelessGroup]) -> None:
    """Small and large objects, every way."""
    large = b"x" * 3_000_000
    await asyncio.gather(groups[0].send(large, 1), groups[0].send("small", 1))
    assert (await groups[1].recv(0), await groups[1].recv(0)) == (large, "small")
    assert await asyncio.gather(*(g.all_gather(g.rank) for g in groups)) == [[0, 1], [0, 1]]
    await asyncio.gather(*(group.barrier() for group in groups))


async def refused(url: str, **options: Any) -> str:
    """Why a member was not let in, or would not go in; told at once and not at the deadline."""
    started = time.monotonic()
    with pytest.raises(AuthenticationError) as caught:
        await AsyncStatelessGroup.connect(url, rank=0, world_size=1, store_timeout=30.0, **options)
    assert time.monotonic() - started < SOON
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------ it works


@pytest.mark.parametrize("token", ["", TOKEN], ids=["no token", "token"])
@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])
async def test_a_group_works_over_tls(ours: Certificates, mutual: bool, token: str) -> None:
    """With certificates of the store alone or of both, with a token or without."""
    store, member = (ours.store, ours.member) if mutual else (ours.lenient_store, ours.nameless_member)
    async with StoreServer(ssl=store, token=token) as server:
        groups = await pair(server.address, ssl=member, token=token)
        await work(groups)
        transport = groups[0].store.link._client._connection._transport  # type: ignore[attr-defined]
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        await asyncio.gather(*(group.close() for group in groups))


async def test_contexts_of_the_program_are_used_as_they_are(ours: Certificates) -> None:
    """`ssl=` takes an `ssl.SSLContext` at both ends."""
    async with StoreServer(ssl=ours.store.server_context()) as server:
        groups = await pair(server.address, ssl=ours.member.client_context())
        await work(groups)
        await asyncio.gather(*(group.close() for group in groups))


@pytest.mark.parametrize("store_host", ["process", "thread", "loop"])
async def test_a_hosted_store_has_the_certificate_of_its_founder(ours: Certificates, store_host: str) -> None:
    """Also in a process of its own; the private key is read there, and handed on by its file's name."""
    options: dict[str, Any] = {"ssl": ours.store, "token": TOKEN, "store_host": store_host}
    group = await AsyncStatelessGroup.create("127.0.0.1", 0, 0, 1, **options)
    other = await AsyncStatelessGroup.connect(
        group.store.url,
        rank=0,
        world_size=1,
        group="other",
        ssl=ours.member,
        token=TOKEN,
    )
    assert "ssl" in await refused_plainly(group.store.url)
    await other.close()
    await group.close()


async def refused_plainly(url: str) -> str:
    """What a member hears that speaks no TLS."""
    with pytest.raises(StoreUnreachableError) as caught:
        await AsyncStatelessGroup.connect(url, rank=0, world_size=1, store_timeout=3.0, token=TOKEN)
    return str(caught.value)


def test_the_blocking_group_takes_tls(ours: Certificates) -> None:
    """The same parameter."""
    group = StatelessGroup.create("127.0.0.1", 0, 0, 1, ssl=ours.store)
    other = StatelessGroup.connect(group.store.url, rank=0, world_size=1, group="b", ssl=ours.member)
    other.barrier()
    other.close()
    group.close()


async def test_the_environment_names_the_files(ours: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """AIOPG_TLS_CERT, AIOPG_TLS_KEY and AIOPG_TLS_CA, for a store and for members."""
    for name, value in ours.store.environment().items():
        monkeypatch.setenv(name, value)
    async with StoreServer() as server:
        groups = await pair(server.address)
        await work(groups)
        monkeypatch.delenv("AIOPG_TLS_CERT")
        with pytest.raises(ValueError, match="AIOPG_TLS_CERT and AIOPG_TLS_KEY belong together"):
            await pair(server.address)
        await asyncio.gather(*(group.close() for group in groups))


async def test_broken_connections_are_made_anew_over_tls(ours: Certificates) -> None:
    """Cut at any byte, in fragments: every session goes on, login and all."""
    async with StoreServer(ssl=ours.store, token=TOKEN) as server, FaultProxy(server.address, seed=3) as proxy:
        proxy.fragment(10)
        groups = await pair(proxy.address, ssl=ours.member, token=TOKEN)
        for turn in range(10):
            proxy.cut()
            assert await asyncio.gather(*(g.all_gather((turn, g.rank)) for g in groups)) == [[(turn, 0), (turn, 1)]] * 2
        await asyncio.gather(*(group.close() for group in groups))


async def test_a_unix_socket_has_no_tls(ours: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes never leave the kernel: what the environment says is for TCP."""
    for name, value in ours.store.environment().items():
        monkeypatch.setenv(name, value)
    async with StoreServer(path=str(tmp_path / "store")) as server:
        groups = await pair(server.address)
        await work(groups)
        await asyncio.gather(*(group.close() for group in groups))


# ------------------------------------------------------------------------------------------------ who refuses whom


async def test_a_store_of_another_authority_is_refused_by_the_member(ours: Certificates, theirs: Certificates) -> None:
    """And the error says that it was the member."""
    async with StoreServer(ssl=theirs.lenient_store) as server:
        assert "this member refuses the store's certificate" in await refused(server.address, ssl=ours.nameless_member)


async def test_a_member_of_another_authority_is_refused_by_the_store(ours: Certificates, theirs: Certificates) -> None:
    """And the error says that it was the store."""
    member = Tls(theirs.member.cert, theirs.member.key, ours.ca)
    async with StoreServer(ssl=ours.store) as server:
        for _ in range(10):
            assert "the store refuses this member's certificate" in await refused(server.address, ssl=member)
        assert "the store refuses this member's certificate" in await refused(server.address, ssl=ours.nameless_member)
        groups = await pair(server.address, ssl=ours.member)
        await asyncio.gather(*(group.close() for group in groups))


async def test_a_store_that_closes_during_a_login_refuses_nobody(ours: Certificates) -> None:
    """What ends a connection before it says a word may be leaving: whoever waits for the next store there finds it."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    class Leaving(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()
            ended.set()

    leaving = await loop.create_server(Leaving, "127.0.0.1", 0, ssl=ours.lenient_store.server_context())
    port = leaving.sockets[0].getsockname()[1]
    async with asyncio.TaskGroup() as tasks:
        group = tasks.create_task(AsyncStatelessGroup.connect(
            f"aiopg://127.0.0.1:{port}", rank=0, world_size=1, ssl=ours.member, store_timeout=30.0
        ))  # fmt: skip
        await ended.wait()
        leaving.close()
        async with StoreServer("127.0.0.1", port, ssl=ours.store):
            await (await group).close()


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    """The store must be who the member asked for."""
    authority, path = Authority(), tmp_path
    issued = authority.issue("store", ["elsewhere.example"])
    for name, data in (("c", issued.cert), ("k", issued.key), ("ca", authority.cert)):
        (path / name).write_bytes(data)
    async with StoreServer(ssl=Tls(str(path / "c"), str(path / "k"))) as server:
        assert "not valid for '127.0.0.1'" in await refused(server.address, ssl=Tls(ca=str(path / "ca")))


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    """By its date."""
    authority, path = Authority(), tmp_path
    issued = authority.issue("store", ["127.0.0.1"], days=-1)
    for name, data in (("c", issued.cert), ("k", issued.key), ("ca", authority.cert)):
        (path / name).write_bytes(data)
    async with StoreServer(ssl=Tls(str(path / "c"), str(path / "k"))) as server:
        assert "expired" in await refused(server.address, ssl=Tls(ca=str(path / "ca")))


async def test_a_members_certificate_makes_no_store(ours: Certificates) -> None:
    """Its purpose is another one: a member that was broken into cannot play the store for others."""
    async with StoreServer(ssl=Tls(ours.member.cert, ours.member.key)) as server:
        assert "unsuitable certificate purpose" in await refused(server.address, ssl=ours.nameless_member)


async def test_older_tls_is_refused(ours: Certificates) -> None:
    """TLS 1.3, and nothing older, whatever the member would take."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ours.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with StoreServer(ssl=ours.lenient_store) as server:
        with pytest.raises(StoreUnreachableError, match="TLS"):
            await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, ssl=context, store_timeout=1.0)


async def test_a_member_with_tls_at_a_plain_store_is_told_so(ours: Certificates) -> None:
    """No long wait, and nothing goes in the clear."""
    async with StoreServer() as server:
        with pytest.raises(StoreUnreachableError, match="no TLS connection"):
            await AsyncStatelessGroup.connect(
                server.address, rank=0, world_size=1, ssl=ours.nameless_member, store_timeout=5.0
            )


async def test_stalled_handshakes_end_in_time_and_disturb_nobody(ours: Certificates) -> None:
    """A hundred that connect and say nothing: gone after `handshake_seconds`, and nothing is left of them."""
    async with StoreServer(ssl=ours.lenient_store, limits=Limits(handshake_seconds=0.5)) as server:
        silent = [await Stranger.come(server.address) for _ in range(100)]
        groups = await pair(server.address, ssl=ours.nameless_member)
        await work(groups)
        assert await asyncio.gather(*(stranger.wait_ended() for stranger in silent)) == [b""] * 100
        for stranger in silent:
            stranger.leave()
        await asyncio.gather(*(group.close() for group in groups))


# ---------------------------------------------------------------------------------------------- the channel's binding


class Both(asyncio.Protocol):
    """One end of a connection that is looked at."""

    def __init__(self) -> None:
        self.made: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.made.set_result(transport)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def test_both_ends_of_a_channel_have_the_same_binding_and_no_two_channels_have(ours: Certificates) -> None:
    """The store's end and the member's end agree; another connection between the same two has another one."""
    loop, there = asyncio.get_running_loop(), []

    def accept() -> Both:
        there.append(Both())
        return there[-1]

    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=ours.store.server_context())
    address = server.sockets[0].getsockname()
    context, bindings = ours.member.client_context(), []
    for _ in range(5):
        made = await loop.create_connection(Both, *address, ssl=context, server_hostname="127.0.0.1")
        here = channel_binding(await made[1].made)
        assert here == channel_binding(await there[-1].made)
        assert len(here) >= 32
        bindings.append(here)
        made[0].close()
        await asyncio.gather(made[1].lost.wait(), there[-1].lost.wait())
    assert len(set(bindings)) == 5
    server.close()
    await server.wait_closed()


async def test_who_stands_in_the_middle_with_a_valid_certificate_gains_nothing(ours: Certificates) -> None:
    """He ends the member's TLS, begins his own to the store, and passes every byte on: the login fails."""
    async with StoreServer(ssl=ours.lenient_store, token=TOKEN) as server:
        port = int(server.address.rpartition(":")[2])
        passed = bytearray()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            context = ours.nameless_member.client_context()
            there = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")

            async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                try:
                    while data := await source.read(65536):
                        passed.extend(data)
                        sink.write(data)
                except (ConnectionError, ssl.SSLError):
                    pass  # an end as any other
                finally:
                    sink.close()

            relays.add(asyncio.current_task())
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

        relays: set[Any] = set()
        context = ours.lenient_store.server_context()
        middle = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        url = f"aiopg://127.0.0.1:{middle.sockets[0].getsockname()[1]}"
        assert "token" in await refused(url, ssl=ours.nameless_member, token=TOKEN)
        assert len(passed) >= 64 + 64 + 32  # everything was passed on, the proof as well
        assert not server._exchange.lines
        middle.close()
        await asyncio.wait(relays)
        await middle.wait_closed()


async def test_a_login_over_a_channel_without_binding_is_refused(ours: Certificates) -> None:
    """TLS 1.2 has one that can be made to be the same on two connections."""
    old = ours.lenient_store.server_context()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.get_running_loop().create_server(Both, "127.0.0.1", 0, ssl=old)
    context = ours.nameless_member.client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    address = server.sockets[0].getsockname()
    made = await asyncio.get_running_loop().create_connection(Both, *address, ssl=context, server_hostname="127.0.0.1")
    with pytest.raises(ProtocolError, match=r"TLSv1\.2"):
        channel_binding(await made[1].made)
    made[0].abort()
    await made[1].lost.wait()
    server.close()
    await server.wait_closed()


async def test_a_member_that_would_log_in_over_older_tls_is_told_so(ours: Certificates) -> None:
    """Where a program's own contexts allow it: at once, at both ends, and without a proof."""
    old, context = ours.lenient_store.server_context(), ours.nameless_member.client_context()
    old.minimum_version = old.maximum_version = context.minimum_version = ssl.TLSVersion.TLSv1_2
    async with StoreServer(ssl=old, token=TOKEN) as server:
        with pytest.raises(StoreUnreachableError, match="a login by token needs a fresh TLS"):
            await AsyncStatelessGroup.connect(
                server.address, rank=0, world_size=1, ssl=context, token=TOKEN, store_timeout=5.0
            )


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("field", ["cert", "key", "ca"])
def test_a_file_that_cannot_be_read_or_is_none_is_named(ours: Certificates, tmp_path: Path, field: str) -> None:
    """By the store before it serves, and by a member before it connects."""
    files: dict[str, Any] = {"cert": ours.store.cert, "key": ours.store.key, "ca": ours.ca}
    with pytest.raises(UsageError, match="nowhere"):
        StoreServer(ssl=Tls(**files | {field: str(tmp_path / "nowhere")}))
    (tmp_path / "nothing").write_text("nothing")
    with pytest.raises(UsageError, match="nothing"):
        Tls(**files | {field: str(tmp_path / "nothing")}).client_context()


def test_a_key_of_another_certificate_is_said(ours: Certificates) -> None:
    """Both files are named."""
    with pytest.raises(UsageError, match=r"store\.pem.*member\.key"):
        Tls(ours.store.cert, ours.member.key).server_context()


def test_a_store_without_certificate_is_none(ours: Certificates) -> None:
    """And half a pair is none either."""
    with pytest.raises(UsageError, match="needs a certificate"):
        StoreServer(ssl=Tls(ca=ours.ca))
    with pytest.raises(ValueError, match="both cert and key"):
        Tls(cert=ours.store.cert)


async def test_rank_0_cannot_hand_a_context_on(ours: Certificates) -> None:
    """It is a store's or a member's, and rank 0 is both."""
    with pytest.raises(ValueError, match=r"aiopg\.Tls"):
        await AsyncStatelessGroup.create("127.0.0.1", 0, 0, 1, ssl=ours.member.client_context())


def test_certificates_are_made_once_and_keys_are_private(tmp_path: Path) -> None:
    """What is there is not overwritten."""
    write_certificates(tmp_path / "certs", ["store.example"])
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "certs").iterdir()}
    assert files == {"ca.pem": 0o644, "store.pem": 0o644, "store.key": 0o600, "member.pem": 0o644, "member.key": 0o600}
    before = (tmp_path / "certs" / "store.pem").read_bytes()
    with pytest.raises(FileExistsError, match="nothing was changed"):
        write_certificates(tmp_path / "certs", [])
    assert (tmp_path / "certs" / "store.pem").read_bytes() == before


def test_the_road_takes_a_context() -> None:
    """What a client connects by, unless told otherwise, is plain."""
    assert take_road.__defaults__ == (None,)
