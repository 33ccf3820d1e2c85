"""The token: who does not know it gets nothing, and what is heard of a login is of no use to anybody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from aiopg import (
    AsyncStatelessGroup,
    AuthenticationError,
    GroupTimeoutError,
    StatelessGroup,
    StoreLostError,
    StoreServer,
    Token,
)
from aiopg._core.handshake import (
    HANDSHAKE_BYTES,
    LOGIN_BYTES,
    REFUSED_LOGIN,
    login_proofs,
    pack_hello,
    pack_welcome,
    parse_hello,
)
from aiopg._core.messages import Open
from aiopg.testing import FaultProxy
from aiopg.tokens import VARIABLE, new_token
from tests.security.stranger import Stranger, fake_store

TOKEN = "correct horse battery staple"
OTHER = "another token, just as long"
SOON = 2.0
"""Seconds: a refusal is told at once, and nobody tries again until a deadline."""


async def connect(url: str, **options: object) -> AsyncStatelessGroup:
    """A group of one."""
    return await AsyncStatelessGroup.connect(url, rank=0, world_size=1, store_timeout=30.0, **options)  # type: ignore[arg-type]


async def test_members_that_share_the_token_form_a_group() -> None:
    """Given to the store and to each rank."""
    async with StoreServer(token=TOKEN) as server:
        groups = await asyncio.gather(
            *(AsyncStatelessGroup.connect(server.address, rank=r, world_size=2, token=TOKEN) for r in range(2))
        )
        assert await asyncio.gather(*(group.all_gather(group.rank) for group in groups)) == [[0, 1], [0, 1]]
        await asyncio.gather(*(group.close() for group in groups))


@pytest.mark.parametrize("kind", ["wrong", "missing", "expired"])
async def test_who_does_not_know_the_token_is_told_so_at_once(kind: str) -> None:
    """AuthenticationError, in well under the timeout, and the store never heard of a member."""
    expired = Token(TOKEN, expires=datetime.now(UTC) - timedelta(seconds=1))
    async with StoreServer(token=expired if kind == "expired" else TOKEN) as server:
        started = time.monotonic()
        with pytest.raises(AuthenticationError, match="token") as caught:
            await connect(server.address, token={"wrong": OTHER, "missing": "", "expired": TOKEN}[kind])
        assert time.monotonic() - started < SOON
        assert caught.value.address == server.address
        assert not server._exchange.lines
        assert server.describe()["groups"] == []


@pytest.mark.parametrize("kind", ["wrong", "missing", "expired"])
async def test_a_stranger_hears_nothing_but_a_refusal(kind: str) -> None:
    """Whatever is wrong with a login, the store's bytes are the same: fresh ones, and a refusal without a reason."""
    expired = Token(TOKEN, expires=datetime.now(UTC) - timedelta(seconds=1))
    async with StoreServer(token=expired if kind == "expired" else TOKEN) as server:
        group = None if kind == "expired" else await connect(server.address, token=TOKEN, group="secret name")
        stranger = await Stranger.come(server.address)
        if kind == "missing":
            await stranger.greet()
            stranger.writer.write(bytes(LOGIN_BYTES))
            said = await stranger.wait_ended()
        else:
            said = await stranger.greet(token=(OTHER if kind == "wrong" else TOKEN).encode())
            said += await stranger.wait_ended()
        assert said == REFUSED_LOGIN
        stranger.leave()
        if group is not None:
            await group.close()


async def test_frames_in_the_place_of_a_login_are_no_login() -> None:
    """Nothing that a stranger says is read as a frame before he has logged in."""
    async with StoreServer(token=TOKEN) as server:
        stranger = await Stranger.come(server.address)
        await stranger.greet()
        stranger.writer.writelines(stranger.session.aside(Open(b"", b"", 1, 0, 5.0, 0, 0, 0, "")))
        assert await stranger.wait_ended() == REFUSED_LOGIN
        assert not server._exchange.lines
        stranger.leave()


