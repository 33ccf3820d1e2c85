"""The link to a Redis: its URLs, its login, what it asks of a server, what it tells of a store, how it ends."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from aiopg import (
    AsyncStatelessGroup,
    AsyncStore,
    AuthenticationError,
    GroupClosedError,
    PeerLostError,
    StoreFullError,
    StoreUnreachableError,
    Tls,
    UsageError,
)
from aiopg.cli._certs import write_certificates
from aiopg.stores import open_link
from aiopg.stores.redis._address import RedisAddress, room_prefix
from aiopg.stores.redis._dial import Dialer, ask
from tests.system.ranks import free_port

from .conftest import SLOW, Opener
from .load import Load, form
from .servers import NOTHING_KEPT, Server, binaries

PAGE = Path(__file__).parents[3] / "docs" / "redis.md"
FROM_7 = ("+fcall", "+function|load")
"""Of what the page lists, what a server does not know before Redis 7."""

ONE_LOOP = pytest.mark.asyncio(loop_factories=["asyncio"])

# ------------------------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h:6379"),
        ("redis://user:p%40ss@h:1/3", "redis://h:1/3"),
        ("rediss://:secret@[::1]:7/", "rediss://[::1]:7"),
        ("redis+unix:///a/b?db=2", "redis+unix:///a/b?db=2"),
        ("redis+sentinel://a,b:3/service/2", "redis+sentinel://a:26379,b:3/service/2"),
        ("redis+cluster://a:1,[::2]:3", "redis+cluster://a:1,[::2]:3"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    """Each form; what is shown of it, in errors and logs, has no user and no password."""
    address = RedisAddress.parse(url)
    assert str(address) == shown
    assert "p@ss" not in repr(address)
    assert str(RedisAddress.parse(shown)) == shown


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://", "no host"),
        ("redis://a,b", "takes one host"),
        ("redis://h:0", "the port in 'redis://h:0'"),
        ("redis://u:secret@h:x", "the port in 'redis://...@h:x'"),
        ("redis://h/x", "the database in"),
        ("redis://h?db=1", "no query"),
        ("redis+unix://a/b", "redis+unix:///absolute/path"),
        ("redis+sentinel://a", "no service in"),
        ("redis+cluster://a/1", "too much behind the hosts"),
        ("redis://@h", "no user and password before the @"),
    ],
)
async def test_wrong_urls_are_said_at_once(url: str, says: str) -> None:
    """With the part that is wrong, and never with a password."""
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        await open_link(url)
    assert "secret" not in str(caught.value)


async def test_a_token_and_ssl_are_refused_where_they_mean_nothing(newest: Server, monkeypatch: Any) -> None:
    """A Redis has users and passwords, in its URL. AIOPG_TOKEN is for our own server."""
    with pytest.raises(ValueError, match=r"its user and password stand in the URL: redis://user:password@host"):
        await open_link(newest.url, token="0123456789abcdef")
    with pytest.raises(ValueError, match=r"the URL is rediss://"):
        await open_link(newest.url, ssl=__import__("ssl").create_default_context())
    monkeypatch.setenv("AIOPG_TOKEN", "0123456789abcdef")
    await (await open_link(newest.url)).close()


def test_names_of_groups_are_quoted() -> None:
    """One hash tag for each group, whatever its name; no name is that of the store's own keys."""
    assert room_prefix(None) == b"aiopg:{keys}"
    assert room_prefix("keys") == b"aiopg:{g:keys}"
    assert room_prefix("a}b{~/ä") == b"aiopg:{g:a%7Db%7B%7E%2F%C3%A4}"


# ----------------------------------------------------------------------------------------------- server and login


async def test_a_unix_socket(newest: Server, opened: Opener) -> None:
    """redis+unix:///path reaches the same store."""
    link = await opened(newest.socket_url)
    assert link.url == newest.socket_url
    assert link.capabilities.fields() == {
        "engine": "redis",
        "exactly_once": True,
        "survives": ["connection"],
        "keys": True,
        "payload_bytes": 64 * 1024 * 1024,
        "death_seconds": 5 * 4 / 3,
    }


