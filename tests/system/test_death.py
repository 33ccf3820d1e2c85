"""Promise 5, death is told: processes that are killed, that end, that abort, and those that come in their place.

The ranks are those of `dying`. Three groups of the same processes stand for three situations at once, so that one
kill tests all of them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .dying import GRACE, SITUATIONS, WORDS
from .ranks import SLOW, Ranks, alive, served, wait_until

DYING = "tests.system.dying"

AT_ONCE = 0.5 * SLOW
"""Seconds within which a death on the store's own host is told."""

ABORTED = 0.1 * SLOW
"""Seconds within which an abort is told."""


@contextmanager
def hosted(by: str) -> Iterator[str | None]:
    """The URL of a store of the test's own; None where rank 0's create() is to host one in a process."""
    if by == "create":
        yield None
        return
    with served() as server:
        yield server.address
        wait_until(lambda: server.describe()["groups"] == [], "every group is gone")


def kill_one(ranks: Ranks, victim: int) -> float:
    """Kill a rank that all others wait for, and whatever it has forked; when."""
    child = ranks.line(victim)
    try:
        when = time.monotonic()
        ranks.kill(victim)
        for rank in set(ranks.processes) - {victim}:
            ranks.await_output(rank)
        assert not child or alive(child)
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
    return when


def check_survivors(ranks: Ranks, victim: int, killed: float, within: float) -> set[str]:
    """All survivors heard of the death in time, had the victim's words, and went on; the reasons that they heard."""
    results = ranks.results()
    others = [rank for rank in range(8) if rank != victim]
    assert sorted(results) == others
    reasons = set()
    for at, rank in enumerate(others):
        for situation, told in zip(SITUATIONS, results[rank], strict=True):
            assert told["ranks"] == [[victim]] * 3, (rank, situation, told)
            assert 0 <= told["when"] - killed <= within, (rank, situation, told["when"] - killed)
            assert told["words"] == [[situation, number] for number in range(WORDS)]
            assert told["neighbour"] == others[at - 1]
            assert told["gathered"] == others
            reasons.add(told["reason"])
    return reasons


@pytest.mark.parametrize(("by", "victim"), [("create", 0), ("create", 5), ("server", 0)])
def test_a_killed_rank_is_told_at_once(by: str, victim: int) -> None:
    """kill -9 of one of 8: PeerLostError names it to all within 0.5 s, its last words are read, the others go on."""
    with hosted(by) as url, Ranks("killed_while_waited_for", 8, loop="mixed", at=url, programs=DYING) as ranks:
        ranks.start(None, str(victim))
        pid = ranks.processes[victim].pid
        killed = kill_one(ranks, victim)
        assert check_survivors(ranks, victim, killed, AT_ONCE) == {f"its process {pid} ended"}


@pytest.mark.parametrize(("by", "victim"), [("create", 0), ("server", 5)])
def test_a_killed_rank_that_cannot_be_watched_is_told_when_its_grace_is_over(by: str, victim: int) -> None:
    """No pid to watch: not before reconnect_grace, and at the latest 0.5 s after it."""
    with (
        hosted(by) as url,
        Ranks("killed_while_waited_for", 8, loop="mixed", at=url, programs=DYING, unwatched=True) as ranks,
    ):
        ranks.start(None, str(victim))
        killed = kill_one(ranks, victim)
        reasons = check_survivors(ranks, victim, killed + GRACE - 0.01, AT_ONCE)
        assert all("did not come back within 1 s" in reason for reason in reasons), reasons


def test_a_death_is_told_also_while_a_child_keeps_the_connection_open() -> None:
    """A rank forked a child that holds its sockets: no end of the connection tells, and its death is known at once."""
    with hosted("server") as url, Ranks("killed_while_waited_for", 8, at=url, programs=DYING) as ranks:
        ranks.start(None, "3", "fork")
        killed = kill_one(ranks, 3)
        check_survivors(ranks, 3, killed, AT_ONCE)


@pytest.mark.parametrize("unwatched", [False, True])
def test_an_end_without_close_says_goodbye(unwatched: bool) -> None:
    """main() returns, sys.exit(), an exception, a blocking program's end: told at once, watched or not."""
    with served() as server:
        ranks = Ranks("ends", 5, loop="mixed", at=server.address, programs=DYING, unwatched=unwatched)
        blocking = Ranks("ends_blocking", 5, at=server.address, programs=DYING, unwatched=unwatched)
        with ranks.start([0, 1, 2, 3]), blocking.start([4]):
            ended = [ranks.line(1), ranks.line(2), ranks.line(3), blocking.line(4)]
            told = ranks.line(0)
            for rank, (reason, who, when) in enumerate(told, 1):
                assert who == [rank]
                assert when - ended[rank - 1] <= AT_ONCE, (rank, reason, when - ended[rank - 1])
            error = ranks.processes[3].communicate(timeout=20)[1]
            assert error.rstrip().endswith("RuntimeError: this rank has no luck")
            blocking.results()
            del ranks.processes[3]
            assert set(ranks.results()) == {0, 1, 2}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_exception_that_leaves_the_block_aborts_the_group(loop: str) -> None:
    """All others raise GroupAbortedError with the rank, the type and the text of the exception, within 100 ms."""
    with served() as server, Ranks("aborts", 5, loop=loop, at=server.address, programs=DYING).start() as ranks:
        raised = ranks.line(2)
        for rank in (0, 1, 3, 4):
            origin, reason, when = ranks.line(rank)
            assert (origin, reason) == (2, "ConnectionRefusedError: no GPU for rank 2")
            assert when - raised <= ABORTED, (rank, when - raised)
        assert "no GPU for rank 2" in ranks.processes.pop(2).communicate(timeout=20)[1]
        ranks.results()