async def test_a_member_with_a_token_refuses_a_store_that_asks_for_none() -> None:
    """A store that knows no token cannot be told from somebody who took its address."""
    async with StoreServer(token="") as server:
        with pytest.raises(AuthenticationError, match="asks for none"):
            await connect(server.address, token=TOKEN)


async def test_a_store_that_does_not_know_the_token_is_refused() -> None:
    """It asks for a token, takes whatever comes, and cannot prove anything: garbage, the member's own proof, zeros."""
    for verdict in (b"?" * LOGIN_BYTES, None, REFUSED_LOGIN):

        async def answer(stranger: Stranger, verdict: bytes | None = verdict) -> None:
            hello = await stranger.reader.readexactly(HANDSHAKE_BYTES)
            welcome, _ = pack_welcome(parse_hello(hello), b"e" * 16, b"n" * 32, True)
            stranger.writer.write(welcome)
            proof = await stranger.reader.readexactly(LOGIN_BYTES)
            stranger.writer.write(proof if verdict is None else verdict)

        async with fake_store(answer) as url:
            with pytest.raises(AuthenticationError, match="refuses"):
                await connect(url, token=TOKEN)


async def test_what_was_recorded_of_a_login_is_of_no_use_to_the_one_who_says_it_again() -> None:
    """To the store as a member, and to a member as the store: each end's fresh bytes are in every proof."""
    async with StoreServer(token=TOKEN) as server:
        async with Tap(server.address) as tap:
            group = await connect(tap.url, token=TOKEN)
            await group.close()
        (recorded,) = tap.recorded
        stranger = await Stranger.come(server.address)
        stranger.writer.write(recorded[0][:HANDSHAKE_BYTES])
        await stranger.reader.readexactly(HANDSHAKE_BYTES)
        stranger.writer.write(recorded[0][HANDSHAKE_BYTES:])
        assert await stranger.wait_ended() == REFUSED_LOGIN
        stranger.leave()

        async def answer(stranger: Stranger) -> None:
            await stranger.reader.readexactly(HANDSHAKE_BYTES)
            stranger.writer.write(recorded[1])

        async with fake_store(answer) as url:
            with pytest.raises(AuthenticationError, match="does not prove"):
                await connect(url, token=TOKEN)


class Tap:
    """A relay between members and a store that keeps what each said; `recorded`: (members' bytes, store's bytes)."""

    def __init__(self, url: str) -> None:
        self._target = url
        self.recorded: list[tuple[bytearray, bytearray]] = []
        self._relays: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> Tap:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = f"aiopg://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.wait(self._relays)
        await self._server.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        there = await Stranger.come(self._target)
        kept = (bytearray(), bytearray())
        self.recorded.append(kept)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_copy(reader, there.writer, kept[0]))
            tasks.create_task(_copy(there.reader, writer, kept[1]))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            kept += data
            writer.write(data)
    except ConnectionError:
        pass  # that is an end as well
    finally:
        writer.close()


async def test_a_thousand_handshakes_tell_nothing_of_the_token() -> None:
    """Neither the token nor anything made of it without both ends' fresh bytes; and no proof ever comes twice."""
    token = new_token()
    async with StoreServer(token=token) as server, Tap(server.address) as tap:
        for _ in range(20):
            groups = await asyncio.gather(
                *(connect(tap.url, token=token, group=f"{tap.url}-{number}") for number in range(50))
            )
            await asyncio.gather(*(group.close() for group in groups))
    assert len(tap.recorded) == 1000
    key = token.encode()
    proofs = set()
    for member, store in tap.recorded:
        heard = bytes(member + store)
        hello, welcome = bytes(member[:HANDSHAKE_BYTES]), bytes(store[:HANDSHAKE_BYTES])
        nonces = (hello[16:48], welcome[32:64])
        for secret in _made_of(key, nonces):
            assert secret not in heard
        proofs |= {bytes(member[64:96]), bytes(store[64:96])}
        expected = login_proofs(key, hello, welcome, b"")
        assert (bytes(member[64:96]), bytes(store[64:96])) == (expected.member, expected.store)
    assert len(proofs) == 2000


