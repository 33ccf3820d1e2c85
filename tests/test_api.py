"""The public face: every name, in vLLM's positional order, on both classes; and a program written for vLLM's group."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, StatelessGroup, StoreServer
from tests.sync.processes import HOST, Program, form_pair, free_port, together

BOTH = pytest.mark.parametrize("cls", [AsyncStatelessGroup, StatelessGroup])

POSITIONAL = {
    "create": "host port rank world_size data_expiration_seconds=3600 store_timeout=300.0",
    "connect": "url",
    "from_env": "",
    "send": "obj dst",
    "recv": "src",
    "send_obj": "obj dst",
    "recv_obj": "src",
    "broadcast": "obj=None src=0",
    "broadcast_obj": "obj=None src=0",
    "all_gather": "obj",
    "all_gather_obj": "obj",
    "barrier": "timeout=30.0",
    "gather": "obj dst=0",
    "scatter": "objs=None src=0",
    "all_to_all": "objs",
    "all_reduce": "obj op='sum'",
    "reduce": "obj dst=0 op='sum'",
    "join": "",
    "expire_data": "",
    "abort": "reason",
    "close": "",
    "pending": "",
    "describe": "",
    "subgroup": "ranks name=None",
}
KEYWORDS = {
    "create": {
        "group",
        "token",
        "ssl",
        "insecure",
        "listen_socket",
        "codec",
        "reconnect_grace",
        "store_host",
        "takeover",
    },
    "connect": {
        "rank",
        "world_size",
        "group",
        "token",
        "ssl",
        "data_expiration_seconds",
        "store_timeout",
        "codec",
        "reconnect_grace",
        "takeover",
    },
}
NO_CALLS = {"create", "connect", "from_env", "join", "expire_data", "abort", "close", "pending", "describe", "subgroup"}
ATTRIBUTES = [
    "rank", "world_size", "name", "store", "socket", "data_expiration_seconds", "send_dst_counter",
    "recv_src_counter", "broadcast_send_counter", "broadcast_recv_src_counter", "entries",
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", POSITIONAL)
def test_a_method_takes_its_positional_parameters_in_vllm_s_order(cls: type, name: str) -> None:
    """Names, order and defaults of what can be given by position are fixed."""
    parameters = inspect.signature(getattr(cls, name)).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    assert " ".join(str(p.replace(annotation=p.empty)) for p in positional) == POSITIONAL[name]


@BOTH
@pytest.mark.parametrize("name", POSITIONAL)
def test_every_call_takes_a_tag_and_a_timeout(cls: type, name: str) -> None:
    """tag= and timeout= go with every message and collective; other options are keywords too."""
    parameters = inspect.signature(getattr(cls, name)).parameters
    if name in KEYWORDS:
        assert {p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY} == KEYWORDS[name]
    elif name not in NO_CALLS:
        assert parameters["tag"].default == 0
        assert parameters["timeout"].default == (30.0 if name == "barrier" else None)


@BOTH
def test_the_constructor_takes_what_vllm_s_dataclass_takes(cls: type) -> None:
    """(rank, world_size, store, socket=None, data_expiration_seconds=3600)."""
    first = list(inspect.signature(cls).parameters.values())[:5]
    assert [p.name for p in first] == ["rank", "world_size", "store", "socket", "data_expiration_seconds"]
    assert [p.default for p in first[3:]] == [None, 3600]


@BOTH
def test_the_names_of_vllm_are_the_same_functions(cls: Any) -> None:
    """`send_obj is send`, and so on."""
    assert cls.send_obj is cls.send
    assert cls.recv_obj is cls.recv
    assert cls.broadcast_obj is cls.broadcast
    assert cls.all_gather_obj is cls.all_gather


@BOTH
def test_a_name_of_the_public_face_is_there(cls: Any) -> None:
    """Every method of the list, on both classes, awaitable on one of them only."""
    for name in POSITIONAL:
        awaitable = cls is AsyncStatelessGroup and name not in ("pending", "describe")
        assert inspect.iscoroutinefunction(getattr(cls, name)) is awaitable, name


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[list[StatelessGroup]]:
    """Two ranks in threads."""
    groups = form_pair(f"memory://{hash(request.node.name)}")
    yield groups
    for group in groups:
        group.close()


def test_the_attributes_are_there(pair: list[StatelessGroup]) -> None:
    """Every attribute of the list, on both classes, with its value."""
    for group in (pair[0], pair[0]._group):
        assert all(hasattr(group, name) for name in ATTRIBUTES)
        assert (group.rank, group.world_size, group.name, group.socket) == (0, 2, "default", None)
        assert group.data_expiration_seconds == 3600
        assert not group.entries


def test_messages_are_counted_when_they_are_done(pair: list[StatelessGroup]) -> None:
    """send_dst_counter and recv_src_counter count what is done, by rank; a recv that timed out is not."""
    for n in range(3):
        pair[0].send(n, 1, tag=n)
    assert [pair[1].recv(0, tag=n) for n in range(2)] == [0, 1]
    with pytest.raises(TimeoutError):
        pair[1].recv(0, timeout=0.05)
    assert (pair[0].send_dst_counter, pair[0].recv_src_counter) == ({0: 0, 1: 3}, {0: 0, 1: 0})
    assert (pair[1].send_dst_counter, pair[1].recv_src_counter) == ({0: 0, 1: 0}, {0: 2, 1: 0})


def test_broadcasts_are_counted_on_both_sides(pair: list[StatelessGroup]) -> None:
    """broadcast_send_counter counts those from here, broadcast_recv_src_counter those of each other rank."""
    for src in (0, 0, 1):
        assert together(*(lambda g=g, src=src: g.broadcast(g.rank, src) for g in pair)) == [src, src]
    assert (pair[0].broadcast_send_counter, pair[1].broadcast_send_counter) == (2, 1)
    assert (pair[0].broadcast_recv_src_counter, pair[1].broadcast_recv_src_counter) == ({0: 0, 1: 1}, {0: 2, 1: 0})


def test_entries_remember_what_was_given_and_when(pair: list[StatelessGroup]) -> None:
    """Sends and collectives that gave data are noted with the time; barriers and receives are not."""
    before = time.monotonic()
    pair[0].send("x", 1, tag="t")
    pair[1].recv(0, tag="t")
    together(*(lambda g=g: g.all_gather("y") for g in pair))
    together(*(g.barrier for g in pair))
    (sent, sent_at), (gathered, gathered_at) = pair[0].entries
    assert "send to 1, tag 't'" in sent
    assert "all_gather" in gathered
    assert before <= sent_at <= gathered_at <= time.monotonic()
    assert len(pair[1].entries) == 1


async def test_pending_tells_what_waits_and_for_how_long() -> None:
    """pending() lists this rank's waiting calls, oldest first."""
    async with StoreServer() as server:
        ranks = (AsyncStatelessGroup.connect(server.address, rank=rank, world_size=2) for rank in (0, 1))
        first, second = await asyncio.gather(*ranks)
        barrier = asyncio.create_task(first.barrier(math.inf))
        await asyncio.sleep(0.01)  # uvloop's clock counts milliseconds, and calls are ordered by it
        recv = asyncio.create_task(first.recv(1, tag="t", timeout=60))
        await asyncio.sleep(0)
        one, two = first.pending()
        assert (one.op, one.tag, one.seq, one.remaining) == ("barrier", 0, 1, math.inf)
        assert (two.op, two.tag, two.seq) == ("recv", "t", 1)
        assert one.elapsed >= two.elapsed >= 0
        assert 0 < two.remaining <= 60
        await second.barrier()
        await second.send("x", 0, tag="t")
        await asyncio.gather(barrier, recv)
        assert first.pending() == ()
        await first.close()
        await second.close()


