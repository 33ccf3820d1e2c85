"""The promises, seen from real processes on real sockets."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import pytest

from .ranks import Ranks, alive, free_port, resident_bytes, wait_until

LATE = 0.1 * float(os.environ.get("AIOPG_TEST_SLOW", "1"))
"""Promise 3: a call ends within 100 ms of its deadline; on a busy host AIOPG_TEST_SLOW stretches it."""

LOOPS = ["asyncio", "uvloop"]


def expected(rank: int, n: int) -> list[Any]:
    """What `everything` gives."""
    return [
        [{"rank": r} for r in range(n)],
        "hello",
        list(range(n)) if rank == 0 else None,
        rank * rank,
        [r * 10 + rank for r in range(n)],
        n * (n + 1) // 2,
        n if rank == 0 else None,
        (rank - 1) % n,
    ]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("n", [2, 4, 8])
def test_every_operation_among_processes(n: int, loop: str) -> None:
    """Real runs of 2, 4 and 8 ranks; then the store's process is gone and its port free."""
    with Ranks("everything", n, loop=loop).start() as ranks:
        assert ranks.results() == {rank: expected(rank, n) for rank in range(n)}
        wait_until(lambda: port_is_free(ranks.port), "the port is free")


@pytest.mark.parametrize("store_host", ["thread", "loop"])
def test_every_operation_with_the_store_inside_rank_0(store_host: str) -> None:
    """store_host="thread" and "loop": the same, without a child process."""
    with Ranks("everything", 4).start(None, store_host) as ranks:
        assert ranks.results() == {rank: expected(rank, 4) for rank in range(4)}
        wait_until(lambda: port_is_free(ranks.port), "the port is free")


def test_two_senders_to_one_rank() -> None:
    """Rank 2 receives each sender's message (vLLM 0.33 delivers rank 0's twice and loses rank 1's)."""
    with Ranks("two_senders", 3).start() as ranks:
        assert ranks.results()[2] == ["from 0", "from 1"]


def test_deadlines_are_kept_and_name_the_absent_rank() -> None:
    """With a timeout of 2 s and rank 1 absent, each call raises within 2.1 s, whatever store_timeout is."""
    with Ranks("absent", 2).start() as ranks:
        said = ranks.results()[0]
    assert [op for _, op, _, _ in said] == ["barrier", "all_gather", "broadcast", "recv"]
    for elapsed, _, missing, text in said:
        assert 2.0 <= elapsed <= 2.0 + LATE
        assert missing == [1]
        assert "rank 1" in text


def test_create_names_the_rank_that_never_joins() -> None:
    """create() ends by its store_timeout and names who is missing: rank 1 to rank 0, rank 0 to rank 1."""
    import asyncio

    from aiopg import AsyncStatelessGroup, GroupTimeoutError

    for rank in (0, 1):
        port = free_port()
        started = time.monotonic()
        with pytest.raises(GroupTimeoutError) as caught:
            asyncio.run(AsyncStatelessGroup.create("127.0.0.1", port, rank, 2, store_timeout=2))
        assert 2.0 <= time.monotonic() - started <= 2.0 + 3 * LATE  # the store's process starts and ends in it
        assert caught.value.missing == (1 - rank,)
        wait_until(lambda port=port: port_is_free(port), "the port is free")  # type: ignore[misc]


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_nobody_loses_its_release_when_rank_0_goes(how: str) -> None:
    """Rank 0 exits or is killed right after a barrier: every other rank is released, and the store ends later."""
    with Ranks("leaves_after_barrier", 4).start(None, how) as ranks:
        pid = ranks.line(0)
        results = ranks.results()
        assert all(results[rank] == "released" for rank in (1, 2, 3))
        wait_until(lambda: not alive(pid), "the store's process is gone")
        assert port_is_free(ranks.port)


@pytest.mark.parametrize("store_host", ["thread", "loop"])
def test_nobody_loses_its_release_when_rank_0_hosts_and_exits(store_host: str) -> None:
    """Barrier phase 3: where the store lives in rank 0, rank 0 leaves last, when every other has its release."""
    for _ in range(5):
        with Ranks("leaves_after_barrier", 4).start(None, "exit", store_host) as ranks:
            results = ranks.results()
            assert all(results[rank] == "released" for rank in (1, 2, 3))


def test_the_store_outlives_its_founder() -> None:
    """Rank 0 is killed: the others get PeerLostError(0) at once, what it sent is received, and they go on."""
    with Ranks("outlives_rank_0", 3).start() as ranks:
        pid, _, _ = (ranks.line(rank) for rank in range(3))
        assert ranks.line(0) == "sent"
        ranks.kill(0)
        results = ranks.results()
        assert results[1][:3] == [[0], "last words", "from 2"]
        assert results[2][:3] == [[0], None, "from 1"]
        wait_until(lambda: not alive(pid), "the store's process is gone")
        assert port_is_free(ranks.port)


def test_thousands_of_collectives_leave_nothing_behind() -> None:
    """10,000 barriers and 10,000 all_gathers leave the server's memory and count of rounds where they were."""
    with Ranks("ten_thousand", 2, loop="uvloop") as ranks:
        ranks.start(None, "2000", "5000", "3000")
        pid = ranks.line(0)
        ranks.line(1)
        memory = []
        for _ in range(3):
            rounds, held = ranks.line(0)
            assert (rounds, held) in ((0, 0), (1, 0))  # rank 1 may wait in the next barrier already
            memory.append(resident_bytes(pid))
            stdin = ranks.processes[0].stdin
            assert stdin is not None
            stdin.write("\n")
            stdin.flush()
        ranks.results()
    assert memory[2] - memory[0] < 1_000_000, memory


@pytest.mark.parametrize("loop", LOOPS)
def test_overlapping_groups_created_at_once(loop: str) -> None:
    """Groups of every subset of processes, created concurrently in different orders on one address, all form."""
    with Ranks("many_groups", 5, loop=loop).start() as ranks:
        for formed in ranks.results().values():
            assert formed
            assert all(formed)


def test_a_pair_and_then_four_on_one_address() -> None:
    """A and B form one group, then A, B, C, D another one on the same store and port; both work at once."""
    with Ranks("pair_then_four", 4).start() as ranks:
        results = ranks.results()
    four = [["four", rank] for rank in range(4)]
    pair = [["pair", rank] for rank in range(2)]
    assert results == {0: [four, pair], 1: [four, pair], 2: [four], 3: [four]}


def port_is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