@pytest.mark.parametrize("by", ["create", "server"])
def test_events_tell_in_order_what_became_of_the_others(by: str) -> None:
    """Another rank hears who joined, left, was lost, and aborted, in that order and once each."""
    with hosted(by) as url, Ranks("tells_events", 4, loop="mixed", at=url, programs=DYING).start() as ranks:
        joined = [ranks.line(0) for _ in range(4)]
        assert [what for what, _, _ in joined] == ["joined"] * 4
        pids = {rank: ranks.processes[rank].pid for rank in range(4)}
        assert {rank: int(text.split()[1]) for _, rank, text in joined} == pids
        assert [ranks.line(rank) for rank in (1, 2, 3)] == [pids[1], pids[2], pids[3]]
        ranks.go_on(2, "leave")
        assert ranks.line(0) == ["left", 2, "it left the group"]
        ranks.kill(1)
        assert ranks.line(0) == ["lost", 1, f"its process {pids[1]} ended"]
        ranks.go_on(3, "abort")
        assert ranks.line(0) == ["aborted", 3, "enough of this"]
        assert ranks.line(0) == pids[0]
        ranks.go_on(0)
        ranks.results()


def again(url: str, *options: str) -> Ranks:
    """Start another process for rank 1."""
    return Ranks("comes_again", 2, at=url, programs=DYING).start([1], *options)


def seats(line: Any, *ranks: Ranks) -> float:
    """Ranks 0 and 1 met, and they were the processes of these; when."""
    members, when = line
    assert members == [[rank, one.processes[rank].pid] for rank, one in enumerate(ranks)]
    assert isinstance(when, float)
    return when


def test_a_rank_that_hangs_is_taken_over() -> None:
    """takeover=True: the stopped holder's calls raise FencedError when it goes on, the other rank's PeerLostError."""
    with served() as server, Ranks("holds", 2, loop="mixed", at=server.address, programs=DYING).start() as ranks:
        for rank in (0, 1):
            ranks.line(rank)
        ranks.kill(1, signal.SIGSTOP)
        with again(server.address, "takeover") as other:
            _, since = other.line(1)
            lost = ranks.line(0)
            assert [name for name, _ in lost] == ["PeerLostError"] * 2
            assert max(when for _, when in lost) - since <= AT_ONCE
            assert ranks.line(0)[0] == "joins"
            seats(ranks.line(0), ranks, other)
            ranks.kill(1, signal.SIGCONT)
            assert [name for name, _ in ranks.line(1)] == ["FencedError"] * 2
            seats(other.results()[1], ranks, other)
        ranks.results()


def test_a_killed_rank_that_comes_again_waits_for_the_end_of_its_grace() -> None:
    """No pid to watch: the store cannot know that the holder is dead; the newcomer gets the next incarnation."""
    grace = 2.0
    with served() as server:
        ranks = Ranks("holds", 2, loop="mixed", at=server.address, programs=DYING, unwatched=True)
        with ranks.start(None, str(grace)):
            for rank in (0, 1):
                ranks.line(rank)
            killed = time.monotonic()
            ranks.kill(1)
            with again(server.address) as other:
                since = other.line(1)[1]
                assert since < killed + grace - 0.2, "this host is too slow for this test"
                lost = ranks.line(0)
                assert all(killed + grace - 0.01 <= when <= killed + grace + AT_ONCE for _, when in lost)
                ranks.line(0)
                assert seats(ranks.line(0), ranks, other) >= killed + grace
                other.results()
            ranks.results()


def test_a_rank_whose_holder_lives_is_refused_at_once() -> None:
    """Watched or not, a newcomer for a rank that is held gets RankConflictError, and the holder notices nothing."""
    with served() as server:
        ranks = Ranks("holds", 2, at=server.address, programs=DYING, unwatched=True)
        with ranks.start(None, "2.0"):
            for rank in (0, 1):
                ranks.line(rank)
            with again(server.address) as other:
                since = other.line(1)[1]
                name, rank, when = other.line(1)
                assert (name, rank) == ("RankConflictError", 1)
                assert when - since <= AT_ONCE
                other.results()
            assert all(process.poll() is None for process in ranks.processes.values())