LIKE_VLLM = """
def main(host, port, rank, world_size):
    pg = StatelessGroup.create(host, port, rank, world_size, 600, 20)
    assert (pg.rank, pg.world_size, pg.data_expiration_seconds) == (rank, world_size, 600)
    unique_id = pg.broadcast_obj(b"id" if rank == 0 else None, 0)
    assert unique_id == b"id"
    assert pg.all_gather_obj({"rank": rank}) == [{"rank": r} for r in range(world_size)]
    if rank == 0:
        pg.send_obj(("handshake", [1, 2]), 1)
    else:
        assert pg.recv_obj(0) == ("handshake", [1, 2])
    pg.barrier()
    pg.barrier(10)
    pg.expire_data()
    say("done", pg.send_dst_counter, pg.recv_src_counter, pg.broadcast_send_counter)
main("127.0.0.1", int(sys.argv[2]), int(sys.argv[1]), 2)
"""


def test_a_program_written_for_vllm_s_group_runs() -> None:
    """Positional calls under vLLM's names, in two real processes that never close their group."""
    port = free_port()
    programs = [Program(LIKE_VLLM, rank, port) for rank in range(2)]
    try:
        assert [program.line() for program in programs] == [
            "done {0: 0, 1: 1} {0: 0, 1: 0} 1",
            "done {0: 0, 1: 0} {0: 1, 1: 0} 0",
        ]
        assert [(program.end(), program.errors()) for program in programs] == [(0, "")] * 2
    finally:
        for program in programs:
            program.kill()


def from_env_with(monkeypatch: pytest.MonkeyPatch, **variables: object) -> Callable[[], StatelessGroup]:
    """from_env() under these variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    return StatelessGroup.from_env


def test_a_launcher_s_variables_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """from_env() reads what torchrun and `aiopg run` set."""
    place = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": HOST, "MASTER_PORT": free_port(), "AIOPG_GROUP": "trainers"}
    with from_env_with(monkeypatch, **place)() as group:
        assert (group.rank, group.world_size, group.name) == (0, 1, "trainers")
        assert group.store.url == f"aiopg://{HOST}:{place['MASTER_PORT']}"


def test_what_the_environment_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """from_env() without its variables names those that are missing."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("AIOPG_URL", raising=False)
    make = from_env_with(monkeypatch, RANK=0, WORLD_SIZE="two", MASTER_PORT=1)
    with pytest.raises(ValueError, match="MASTER_ADDR"):
        make()
    make = from_env_with(monkeypatch, MASTER_ADDR=HOST)
    with pytest.raises(ValueError, match=r"WORLD_SIZE .* 'two'"):
        make()
