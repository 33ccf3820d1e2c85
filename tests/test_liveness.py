"""What the kernel says of a peer: the options it is given, and what it knows of a connection."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from aiopg.liveness import (
    CLIENT_USER_TIMEOUT,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    SWEEP_SECONDS,
    UNANSWERED_SECONDS,
    LateSweep,
    TcpInfo,
    is_vanished,
    keep_alive,
    limit_unanswered,
    tcp_info,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO as read here is Linux'")

KEEPALIVE = [
    ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
    ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
    ("TCP_KEEPCNT", KEEPALIVE_COUNT),
]

STOPPED_PEER = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sys.stdin.read()
"""


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection over loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as one,
        listener.accept()[0] as other,
    ):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield one, other


@contextmanager
def no_descriptor_free() -> Iterator[None]:
    """No file descriptor can be opened meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def transport_over(sock: socket.socket) -> asyncio.Transport:
    """A transport of the running loop over a connected socket."""
    loop = asyncio.get_running_loop()
    connect: Callable[..., Any] = loop.create_connection
    if sock.family == socket.AF_UNIX:
        connect = loop.create_unix_connection
    transport: asyncio.Transport
    transport, _ = await connect(asyncio.Protocol, sock=sock)
    return transport


async def closed(transport: asyncio.Transport) -> None:
    """Close it and let the loop close its socket."""
    transport.abort()
    for _ in range(5):
        await asyncio.sleep(0)
    assert transport.get_extra_info("socket").fileno() == -1


def option(sock: socket.socket, name: str) -> int:
    """The value of a TCP option."""
    return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


def wait_for_info(sock: socket.socket, wanted: Callable[[TcpInfo], bool]) -> TcpInfo:
    """Ask until the kernel says what is wanted, which it tells nobody by itself; 3 s at most."""
    deadline = time.monotonic() + 3
    while True:
        info = tcp_info(sock)
        assert info is not None
        if wanted(info):
            return info
        assert time.monotonic() < deadline, info
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------- options


async def test_both_options_are_set_on_a_transports_socket() -> None:
    """On either loop's own kind of socket."""
    with tcp_pair() as (one, _):
        transport = await transport_over(one.dup())
        sock = transport.get_extra_info("socket")
        keep_alive(sock)
        limit_unanswered(sock)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert [option(one, name) for name, _ in KEEPALIVE] == [value for _, value in KEEPALIVE]
        assert option(one, "TCP_USER_TIMEOUT") == CLIENT_USER_TIMEOUT * 1000
        await closed(transport)


def test_keep_alive_does_not_limit_what_is_unanswered() -> None:
    """A server sets the first and must not get the second."""
    with tcp_pair() as (one, _):
        keep_alive(one)
        assert option(one, "TCP_USER_TIMEOUT") == 0


@linux_only
def test_connections_inherit_keepalive_from_the_listening_socket() -> None:
    """So a server sets it once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        keep_alive(listener)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
            assert [option(accepted, name) for name, _ in KEEPALIVE] == [value for _, value in KEEPALIVE]


def test_ipv6_sockets_are_tcp_too() -> None:
    """The same options under the other family."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        keep_alive(sock)
        assert option(sock, "TCP_KEEPIDLE") == KEEPALIVE_IDLE


