"""Promise 10, liveness is the kernel's: a rank that stands still lives, and holds up only those who wait for it.

The ranks are those of `stalling`; their reconnect_grace is shorter than every silence here.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, cast

import pytest

from .ranks import SLOW, Ranks, served
from .stalling import GRACE, PARTS

STALLING = "tests.system.stalling"

LONG = pytest.mark.skipif(
    os.environ.get("AIOPG_TEST_LONG") != "1", reason="40 S OF STANDSTILL ARE NOT TESTED: set AIOPG_TEST_LONG=1"
)

BEAT = 2.0 * SLOW
"""Seconds that no exchange between the ranks that go on takes."""

FACTOR = 10
"""A barrier of the others may take so many times as long while one rank does not read; on a busy host, more."""


def check(ranks: Ranks, seconds: float) -> None:
    """Everybody waited for as long as rank 1 stood still, nobody was declared dead, and every call has ended well."""
    results = ranks.results()
    assert results[1] == {"whole": True, "connections": 1}
    for rank in (0, 2):
        told = results[rank]
        assert told["results"] == ([] if rank == 0 else ["still here"])
        assert told["waited"] >= seconds - 0.5, told
        assert told["slowest"] <= BEAT, told
        assert told["beats"] >= 10, told


# The kernel's limits are 25 s without an answer to a probe, and 30 s without one to data.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [7.0, pytest.param(40.0, marks=LONG)])
def test_a_stopped_rank_is_not_dead(seconds: float) -> None:
    """SIGSTOP with 8 MiB on its way to the rank: nobody calls it dead, and all goes on when it does."""
    with served() as server, Ranks("stopped", 3, loop="mixed", at=server.address, programs=STALLING).start() as ranks:
        assert ranks.line(1) == "waiting"
        ranks.kill(1, signal.SIGSTOP)
        for rank in (0, 2):
            ranks.go_on(rank)
        assert [ranks.line(rank) for rank in (0, 2)] == ["beating", "beating"]
        time.sleep(seconds)
        groups = cast(list[dict[str, Any]], server.describe()["groups"])
        assert {group["world_size"]: list(group["members"]) for group in groups} == {3: [0, 1, 2], 2: [0, 1]}
        ranks.kill(1, signal.SIGCONT)
        check(ranks, seconds)


def test_a_rank_that_blocks_its_loop_is_not_dead() -> None:
    """time.sleep() in its loop for longer than reconnect_grace, with 8 MiB on its way to it."""
    seconds = 2.5 * GRACE
    with served() as server:
        ranks = Ranks("stopped", 3, loop="mixed", at=server.address, programs=STALLING)
        with ranks.start(None, str(seconds)):
            assert ranks.line(1) == "waiting"
            for rank in (0, 2):
                ranks.go_on(rank)
            check(ranks, seconds)


def test_a_rank_that_does_not_read_does_not_slow_the_others() -> None:
    """32 MiB wait on its connection: the medians of the others' barriers before and meanwhile are alike."""
    with served() as server, Ranks("slow_reader", 4, at=server.address, programs=STALLING).start() as ranks:
        assert ranks.line(3) == "waiting"
        medians = [ranks.line(rank) for rank in (0, 1, 2)]
        ranks.go_on(3)
        assert ranks.line(3) == [PARTS, 1]
        ranks.results()
    for before, meanwhile in medians:
        assert meanwhile <= before * FACTOR * SLOW, medians
