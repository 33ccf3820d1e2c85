"""Errors say what went before: the last happenings of the group, on every rank, as a field and as notes."""

from __future__ import annotations

import asyncio
import pickle
import traceback

from aiopg import AiopgError, AsyncStatelessGroup, CollectiveMismatchError, GroupTimeoutError, PeerLostError

from .conftest import Meeting


async def failure(call: object) -> AiopgError:
    """What a call fails with."""
    try:
        await call  # type: ignore[misc]
    except AiopgError as error:
        return error
    raise AssertionError("it did not fail")


async def test_every_rank_that_times_out_is_told_who_was_awaited_and_what_went_before(meeting: Meeting) -> None:
    """Also the last of them to give up, when the others have done so already."""
    groups = await meeting.form(8)
    await asyncio.gather(*(group.barrier() for group in groups))
    errors = await asyncio.gather(*(failure(group.barrier(timeout=0.3)) for group in groups if group.rank != 5))
    for error in errors:
        assert isinstance(error, GroupTimeoutError)
        assert error.missing == (5,)
        assert 1 <= len(error.trace) <= 8
        assert any(line.endswith(" s ago: rank 5, which is awaited, made its last call") for line in error.trace)
        assert any("came to barrier number 2 (tag 0)" in line for line in error.trace)
        assert str(error).startswith("barrier number 2 (tag 0) of group 'default' timed out after ")
        assert "\n" not in str(error)  # programs put it into sentences and log lines
        shown = "".join(traceback.format_exception_only(error)).splitlines()
        assert shown[1:] == [f"    {line}" for line in error.trace]
        assert error.fields()["trace"] == error.trace
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.trace, again.__notes__) == (str(error), error.trace, error.__notes__)
    await asyncio.gather(*(group.barrier() for group in groups))  # and the number was not used up


async def test_a_join_that_times_out_is_told_who_came(meeting: Meeting) -> None:
    """Who is there by then, and who that is."""
    error = await failure(AsyncStatelessGroup.connect(meeting.url, rank=1, world_size=3, store_timeout=0.3))
    assert isinstance(error, GroupTimeoutError)
    assert error.missing == (0, 2)
    assert len(error.trace) == 1
    assert " s ago: rank 1 joined (pid " in error.trace[0]


async def test_a_loss_is_told_with_what_went_before(meeting: Meeting) -> None:
    """To those who wait, and to those who call later."""
    a, b, c = await meeting.form(3)
    waiting = asyncio.create_task(failure(a.barrier()))
    await asyncio.sleep(0)
    await c.close()
    for error in (await waiting, await failure(b.barrier()), await failure(a.send(1, 2))):
        assert isinstance(error, PeerLostError)
        assert [line.partition(" s ago: ")[2] for line in error.trace] == ["rank 2 left: it left the group"]


async def test_a_mismatch_is_told_with_who_came_when(meeting: Meeting) -> None:
    """On all ranks."""
    a, b = await meeting.form(2)
    for error in await asyncio.gather(failure(a.barrier()), failure(b.all_gather(1))):
        assert isinstance(error, CollectiveMismatchError)
        came = sorted(line.partition(" s ago: ")[2] for line in error.trace)
        assert came == [f"rank {rank} came to collective number 1 (tag 0)" for rank in (0, 1)]


async def test_an_error_with_nothing_to_say_says_nothing(meeting: Meeting) -> None:
    """No line, and no note."""
    a, _ = await meeting.form(2)
    error = await failure(a.recv(1, timeout=0.05))
    assert error.trace == ()
    assert not hasattr(error, "__notes__")