async def test_a_server_that_is_not_there() -> None:
    """StoreUnreachableError at the timeout; one that is still coming up is waited for."""
    with pytest.raises(StoreUnreachableError, match=r"127\.0\.0\.1"):
        await open_link("redis://127.0.0.1:9", timeout=0.2)


async def test_passwords(binary: str, tmp_path: Path) -> None:
    """A wrong one is AuthenticationError at once; a user needs the commands that docs/redis.md lists, and no more."""
    with Server(binary, tmp_path, *NOTHING_KEPT) as server:
        _, rules, _ = re.split(r"(?s)```text\n(.*?)```", PAGE.read_text())
        unknown = FROM_7 if binary == binaries()["6.2"] else ()
        server.ask("ACL", "SETUSER", "member", "on", ">secret", *[one for one in rules.split() if one not in unknown])
        at = server.url.removeprefix("redis://")
        with pytest.raises(AuthenticationError, match=r"WRONGPASS|invalid username-password"):
            await open_link(f"redis://member:wrong@{at}", timeout=20)
        load = Load(await form([f"redis://member:secret@{at}"] * 2, "with a password"))
        await load.step()
        link = await open_link(f"redis://member:secret@{at}")
        assert "secret" not in link.url + repr(link)
        described: Any = await link.status()
        assert [group["name"] for group in described["groups"]] == ["with a password"]
        await link.close()
        await load.close()


async def test_tls(newest: Server, tmp_path: Path, name: str) -> None:
    """rediss://, with ssl= or what the environment names; a certificate of somebody else is refused at once."""
    write_certificates(tmp_path / "ours", [])
    write_certificates(tmp_path / "theirs", [])
    port = str(free_port())
    files = [f"--tls-{what}-file" for what in ("cert", "key", "ca-cert")]
    ours = [str(tmp_path / "ours" / name) for name in ("store.pem", "store.key", "ca.pem")]
    options = [part for pair in zip(files, ours, strict=True) for part in pair]
    with Server(newest.binary, tmp_path / "redis", *NOTHING_KEPT, "--tls-port", port, *options):
        member = Tls(str(tmp_path / "ours/member.pem"), str(tmp_path / "ours/member.key"), ours[2])
        link = await open_link(f"rediss://127.0.0.1:{port}", ssl=member, timeout=20)
        store = AsyncStore(link).with_prefix(name)
        await store.set("k", b"v")
        assert await store.get("k") == b"v"
        await link.close()
        with pytest.raises(StoreUnreachableError, match="certificate"):
            await open_link(f"rediss://127.0.0.1:{port}", ssl=Tls(ca=str(tmp_path / "theirs/ca.pem")), timeout=20)


async def test_a_server_that_throws_data_away_is_refused(binary: str, tmp_path: Path) -> None:
    """An eviction would lose what a group still needs, in silence."""
    options = ("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")
    with (
        Server(binary, tmp_path, *NOTHING_KEPT, *options) as server,
        pytest.raises(UsageError, match="set maxmemory-policy to noeviction"),
    ):
        await open_link(server.url)


async def test_a_full_server_refuses_what_would_fill_it_more(binary: str, tmp_path: Path, name: str) -> None:
    """StoreFullError for that call; the rest goes on, and when there is room again, all does."""
    with Server(binary, tmp_path, *NOTHING_KEPT) as server:
        first, second = await form([server.url] * 2, name)
        await first.send("before", 1)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFullError, match="maxmemory"):
            await first.send("x" * 1000, 1)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        await first.send("behind", 1)
        assert [await second.recv(0), await second.recv(0)] == ["before", "behind"]
        await Load([first, second]).close()


# --------------------------------------------------------------------------------------- answers, and cancelling