@pytest.mark.parametrize("missing", ["TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"])
def test_an_option_that_the_platform_lacks_is_left_out(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are set all the same."""
    number = getattr(socket, missing)
    options = [*KEEPALIVE, ("TCP_USER_TIMEOUT", CLIENT_USER_TIMEOUT * 1000)]
    with tcp_pair() as (one, _):
        before = one.getsockopt(socket.IPPROTO_TCP, number)
        monkeypatch.delattr(socket, missing)
        keep_alive(one)
        limit_unanswered(one)
        assert one.getsockopt(socket.IPPROTO_TCP, number) == before
        assert all(option(one, name) == value for name, value in options if name != missing)


def test_an_option_that_the_kernel_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some sandboxes know an option's name and refuse it."""
    monkeypatch.setattr(socket, "TCP_KEEPINTVL", 9999)
    with tcp_pair() as (one, _):
        keep_alive(one)
        assert option(one, "TCP_KEEPCNT") == KEEPALIVE_COUNT


def test_options_on_a_closed_socket_raise() -> None:
    """Only what is not there is left out, nothing else is passed over."""
    sock = socket.socket()
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        keep_alive(sock)
    with pytest.raises(OSError, match="Bad file descriptor"):
        limit_unanswered(sock)


async def test_unix_sockets_are_left_alone() -> None:
    """Both ends have the same kernel."""
    one, other = socket.socketpair()
    with other:
        transport = await transport_over(one)
        sock = transport.get_extra_info("socket")
        keep_alive(sock)
        limit_unanswered(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert tcp_info(sock) is None
        assert not is_vanished(sock)
        await closed(transport)


# ------------------------------------------------------------------------------------------------ TCP_INFO


@pytest.mark.parametrize(
    ("info", "vanished"),
    [
        (TcpInfo(1, 30.001, 30.001), True),
        (TcpInfo(70, 4000.0, 31.0), True),
        (TcpInfo(1, 30.0, 30.0), False),
        (TcpInfo(0, 4000.0, 4000.0), False),  # nothing is owed
        (TcpInfo(1, 4000.0, 0.1), False),  # it acknowledges
        (TcpInfo(1, 0.1, 4000.0), False),  # it sends
    ],
)
def test_a_peer_is_vanished_when_it_owes_an_answer_for_too_long(info: TcpInfo, vanished: bool) -> None:
    """Both are needed, and any sign of life in the last 30 s counts."""
    assert UNANSWERED_SECONDS == 30
    assert info.vanished is vanished


def test_the_times_fit_together() -> None:
    """A living idle peer is heard of within keepalive's time, so nobody may give up before; a sweep adds little."""
    keepalive = KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_COUNT
    assert keepalive <= 26
    assert keepalive < CLIENT_USER_TIMEOUT
    assert keepalive < UNANSWERED_SECONDS
    assert UNANSWERED_SECONDS + SWEEP_SECONDS <= 36


@linux_only
def test_the_three_numbers_are_read_from_their_places() -> None:
    """Every other number of the structure is another one; any longer structure begins the same."""
    numbers = [1000 * n for n in range(2, 15)]  # rto (offset 8) to last_ack_recv (offset 56)
    head = bytes(8) + struct.pack("=13I", *numbers)
    unacked, data_recv, ack_recv = numbers[(24 - 8) // 4], numbers[(52 - 8) // 4], numbers[(56 - 8) // 4]

    class Sock:
        family = socket.AF_INET

        def fileno(self) -> int:
            return 3

        def getsockopt(self, level: int, name: int, size: int) -> bytes:
            assert (level, name) == (socket.IPPROTO_TCP, socket.TCP_INFO)
            return (head + bytes(200))[:size]

    sock: Any = Sock()
    assert tcp_info(sock) == (unacked, data_recv / 1000, ack_recv / 1000)


@linux_only
async def test_a_live_connection_is_not_vanished() -> None:
    """Asked of either loop's own kind of socket."""
    with tcp_pair() as (one, other):
        transport = await transport_over(one.dup())
        sock = transport.get_extra_info("socket")
        transport.write(b"x")
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(other.recv, 1) == b"x"
        info = wait_for_info(sock, lambda info: info.unacked == 0)
        assert 0 <= info.last_ack_recv < 5
        assert 0 <= info.last_data_recv < 5
        assert not is_vanished(sock)
        await closed(transport)


@linux_only
async def test_a_connection_that_is_closed_gives_no_verdict() -> None:
    """The sweep may meet one that is on its way out."""
    with tcp_pair() as (one, _):
        transport = await transport_over(one.dup())
        sock = transport.get_extra_info("socket")
        await closed(transport)
        assert tcp_info(sock) is None
        assert not is_vanished(sock)


@linux_only
async def test_without_a_free_descriptor_there_is_no_error() -> None:
    """uvloop needs one for each question: no verdict then, and the next sweep asks again."""
    with tcp_pair() as (one, _):
        transport = await transport_over(one.dup())
        sock = transport.get_extra_info("socket")
        with no_descriptor_free():
            assert not is_vanished(sock)
        assert tcp_info(sock) is not None
        await closed(transport)


@linux_only
def test_a_kernel_without_tcp_info_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it refuses the question or says too little."""
    with tcp_pair() as (one, _):
        monkeypatch.setattr(socket, "TCP_INFO", 9999)
        assert tcp_info(one) is None
        monkeypatch.setattr(socket, "TCP_INFO", socket.TCP_NODELAY)
        assert tcp_info(one) is None
        assert not is_vanished(one)


def test_another_platform_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have an option of this name, with another structure."""
    with tcp_pair() as (one, _):
        monkeypatch.setattr(sys, "platform", "freebsd14")
        assert tcp_info(one) is None
        assert not is_vanished(one)


@linux_only
def test_a_stopped_reader_with_a_full_window_owes_nothing() -> None:
    """Its kernel has acknowledged all that was sent and goes on answering: such a peer is never taken for gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        child = subprocess.Popen([sys.executable, "-c", STOPPED_PEER, str(port)], stdin=subprocess.PIPE)
        try:
            with listener.accept()[0] as sock:
                child.send_signal(signal.SIGSTOP)
                sock.setblocking(False)
                keep_alive(sock)
                while select.select([], [sock], [], 0.2)[1]:
                    sock.send(bytes(65536))
                unread = wait_for_info(sock, lambda info: info.unacked == 0)
                # The kernel probes the closed window, and the answers count as signs of life.
                later = wait_for_info(sock, lambda info: info.last_ack_recv < unread.last_ack_recv)
                assert later.unacked == 0
                assert not is_vanished(sock)
        finally:
            child.kill()
            child.communicate()


@linux_only
def test_data_is_a_sign_of_life_where_acknowledgements_are_not_noted() -> None:
    """Data that takes the kernel's short way leaves the acknowledgement in it unnoted; the peer lives all the same."""
    with tcp_pair() as (one, other):
        other.send(b"a")
        one.recv(1)
        one.send(b"b")
        other.recv(1)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            one.send(b"x")
            time.sleep(0.02)
            info = tcp_info(other)
            assert info is not None
            assert info.last_data_recv < 1
            if info.last_ack_recv > info.last_data_recv + 0.1:
                return
    pytest.skip("this kernel noted every acknowledgement")


# ----------------------------------------------------------------------------------------- sweeps that are late


def test_a_sweep_in_time_may_judge() -> None:
    """Also when it is late by less than a second, each time."""
    sweeps = LateSweep(100.0, interval=5.0, grace=10.0)
    now = 100.0
    for late in (0.0, 0.9, 1.0, 0.5, 1.0):
        now += 5.0 + late
        assert sweeps.may_judge(now)


def test_after_a_late_sweep_no_verdicts_for_twice_the_grace() -> None:
    """The late one itself passes none; the first one after 20 s does."""
    sweeps = LateSweep(100.0, interval=5.0, grace=10.0)
    assert sweeps.may_judge(105.0)
    verdicts = [sweeps.may_judge(now) for now in (170.0, 175.0, 180.0, 185.0, 190.0, 195.0)]
    assert verdicts == [False, False, False, False, True, True]


def test_the_first_sweep_may_be_the_late_one() -> None:
    """Sweeping begins when it is made."""
    sweeps = LateSweep(100.0, interval=5.0, grace=10.0)
    assert not sweeps.may_judge(106.5)


def test_being_late_again_begins_anew() -> None:
    """A process that is stopped again and again never judges in between."""
    sweeps = LateSweep(0.0, interval=5.0, grace=10.0)
    assert [sweeps.may_judge(now) for now in (60.0, 75.0, 80.0, 85.0, 90.0, 95.0)] == [False] * 5 + [True]


def test_judging_sweeps_are_far_from_late_ones() -> None:
    """Whatever the delays: a verdict is passed exactly if no late sweep lies less than twice the grace before."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(200):
        interval, grace = chance.choice([(1.0, 5.0), (5.0, 5.0), (5.0, 60.0)])
        now = float(chance.randrange(1000))
        sweeps = LateSweep(now, interval, grace)
        late_at: list[float] = []
        for _ in range(50):
            delay = chance.choice([0.0, 0.0, 0.0, 0.5, 30.0])
            now += interval + delay
            if delay > 1.0:
                late_at.append(now)
            assert sweeps.may_judge(now) == all(now - then >= 2 * grace for then in late_at)