def _made_of(key: bytes, nonces: tuple[bytes, bytes]) -> list[bytes]:
    """The token in other clothes, and what one nonce alone would make of it."""
    digests = [hashlib.new(name, key).digest() for name in ("md5", "sha1", "sha256", "sha512")]
    for nonce in (*nonces, b""):
        digests += [hmac.digest(nonce, key, "sha256"), hmac.digest(key, nonce, "sha256")]
        digests += [hashlib.sha256(nonce + key).digest(), hashlib.sha256(key + nonce).digest()]
    whole = [key, bytes.fromhex(key.decode()), key[::-1], base64.b64encode(key), *digests]
    return [piece[:16] for piece in whole] + [digest.hex().encode() for digest in digests]


def test_a_proof_covers_all_that_was_said() -> None:
    """Another bit in either end's first bytes, another channel, another direction or another token: another proof."""
    hello = pack_hello(os.urandom(32))
    welcome, _ = pack_welcome(parse_hello(hello), b"e" * 16, os.urandom(32), True)
    proofs = [*login_proofs(b"token", hello, welcome, b""), *login_proofs(b"tokem", hello, welcome, b"")]
    proofs += login_proofs(b"token", hello, welcome, b"channel")
    for at in range(HANDSHAKE_BYTES):
        for which in (0, 1):
            said = [bytearray(hello), bytearray(welcome)]
            said[which][at] ^= 1
            proofs += login_proofs(b"token", bytes(said[0]), bytes(said[1]), b"")
    assert len(set(proofs)) == len(proofs)


# ------------------------------------------------------------------------------------------- where tokens are kept


