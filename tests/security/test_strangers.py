"""Strangers cost little and disturb nobody: whoever connects and does not log in, or logs in wrongly."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLContext

import pytest

from aiopg import AsyncStatelessGroup, AuthenticationError, Limits, StoreServer, StoreUnreachableError, UsageError
from aiopg._core.frames import PREFIX_HEAD_BYTES
from aiopg._core.handshake import HANDSHAKE_BYTES
from aiopg.address import Address
from aiopg.server._doorkeeper import Doorkeeper
from tests.security.conftest import Certificates
from tests.security.stranger import Stranger

TOKEN = "correct horse battery staple"
OTHER = "another token, just as long"


async def team(url: str, world_size: int, token: str = "") -> list[AsyncStatelessGroup]:
    """A group, all of it."""
    return await asyncio.gather(
        *(AsyncStatelessGroup.connect(url, rank=r, world_size=world_size, token=token) for r in range(world_size))
    )


async def idle(url: str, count: int) -> list[socket.socket]:
    """Connections that never say a word."""
    address, loop, there = Address.parse(url), asyncio.get_running_loop(), []
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, (address.host, address.port))
        there.append(sock)
    return there


async def test_idle_and_slow_strangers_do_not_keep_a_group_from_its_work() -> None:
    """A thousand that are silent, and a hundred that send byte by byte: a group of 8 forms and works beside them."""
    with raised_limit():
        await _work_beside_strangers()


async def _work_beside_strangers() -> None:
    async with StoreServer(token=TOKEN, limits=Limits(handshake_seconds=60.0)) as server:
        before = await _barrier_seconds(server.address)
        silent = await idle(server.address, 1000)
        slow = await idle(server.address, 100)
        drips = [asyncio.create_task(_drip(sock)) for sock in slow]
        beside = await _barrier_seconds(server.address)
        for drip in drips:
            drip.cancel()
        assert len(server._started().doorkeeper._strangers) == 1100
        for sock in silent + slow:
            sock.close()
        assert beside < 10 * before  # no bound on time is tighter here: machines are noisy


@pytest.mark.parametrize("limit", ["-Sn", "-n"])
async def test_strangers_do_not_take_the_last_descriptor(limit: str) -> None:
    """Where a process may open 1,024 files: the store lets itself have as many as the system allows, and keeps half."""
    command = f"ulimit {limit} 1024; exec {sys.executable} -m aiopg serve"
    with raised_limit():
        served = await asyncio.create_subprocess_exec("bash", "-c", command, stdout=subprocess.PIPE)
        try:
            assert served.stdout is not None
            url = (await served.stdout.readline()).decode().strip()
            silent = await idle(url, 1100)
            groups = await asyncio.wait_for(team(url, 8), 10)
            await asyncio.gather(*(group.barrier() for group in groups))
            await asyncio.gather(*(group.close() for group in groups))
            for sock in silent:
                sock.close()
        finally:
            served.terminate()
            await served.wait()


@contextmanager
def raised_limit() -> Iterator[None]:
    """Room for a crowd in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _barrier_seconds(url: str) -> float:
    groups = await team(url, 8, TOKEN)
    started = time.perf_counter()
    for _ in range(100):
        await asyncio.gather(*(group.barrier() for group in groups))
    taken = time.perf_counter() - started
    await asyncio.gather(*(group.close() for group in groups))
    return taken


async def _drip(sock: socket.socket) -> None:
    for byte in b"aipg\r\n\x1a\x00" + bytes(56):
        await asyncio.get_running_loop().sock_sendall(sock, bytes([byte]))
        await asyncio.sleep(0.1)


async def test_who_does_not_log_in_in_time_is_put_out() -> None:
    """`handshake_seconds` for the whole handshake: a byte now and then does not lengthen it."""
    async with StoreServer(token=TOKEN, limits=Limits(handshake_seconds=0.3)) as server:
        started = time.monotonic()
        silent, slow, half = [await Stranger.come(server.address) for _ in range(3)]
        await half.greet()
        slow.writer.write(b"aipg")
        asyncio.get_running_loop().call_later(0.15, slow.writer.write, b"\r\n")
        assert await silent.wait_ended() == b""
        assert await slow.wait_ended() == b""
        assert await half.wait_ended() == b""
        assert 0.2 < time.monotonic() - started < 3.0
        for stranger in (silent, slow, half):
            stranger.leave()


