"""Promise 3: a deadline is a deadline, and the error names who is missing."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, GroupTimeoutError, Outcome
from aiopg.stores import _calls

from .conftest import Meeting, all_ranks
from .test_cancel import steps

LATE = 0.1 * float(os.environ.get("AIOPG_TEST_SLOW", "1"))
"""Promise 3: a call ends within 100 ms of its deadline; on a busy host AIOPG_TEST_SLOW stretches it."""

ALL_NEEDED: dict[str, Callable[[AsyncStatelessGroup], Awaitable[Any]]] = {
    "barrier": lambda g: g.barrier(timeout=0.3),
    "all_gather": lambda g: g.all_gather(1, timeout=0.3),
    "all_to_all": lambda g: g.all_to_all([1, 2, 3], timeout=0.3),
    "all_reduce": lambda g: g.all_reduce(1, timeout=0.3),
}
ROOT_NEEDED: dict[str, Callable[[AsyncStatelessGroup], Awaitable[Any]]] = {
    "broadcast": lambda g: g.broadcast(None, 1, timeout=0.3),
    "scatter": lambda g: g.scatter(None, 1, timeout=0.3),
    "recv": lambda g: g.recv(1, timeout=0.3),
}


async def timed_out(call: Awaitable[Any]) -> GroupTimeoutError:
    """The error of a call with a deadline of 0.3 s, which it kept."""
    started = time.monotonic()
    with pytest.raises(GroupTimeoutError) as caught:
        await call
    assert 0.29 <= time.monotonic() - started <= 0.3 + LATE
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.outcome is Outcome.NOT_APPLIED
    return caught.value


@pytest.mark.parametrize("op", list(ALL_NEEDED))
async def test_a_collective_names_who_arrived_and_who_is_missing(meeting: Meeting, op: str) -> None:
    """Whatever the store_timeout, the call ends by its own deadline; fields and text name the absent rank."""
    groups = await meeting.form(3, store_timeout=60.0)
    first, last = await asyncio.gather(timed_out(ALL_NEEDED[op](groups[0])), timed_out(ALL_NEEDED[op](groups[2])))
    for error, rank in ((first, 0), (last, 2)):
        assert (error.op, error.group, error.tag, error.seq) == (op, "default", 0, 1)
        assert rank in (error.arrived or ())
        # Both give up at the same moment, and each names the rank that never came, not the other one.
        assert error.missing == (1,)
        assert "rank 1" in str(error)


@pytest.mark.parametrize("op", list(ROOT_NEEDED))
async def test_a_call_that_needs_one_rank_names_it(meeting: Meeting, op: str) -> None:
    """broadcast, scatter and recv wait for one rank, and name it alone."""
    groups = await meeting.form(3, store_timeout=60.0)
    error = await timed_out(ROOT_NEEDED[op](groups[0]))
    assert error.missing == (1,)
    assert "rank 1" in str(error)


async def test_a_join_names_the_ranks_that_did_not_come(meeting: Meeting) -> None:
    """Forming a group ends by store_timeout and names who is missing; who comes later finds a free rank."""
    with pytest.raises(GroupTimeoutError) as caught:
        await meeting.connect(0, 3, store_timeout=0.3)
    assert (caught.value.op, caught.value.arrived, caught.value.missing) == ("join", (0,), (1, 2))
    groups = await meeting.form(3)
    assert await all_ranks(groups, lambda g: g.all_gather(g.rank)) == [[0, 1, 2]] * 3


async def test_polling_a_barrier_succeeds_when_the_late_rank_comes(meeting: Meeting) -> None:
    """An arrival that timed out is not counted, and calling again is the same call again."""
    groups = await meeting.form(3)
    numbers: list[int] = []

    async def poll(group: AsyncStatelessGroup) -> None:
        while True:
            try:
                return await group.barrier(timeout=0.2)
            except GroupTimeoutError as error:
                numbers.append(error.seq)
                if len(numbers) == 4:
                    late.set()

    async def come_late() -> None:
        await late.wait()
        await groups[1].barrier()

    late = asyncio.Event()
    await asyncio.gather(poll(groups[0]), poll(groups[2]), come_late())
    assert set(numbers) == {1}
    assert await all_ranks(groups, lambda g: g.all_gather(g.rank)) == [[0, 1, 2]] * 3


async def test_a_phantom_is_never_counted(meeting: Meeting) -> None:
    """A barrier that one rank gave up is not passed by the other alone."""
    groups = await meeting.form(2)
    await timed_out(groups[0].barrier(timeout=0.3))
    await timed_out(groups[1].barrier(timeout=0.3))


async def test_timeouts_around_a_call_work_like_its_own(meeting: Meeting) -> None:
    """asyncio.timeout round any call ends it in time, and the call can be made again."""
    groups = await meeting.form(2)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await groups[0].all_gather("a")
    assert list(await asyncio.gather(groups[0].all_gather("a"), groups[1].all_gather("b"))) == [["a", "b"]] * 2


async def test_without_a_deadline_a_call_waits(meeting: Meeting) -> None:
    """timeout=math.inf is no deadline."""
    groups = await meeting.form(2)
    waiting = asyncio.ensure_future(groups[0].recv(1, timeout=math.inf))
    await steps(10)
    assert [call.op for call in groups[0].pending()] == ["recv"]
    assert groups[0].pending()[0].remaining == math.inf
    await groups[1].send("late", 0)
    assert await waiting == "late"
    assert groups[0].pending() == ()


async def test_waiting_for_long_is_logged_again_and_again(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that waits for long says so in the log, with the facts its timeout would have."""
    monkeypatch.setattr(_calls, "WARN_SECONDS", 0.1)
    monkeypatch.setattr(_calls, "WARN_AGAIN_SECONDS", 0.2)
    groups = await meeting.form(3)
    with caplog.at_level(logging.WARNING, logger="aiopg.group"), pytest.raises(GroupTimeoutError):
        await groups[0].barrier(timeout=0.45)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert all("barrier number 1 (tag 0) of group 'default' waits at rank 0" in text for text in texts)
    assert all("missing: [1, 2]; arrived: [0]" in text for text in texts)