@ONE_LOOP
async def test_what_is_cancelled_leaves_no_answer_for_the_next(newest: Server) -> None:
    """What redis-py does with a connection whose reader is cancelled: it is closed, and cannot be read by mistake.

    The store never cancels a read while it goes on with the connection; this is what it falls back on.
    """
    dialer = Dialer(RedisAddress.parse(newest.url), None)
    for passes in range(12):
        wire = await dialer.open(("127.0.0.1", newest.port))
        asking = asyncio.create_task(ask(wire, b"ECHO", b"of the cancelled one"))
        for _ in range(passes):
            await asyncio.sleep(0)
        asking.cancel()
        outcome: object = (await asyncio.gather(asking, return_exceptions=True))[0]
        if wire.is_connected:  # it had not begun, or was done
            assert passes == 0 or outcome == b"of the cancelled one"
            assert await ask(wire, b"ECHO", b"mine") == b"mine"
        await wire.disconnect()


async def test_cancelled_calls_and_their_answers_do_not_meet(newest: Server, opened: Opener, name: str) -> None:
    """Promise 4, over one link: each call that is not cancelled gets its own answer."""
    store = AsyncStore(await opened(newest.url)).with_prefix(name)
    for number in range(50):
        await store.set(str(number), str(number))
    for turn in range(30):
        calls = [asyncio.create_task(store.get(str(number))) for number in range(50)]
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        for call in calls[turn % 3 :: 3]:
            call.cancel()
        for number, answer in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            assert answer == str(number).encode() or isinstance(answer, asyncio.CancelledError)
    await store.delete_key("0")


# ------------------------------------------------------------------------------------------------ status and ends


async def test_status_tells_of_all_rooms(newest: Server, opened: Opener, name: str) -> None:
    """Also of those of other links; a room that is gone is forgotten by the registry."""
    gone = "aiopg:{g:gone}"
    newest.ask("ZADD", "aiopg:{rooms}", str(int(time.time())), gone)
    groups = await form([newest.url] * 2, name)
    link = await opened(newest.url)
    await link.status()
    described: Any = await link.status()  # behind what the first one made of the list
    (mine,) = [group for group in described["groups"] if group["name"] == name]
    assert described["members"] >= 2
    assert mine["world_size"] == 2
    rooms: Any = newest.ask("ZRANGE", "aiopg:{rooms}", "0", "-1")
    assert room_prefix(name).decode() in rooms
    assert gone not in rooms
    await Load(groups).close()
    keys = newest.ask("KEYS", f"{room_prefix(name).decode()}*")
    for key in keys:  # type: ignore[attr-defined]
        assert 0 < newest.ask("TTL", key) <= 86400 * 2, key  # type: ignore[operator]


async def test_the_list_of_rooms_forgets_those_that_nobody_has_opened_for_long(
    newest: Server, opened: Opener, name: str
) -> None:
    """Also where rooms are opened all the time and nobody ever asks for the status; one that is in use stays."""
    newest.ask("ZADD", "aiopg:{rooms}", "1", "aiopg:{g:long-ago}")
    link = await opened(newest.url)
    await AsyncStore(link).set(name, b"x")
    prefix = room_prefix(None).decode()
    newest.ask("ZADD", "aiopg:{rooms}", "1", prefix)
    link._register_again()  # type: ignore[attr-defined]
    assert await AsyncStore(link).get(name) == b"x"  # goes behind it
    assert "aiopg:{g:long-ago}" not in newest.ask("ZRANGE", "aiopg:{rooms}", "0", "-1")  # type: ignore[operator]
    assert prefix in newest.ask("ZRANGE", "aiopg:{rooms}", "0", "-1")  # type: ignore[operator]
    await AsyncStore(link).delete_key(name)


async def test_nothing_is_left_for_ever(newest: Server, name: str) -> None:
    """Every key has an end, also while calls wait: the programs may be killed at this moment."""
    first, second = await form([newest.url] * 2, name)
    load = Load([first, second])
    await load.step()
    waits = [asyncio.create_task(first.barrier()), asyncio.create_task(first.recv(1))]
    await asyncio.sleep(0)
    await first.store.link.status()  # they have come to the server
    for key in newest.ask("KEYS", "aiopg:*"):  # type: ignore[attr-defined]
        assert 0 < newest.ask("TTL", key) <= 86400 * 2, key  # type: ignore[operator]
    await asyncio.gather(*waits, second.barrier(), second.send("x", 0))
    await load.close()