async def test_past_the_limit_the_oldest_stranger_makes_room() -> None:
    """`strangers`: the newest comes in, whoever has been there longest goes, and members are not strangers."""
    async with StoreServer(limits=Limits(strangers=3)) as server:
        groups = await team(server.address, 4)
        silent = [await Stranger.come(server.address) for _ in range(5)]
        for gone in silent[:2]:
            assert await gone.wait_ended() == b""
        late = await team_named(server.address, "late")
        await asyncio.gather(*(group.barrier() for group in groups), late.barrier())
        assert len(server._started().doorkeeper._strangers) <= 3
        await asyncio.gather(*(group.close() for group in groups), late.close())
        for stranger in silent:
            stranger.leave()


async def team_named(
    url: str, name: str, token: str = "", ssl: SSLContext | None = None, timeout: float = 30.0
) -> AsyncStatelessGroup:
    """A group of one."""
    connect = AsyncStatelessGroup.connect
    return await connect(url, rank=0, world_size=1, group=name, token=token, ssl=ssl, store_timeout=timeout)


async def test_who_guesses_is_slowed_down_and_members_come_in_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """Past `failed_logins` of one address in a second no wrong one is answered. One line in the log for all."""
    async with StoreServer(token=TOKEN, limits=Limits(failed_logins=5)) as server:
        with caplog.at_level(logging.WARNING, "aiopg.server"):
            outcomes = [await _guess(server.address) for _ in range(40)]
        assert 5 <= outcomes.count("refused") < 40
        assert outcomes.count("not heard") > 0
        assert sum("refused" in record.message for record in caplog.records) == 1
        member = await team_named(server.address, "member", TOKEN)
        await member.barrier()
        await member.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_who_guesses_keeps_no_member_out_that_comes_from_his_address(
    ours: Certificates, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """While wrong logins come in without end, whoever knows the token comes in at the first attempt."""
    ssl = ours.member.client_context() if tls else None
    async with StoreServer(token=TOKEN, limits=Limits(failed_logins=1), ssl=ours.store if tls else None) as server:
        guesses = [0]

        async def guess() -> None:
            while True:
                await _guess(server.address, ssl)
                guesses[0] += 1

        guessing = [asyncio.create_task(guess()) for _ in range(4)]
        for number in range(20):
            await (await team_named(server.address, str(number), TOKEN, ssl, timeout=1.0)).close()
        while guesses[0] < 20:
            await _guess(server.address, ssl)
            guesses[0] += 1
        for task in guessing:
            task.cancel()
        await asyncio.wait(guessing)
    assert not [record.message for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"]


async def _guess(url: str, ssl: SSLContext | None = None) -> str:
    stranger = await Stranger.come(url, ssl)
    try:
        await stranger.greet(token=OTHER.encode())
    except (ConnectionError, asyncio.IncompleteReadError):
        return "not heard"
    finally:
        stranger.leave()
    return "refused"


def test_the_doorkeeper_forgets_failed_logins_after_a_second() -> None:
    """Whatever address they came from: what it remembers does not grow."""
    now = 100.0
    keeper = Doorkeeper(Limits(failed_logins=2), (), lambda: now)
    for number in range(1000):
        keeper.login_failed(f"10.0.0.{number}")
    assert len(keeper._guesses._wrong) == 1000
    now += 1.0
    keeper.login_failed("10.0.0.1")
    assert dict(keeper._guesses._wrong) == {"10.0.0.1": 1}


async def test_a_stranger_costs_no_buffer() -> None:
    """Before its handshake is done there is nothing to receive frames into."""
    async with StoreServer(token=TOKEN) as server:
        stranger = await Stranger.come(server.address)
        await stranger.greet()
        (connection,) = server._started()._connections
        assert not hasattr(connection, "_receiver")
        stranger.leave()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: store\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x00" * 65536,
        b"aipg\r\n\x1a\x01",
        os.urandom(1024),
    ],
    ids=["http", "tls", "zeros", "almost", "random"],
)
async def test_what_is_no_handshake_ends_the_connection_without_an_answer(said: bytes) -> None:
    """A port scan, a browser, a TLS client: at once, and with at most a goodbye."""
    async with StoreServer() as server:
        stranger = await Stranger.come(server.address)
        stranger.writer.write(said)
        assert len(await stranger.wait_ended()) < 512
        stranger.leave()
        group = await team_named(server.address, "member")
        await group.close()


async def test_a_giant_length_before_a_session_allocates_nothing() -> None:
    """Who has no session may send no body at all: neither 512 MiB nor one byte."""
    async with StoreServer() as server:
        for size in (1, 512 * 1024 * 1024, 2**32 - 1):
            stranger = await Stranger.come(server.address)
            await stranger.greet()
            stranger.writer.write(PREFIX_HEAD_BYTES.to_bytes(4, "big") + size.to_bytes(4, "big") + bytes(9))
            assert b"frame body" in await stranger.wait_ended()
            stranger.leave()


