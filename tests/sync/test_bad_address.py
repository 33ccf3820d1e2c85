"""Bad input to create() and connect(): where the store is to be, and what is there instead."""

from __future__ import annotations

import http.server
import math
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aiopg import AddressInUseError, GroupTimeoutError, StatelessGroup, StoreUnreachableError
from aiopg.group import _rendezvous
from tests.sync.processes import HOST, create_at_once, free_port, together


class ClosesAtOnce(socketserver.BaseRequestHandler):
    """A server that hangs up on everybody."""


class Silent(socketserver.BaseRequestHandler):
    """A server that never answers."""

    def handle(self) -> None:
        while self.request.recv(4096):
            pass


class Web(http.server.BaseHTTPRequestHandler):
    """A web server."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def occupied(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port on which something listens that is no store."""
    port = free_port()
    with socketserver.ThreadingTCPServer((HOST, port), request.param, bind_and_activate=False) as server:
        server.allow_reuse_address = server.daemon_threads = True
        server.server_bind()
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield port
        server.shutdown()
        thread.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 takes silence for an answer sooner, so that the test is short."""
    monkeypatch.setattr(_rendezvous, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(_rendezvous, "FREE_SECONDS", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("occupied", [Silent, Web, ClosesAtOnce], indirect=True)
def test_rank_0_does_not_found_a_store_on_a_port_in_use(occupied: int) -> None:
    """Something else on the port: an error with the address, whatever that something does."""
    with pytest.raises(AddressInUseError, match=f"{HOST}:{occupied}.* choose another port") as caught:
        create_at_once(HOST, occupied, 0, 2)
    assert caught.value.address == f"aiopg://{HOST}:{occupied}"


@pytest.mark.parametrize("occupied", [Web], indirect=True)
def test_another_rank_that_meets_a_web_server_says_so(occupied: int) -> None:
    """What answers and is no store is final for the other ranks."""
    with pytest.raises(StoreUnreachableError, match=f"{HOST}:{occupied}"):
        create_at_once(HOST, occupied, 1, 2)


@pytest.mark.parametrize("occupied", [Silent, ClosesAtOnce], indirect=True)
def test_another_rank_that_gets_no_answer_misses_rank_0(occupied: int) -> None:
    """Silence may become a store until store_timeout; then the error names rank 0."""
    with pytest.raises(GroupTimeoutError, match="missing: rank 0") as caught:
        create_at_once(HOST, occupied, 1, 2, store_timeout=0.5)
    assert (caught.value.op, caught.value.missing, caught.value.arrived) == ("join", (0,), ())
    assert 0.4 < caught.value.elapsed < 0.7


def test_a_rank_that_finds_no_store_misses_rank_0() -> None:
    """Nobody listens: the other ranks wait for rank 0, and name it at the deadline."""
    with pytest.raises(GroupTimeoutError) as caught:
        create_at_once(HOST, free_port(), 1, 2, store_timeout=0.3)
    assert caught.value.missing == (0,)


UNREACHABLE = "255.255.255.255"
"""The kernel refuses to connect to it and to listen on it, without asking any network."""


@pytest.mark.parametrize("rank", [0, 1])
def test_an_unreachable_host_is_said_at_once(rank: int) -> None:
    """No waiting helps where there is no route, or where the address is not of this host."""
    with pytest.raises(StoreUnreachableError, match=UNREACHABLE):
        create_at_once(UNREACHABLE, free_port(), rank, 2, insecure=True)


def test_a_host_name_that_does_not_resolve_is_said_at_once_to_who_is_to_listen_there() -> None:
    """Rank 0 cannot serve at an address that its own host does not know."""
    with pytest.raises(StoreUnreachableError, match=r"nowhere\.invalid.*does not resolve"):
        create_at_once("nowhere.invalid", free_port(), 0, 2)


def test_a_host_name_that_does_not_resolve_is_tried_until_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """In a cluster a program may be up before its peer has a name. A mistyped one is warned of at once, and named."""
    with pytest.raises(StoreUnreachableError, match=r"'nowhere\.invalid' does not resolve"):
        StatelessGroup.create("nowhere.invalid", free_port(), 1, 2, store_timeout=0.5)
    with pytest.raises(StoreUnreachableError, match=r"'nowhere\.invalid' does not resolve"):
        StatelessGroup.connect("aiopg://nowhere.invalid:1", rank=0, world_size=1, store_timeout=0.5)
    warned = [record.message for record in caplog.records if record.name == "aiopg.client"]
    assert len(warned) == 2
    assert "'nowhere.invalid' does not resolve" in warned[0]


def test_a_listening_socket_of_another_port_is_refused_and_left_alone() -> None:
    """The other ranks would look for the store where nobody is."""
    with socket.create_server((HOST, 0)) as listening:
        bound = listening.getsockname()[1]
        with pytest.raises(ValueError, match=f"bound to port {bound}, and port is {bound % 65535 + 1}"):
            create_at_once(HOST, bound % 65535 + 1, 0, 2, listen_socket=listening)
        assert listening.fileno() != -1


def test_a_unix_socket_that_is_not_there_is_waited_for_and_named(tmp_path: Any) -> None:
    """connect() to a store that does not come up says where it looked."""
    with pytest.raises(StoreUnreachableError, match="nothing"):
        StatelessGroup.connect(f"unix://{tmp_path}/nothing", rank=0, world_size=1, store_timeout=0.2)


@pytest.mark.parametrize(
    "url", ["", "nowhere", "http://h:1", "aiopg://h", "aiopg://h:x", "unix://a/b", "aiopg://h:0", "memory://"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """What is wrong with a store's URL is said with the URL."""
    with pytest.raises(ValueError, match=f"{url!r}"):
        StatelessGroup.connect(url, rank=0, world_size=1)


@pytest.mark.parametrize("port", [-1, 65536, "1", True, 0])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    """A port is 1 to 65535; 0 cannot be told to the other ranks."""
    with pytest.raises(ValueError, match="port"):
        create_at_once(HOST, port, 0, 2)


@pytest.mark.parametrize("name", ["", "x" * 129, 7])
def test_a_group_name_that_is_none_is_refused_and_nothing_stays(name: Any) -> None:
    """A name has 1 to 128 bytes; the port is as free afterwards as it was."""
    port = free_port()
    with pytest.raises((ValueError, TypeError), match="group"):
        create_at_once(HOST, port, 0, 2, group=name)
    with socket.create_server((HOST, port)):
        pass


def test_an_unknown_store_host_is_refused_and_nothing_stays() -> None:
    """store_host is one of three words; the port is as free afterwards as it was."""
    port = free_port()
    with pytest.raises(ValueError, match="'cloud'"):
        create_at_once(HOST, port, 0, 2, store_host="cloud")
    with socket.create_server((HOST, port)):
        pass


def test_no_deadline_at_all_is_fine() -> None:
    """math.inf is the one timeout that is no number of seconds."""
    port = free_port()
    groups = together(*(lambda r=r: StatelessGroup.create(HOST, port, r, 2, store_timeout=math.inf) for r in (0, 1)))
    together(*(lambda g=g: g.barrier(math.inf) for g in groups))
    for group in groups:
        group.close()