async def test_the_environment_has_the_token_of_store_and_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """AIOPG_TOKEN, where none is given; an empty one says that none is meant."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    async with StoreServer() as server:
        group = await connect(server.address)
        with pytest.raises(AuthenticationError, match="asks for a token"):
            await connect(server.address, token="")
        await group.close()


@pytest.mark.parametrize("store_host", ["process", "thread", "loop"])
async def test_a_group_that_hosts_its_store_hands_it_the_token(store_host: str) -> None:
    """Wherever the store runs; a rank without the token is refused by it."""
    options = {"token": TOKEN, "store_host": store_host, "store_timeout": 30.0}
    created = asyncio.create_task(AsyncStatelessGroup.create("127.0.0.1", 0, 0, 1, **options))  # type: ignore[arg-type]
    group = await created
    with pytest.raises(AuthenticationError):
        await connect(group.store.url, token=OTHER)
    await group.close()


def test_the_blocking_group_takes_a_token() -> None:
    """The same parameter, the same error."""
    with StatelessGroup.create("127.0.0.1", 0, 0, 1, token=TOKEN) as group:
        url = group.store.url
        with StatelessGroup.connect(url, rank=0, world_size=1, group="other", token=TOKEN) as other:
            other.barrier()
        with pytest.raises(AuthenticationError):
            StatelessGroup.connect(url, rank=0, world_size=1, group="other", token=OTHER)


@pytest.mark.parametrize("token", ["short", "fifteen bytes.."])
async def test_a_token_that_can_be_guessed_is_no_token(token: str) -> None:
    """Under 16 bytes: a ValueError that does not show it, at both ends."""
    with pytest.raises(ValueError, match="16 bytes") as caught:
        StoreServer(token=token)
    assert token not in str(caught.value)
    with pytest.raises(ValueError, match="16 bytes"):
        await connect("aiopg://127.0.0.1:1", token=token)
    with pytest.raises(ValueError, match="16 bytes"):
        await AsyncStatelessGroup.create("127.0.0.1", 1, 1, 2, token=token)


def test_no_text_shows_a_token() -> None:
    """Neither the repr of a token nor that of a store."""
    assert TOKEN not in repr(Token(TOKEN)) + repr(StoreServer(token=TOKEN))


# ------------------------------------------------------------------------------------------------ several tokens


async def test_a_token_is_replaced_while_members_work() -> None:
    """Both are taken for a while, then only the new one; who is connected stays, and who comes again needs it."""
    async with StoreServer(token=[TOKEN, OTHER]) as server, FaultProxy(server.address, seed=1) as proxy:
        old = await connect(proxy.address, token=TOKEN, group="old", reconnect_grace=1.0)
        new = await connect(proxy.address, token=OTHER, group="new", reconnect_grace=1.0)
        server.accept_tokens(OTHER)
        await asyncio.gather(old.barrier(), new.barrier())
        proxy.cut()
        await new.barrier()
        with pytest.raises(StoreLostError, match="refuses this member's token"):
            await old.barrier(timeout=20.0)
        with pytest.raises(ValueError, match="goes on asking"):
            server.accept_tokens("")
        await asyncio.gather(old.close(), new.close())


async def test_a_token_for_some_groups_joins_and_sees_only_those() -> None:
    """Tenants on one store know nothing of each other: neither names nor numbers."""
    tokens = [Token(TOKEN, ("tenant-a/*", "shared")), Token(OTHER, ("tenant-b/*",))]
    async with StoreServer(token=tokens) as server:
        mine = await connect(server.address, token=TOKEN, group="tenant-a/one")
        theirs = await connect(server.address, token=OTHER, group="tenant-b/one")
        with pytest.raises(AuthenticationError, match="not for group 'tenant-a/one'"):
            await connect(server.address, token=OTHER, group="tenant-a/one")
        with pytest.raises(AuthenticationError, match="not for group 'tenant-a'"):
            await connect(server.address, token=TOKEN, group="tenant-a")
        await mine.send(b"x" * 1000, 0) if mine.world_size > 1 else await mine.barrier()
        status = await theirs.store.link.status()
        assert [group["name"] for group in status["groups"]] == ["tenant-b/one"]  # type: ignore[attr-defined]
        assert (status["members"], status["bytes"]) == (1, 0)
        assert "tenant-a" not in repr(status)
        await asyncio.gather(mine.close(), theirs.close())


async def test_the_scope_of_a_token_holds_after_the_store_was_killed(tmp_path: object) -> None:
    """A session of a journal keeps the groups that its token allows."""
    tokens = [Token(TOKEN, ("a",))]
    path = f"{tmp_path}/journal"
    async with StoreServer(token=tokens, journal=path, fsync="off") as server, FaultProxy(server.address) as proxy:
        store = (await connect(proxy.address, token=TOKEN, group="a")).store.link
        port = int(server.address.rpartition(":")[2])
        await server.close()
        async with StoreServer(port=port, token=tokens, journal=path, fsync="off"):
            with pytest.raises(AuthenticationError, match="not for group 'b'"):
                await AsyncStatelessGroup(0, 1, store, group="b").barrier()
            await store.close()


def test_patterns_of_groups() -> None:
    """A star ends a pattern or is none; an expiry says in which time zone."""
    with pytest.raises(ValueError, match="behind"):
        Token(TOKEN, ("a*b",))
    with pytest.raises(ValueError, match="time zone"):
        Token(TOKEN, expires=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="same secret"):
        StoreServer(token=[TOKEN, Token(TOKEN, ("a",))])


async def test_a_late_rank_does_not_hide_a_refusal() -> None:
    """While a member waits for others it is not told of a stranger's failed login."""
    async with StoreServer(token=TOKEN) as server:
        waits = asyncio.create_task(
            AsyncStatelessGroup.connect(server.address, rank=0, world_size=2, token=TOKEN, store_timeout=1.0)
        )
        with pytest.raises(AuthenticationError):
            await AsyncStatelessGroup.connect(server.address, rank=1, world_size=2, token=OTHER)
        with pytest.raises(GroupTimeoutError) as caught:
            await waits
        assert caught.value.missing == (1,)