async def test_all_that_a_stranger_may_say_is_counted() -> None:
    """The fixed bytes of the handshake; what follows them stays in the kernel until the store has answered."""
    async with StoreServer(token=TOKEN) as server:
        stranger = await Stranger.come(server.address)
        stranger.writer.write(b"aipg\r\n\x1a\x00" + b"\x00\x01\x00\x01" + bytes(52) + bytes(100_000))
        assert len(await stranger.wait_ended()) <= HANDSHAKE_BYTES + 32
        stranger.leave()


# ---------------------------------------------------------------------------------------------- where a store listens


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_store_that_other_hosts_can_reach_asks_for_a_token(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """Else it refuses to serve, and says the two ways out; with `insecure` it warns."""
    with pytest.raises(UsageError, match=r"AIOPG_TOKEN(.|\n)*insecure=True"):
        await StoreServer(host).start()
    with caplog.at_level(logging.WARNING, "aiopg.server"):
        async with StoreServer(host, token=TOKEN):
            assert "not encrypted" in caplog.text
        caplog.clear()
        async with StoreServer(host, insecure=True):
            assert "whoever can reach it" in caplog.text


@pytest.mark.parametrize("store_host", ["process", "thread", "loop"])
async def test_a_rank_that_hosts_where_others_can_reach_it_is_told_the_same(store_host: str) -> None:
    """At once, by the call that asked for it, wherever the store would run; the port is free again."""
    with socket.create_server(("0.0.0.0", 0)) as probe:
        port = probe.getsockname()[1]
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(UsageError, match="AIOPG_TOKEN"):
            await AsyncStatelessGroup.create("0.0.0.0", port, 0, 2, store_host=store_host)  # type: ignore[arg-type]
    assert time.monotonic() - started < 3.0


async def test_a_listening_socket_in_hand_is_looked_at_as_well() -> None:
    """It is where the store would be reached that counts."""
    with pytest.raises(UsageError, match="other hosts"):
        await StoreServer(listen_socket=socket.create_server(("0.0.0.0", 0))).start()


async def test_the_environment_can_say_that_the_network_keeps_strangers_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """AIOPG_INSECURE=1, and nothing else."""
    monkeypatch.setenv("AIOPG_INSECURE", "0")
    with pytest.raises(UsageError):
        await StoreServer("0.0.0.0").start()
    monkeypatch.setenv("AIOPG_INSECURE", "1")
    async with StoreServer("0.0.0.0"):
        pass


async def test_by_default_a_store_listens_on_loopback_and_nowhere_else() -> None:
    """No address of this host but the one asked for."""
    async with StoreServer() as server:
        assert Address.parse(server.address).host == "127.0.0.1"


# ------------------------------------------------------------------------------------------------------ unix sockets


async def test_a_unix_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    """Its file has mode 0600 before anybody can connect."""
    path = tmp_path / "store"
    async with StoreServer(path=str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="ANOTHER USER IS NOT TRIED: needs root, Linux")
async def test_another_user_is_put_out_even_where_the_file_lets_him_in(tmp_path: Path) -> None:
    """The kernel says who is at the other end; with a token it does not matter who he is."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    path = tmp_path / "store"
    for token, expected in (("", b""), (TOKEN, b"aipg\r\n\x1a\x00")):
        async with StoreServer(path=str(path), token=token):
            path.chmod(0o666)
            said = await asyncio.to_thread(_greet_as_nobody, str(path))
            assert said == expected


def _greet_as_nobody(path: str) -> bytes:
    code = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'aipg\\r\\n\\x1a\\x00\\0\\1\\0\\1' + bytes(52)); sys.stdout.buffer.write(s.recv(8))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, path], stdout=-1, stderr=-3, check=False)
    return done.stdout


# -------------------------------------------------------------------------------------------------------- no retries


async def test_a_refused_login_is_not_tried_again() -> None:
    """Waiting does not make a token right: one attempt, whatever the timeout is."""
    async with StoreServer(token=TOKEN, limits=Limits(failed_logins=1000)) as server:
        for _ in range(3):
            with pytest.raises(AuthenticationError):
                await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, token=OTHER, store_timeout=60.0)
        assert sum(server._started().doorkeeper._guesses._wrong.values()) <= 3


async def test_a_program_that_is_no_store_is_not_told_the_token() -> None:
    """A member says nothing of its token before the other end has spoken as a store."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(1024))
        writer.write(b"220 mail.example.com ESMTP\r\n" + bytes(64))
        heard.extend(await reader.read(1024))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StoreUnreachableError):
            await team_named(f"aiopg://127.0.0.1:{port}", "member", TOKEN)
    assert len(heard) < 512
    assert TOKEN.encode() not in heard