async def test_what_was_popped_is_not_taken_back_at_the_end(newest: Server, opened: Opener, name: str) -> None:
    """A link that is closed as soon as it has the item acknowledges it first."""
    consumer, other = await opened(newest.url), await opened(newest.url)
    store = AsyncStore(other).with_prefix(name)
    await store.queue_push("jobs", b"once")
    assert await AsyncStore(consumer).with_prefix(name).queue_pop("jobs") == b"once"
    await consumer.close()
    assert await store.queue_len("jobs") == 0


@ONE_LOOP
async def test_a_link_that_is_closed_in_the_midst_of_calls_says_goodbye(
    newest: Server, opened: Opener, name: str
) -> None:
    """What comes for them meanwhile does not keep it: its session is over when `close` returns, not with its lease."""
    link = await opened(newest.url, grace=60.0)
    store = AsyncStore(link).with_prefix(name)
    await store.set("a", b"1")
    (sid,) = [room.sid.decode() for room in link._open]  # type: ignore[attr-defined]
    calls = [asyncio.create_task(store.add("n", 1)) for _ in range(20)]
    await asyncio.sleep(0)
    await link.close()
    await asyncio.gather(*calls, return_exceptions=True)
    assert newest.ask("EXISTS", f"{room_prefix(None).decode()}:s:{sid}") == 0


@ONE_LOOP
async def test_what_was_popped_for_a_call_that_the_end_of_its_link_has_failed_is_taken_back(
    newest: Server, opened: Opener, name: str
) -> None:
    """The item comes when nobody waits for it any more: it is not acknowledged, and is the next one's."""
    consumer, other = await opened(newest.url, grace=60.0), await opened(newest.url)
    store = AsyncStore(other).with_prefix(name)
    await store.queue_push("jobs", b"once")
    popping = asyncio.create_task(AsyncStore(consumer).with_prefix(name).queue_pop("jobs"))
    await asyncio.sleep(0)
    await consumer.close()
    with pytest.raises(GroupClosedError):
        await popping
    assert await store.queue_pop("jobs", timeout=20 * SLOW) == b"once"


@ONE_LOOP
async def test_a_program_that_ends_without_closing_says_goodbye(newest: Server, name: str) -> None:
    """The other ranks need not wait for its lease: its loop's end cancels the link's task, which has the last word."""

    async def never_closes() -> None:
        await AsyncStatelessGroup.connect(newest.url, rank=1, world_size=2, group=name, reconnect_grace=60)

    ends = asyncio.create_task(asyncio.to_thread(asyncio.run, never_closes()))
    group = await AsyncStatelessGroup.connect(newest.url, rank=0, world_size=2, group=name, reconnect_grace=60)
    await ends
    with pytest.raises(PeerLostError, match="its event loop ended"):
        async with asyncio.timeout(20 * SLOW):
            await group.barrier()
    await group.close()


# --------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("operation", ["barrier", "all_gather"])
async def test_a_round_is_one_request_of_each_rank(server: Server, name: str, operation: str) -> None:
    """Counted at the server, for groups of 2 and of 8: it does not grow with the number of ranks."""
    counted: list[float] = []
    for size in (2, 8):
        groups = await form([server.url] * size, f"{name} of {size}")

        async def round_of(groups: list[AsyncStatelessGroup] = groups) -> None:
            calls = [group.barrier() if operation == "barrier" else group.all_gather("x") for group in groups]
            await asyncio.gather(*calls)

        await round_of()
        begun, rounds = requests(server), 40
        for _ in range(rounds):
            await round_of()
        counted.append((requests(server) - begun) / rounds / size)
        await Load(groups).close()
    assert all(1.0 <= one < 1.4 for one in counted), counted


def requests(server: Server) -> int:
    """Calls of the script or function, and subscriptions, so far."""
    told = str(server.ask("INFO", "commandstats"))
    counts = {
        line.split(":")[0].removeprefix("cmdstat_"): int(line.split("calls=")[1].split(",")[0])
        for line in told.split("\r\n")
        if line.startswith("cmdstat_")
    }
    return sum(counts.get(name, 0) for name in ("evalsha", "fcall", "subscribe"))
