"""Promise 4: cancel is safe, everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, GroupTimeoutError

from .conftest import Meeting

Operation = Callable[[AsyncStatelessGroup], Awaitable[Any]]

N = 3


def expected_all(result: Callable[[int], Any]) -> list[Any]:
    return [result(rank) for rank in range(N)]


OPERATIONS: dict[str, tuple[Operation, list[Any]]] = {
    "barrier": (lambda g: g.barrier(), [None] * N),
    "broadcast": (lambda g: g.broadcast("b" if g.rank == 1 else None, 1), ["b"] * N),
    "all_gather": (lambda g: g.all_gather(g.rank), [[0, 1, 2]] * N),
    "gather": (lambda g: g.gather(g.rank, 1), [None, [0, 1, 2], None]),
    "scatter": (lambda g: g.scatter(["x", "y", "z"] if g.rank == 1 else None, 1), ["x", "y", "z"]),
    "all_to_all": (
        lambda g: g.all_to_all([(g.rank, to) for to in range(N)]),
        expected_all(lambda rank: [(src, rank) for src in range(N)]),
    ),
    "all_reduce": (lambda g: g.all_reduce(g.rank + 1), [6] * N),
    "reduce": (lambda g: g.reduce(g.rank + 1, 1), [None, 6, None]),
    "message": (lambda g: ring(g), [2, 0, 1]),
}


async def ring(group: AsyncStatelessGroup) -> Any:
    """Each rank sends its rank to the next and receives from the one before."""
    await group.send(group.rank, (group.rank + 1) % N)
    return await group.recv((group.rank - 1) % N)


async def send_only(group: AsyncStatelessGroup, value: int) -> None:
    await group.send(value, 1)


async def steps(count: int) -> None:
    """Let the loop make `count` passes."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancel_after(count: int, call: Awaitable[Any]) -> tuple[bool, Any]:
    """Run a call, cancel it after so many passes of the loop; whether it was done before that, and its result."""
    task = asyncio.ensure_future(call)
    await steps(count)
    if task.done():
        return True, task.result()
    task.cancel()
    try:
        return True, await task
    except asyncio.CancelledError:
        return False, None


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "message"])
async def test_a_collective_cancelled_at_any_step_and_called_again_is_right(meeting: Meeting, name: str) -> None:
    """Cancel one rank's call after 0, 1, 2, ... loop passes; called again it gives every rank the right answer."""
    operation, expected = OPERATIONS[name]
    groups = await meeting.form(N)
    for victim in range(N):
        for count in range(1000):
            others = [asyncio.ensure_future(operation(g)) for g in groups if g.rank != victim]
            done, result = await cancel_after(count, operation(groups[victim]))
            if not done:
                result = await operation(groups[victim])
            results = await asyncio.gather(*others)
            results.insert(victim, result)
            assert results == expected, (victim, count)
            if done:
                break
        assert count > 1, "the call was done before it could be cancelled"
    assert await asyncio.gather(*(g.all_gather(g.rank) for g in groups)) == [[0, 1, 2]] * N


@pytest.mark.parametrize("receiver_waits", [False, True])
async def test_a_send_cancelled_at_any_step_and_sent_again_arrives_once(meeting: Meeting, receiver_waits: bool) -> None:
    """A cancelled send that is called again arrives exactly once, in order, whoever was faster."""
    groups = await meeting.form(2)
    for count in range(1000):
        received = asyncio.ensure_future(groups[1].recv(0)) if receiver_waits else None
        await steps(20)
        done, _ = await cancel_after(count, groups[0].send(("a", count), 1))
        if not done:
            await groups[0].send(("a", count), 1)
        await groups[0].send(("end", count), 1)
        first = await received if received else await groups[1].recv(0)
        assert [first, await groups[1].recv(0)] == [("a", count), ("end", count)]
        if done:
            break
    assert count > 1


async def test_a_send_cancelled_and_not_called_again_arrives_at_most_once(meeting: Meeting) -> None:
    """A sender that moves on loses nothing else: what it sends next arrives, once."""
    groups = await meeting.form(2)
    for count in range(30):
        await cancel_after(count, groups[0].send(("given up", count), 1))
        await groups[0].send(("kept", count), 1)
        got = [await groups[1].recv(0)]
        if got[-1] != ("kept", count):
            got.append(await groups[1].recv(0))
        assert got in ([("kept", count)], [("given up", count), ("kept", count)])
    with pytest.raises(GroupTimeoutError):
        await groups[1].recv(0, timeout=0.05)


async def test_a_recv_cancelled_at_any_step_loses_nothing(meeting: Meeting) -> None:
    """A message on its way to a cancelled recv is what the next recv returns."""
    groups = await meeting.form(2)
    for count in range(1000):
        sent = asyncio.ensure_future(groups[0].send(count, 1))
        done, result = await cancel_after(count, groups[1].recv(0))
        if not done:
            result = await groups[1].recv(0)
        assert result == count
        await sent
        if done:
            break
    assert count > 1


async def test_two_receivers_never_swap_when_the_first_is_cancelled(meeting: Meeting) -> None:
    """Messages are handed out in the order of the calls that remain."""
    groups = await meeting.form(2)
    for count in range(40):
        first = asyncio.ensure_future(groups[1].recv(0))
        second = asyncio.ensure_future(groups[1].recv(0))
        await steps(5)
        sends = asyncio.gather(groups[0].send((count, 1), 1), groups[0].send((count, 2), 1))
        await steps(count)
        first.cancel()
        got = [await second]
        if not first.cancelled():
            got.insert(0, first.result())
        else:
            got.append(await groups[1].recv(0))
        await sends
        assert got == [(count, 1), (count, 2)]


async def test_a_join_cancelled_at_any_step_frees_its_rank(meeting: Meeting) -> None:
    """A rank whose join was cancelled can join again, and the group forms once with each rank."""
    for count in range(1000):
        name = f"group {count}"
        other = asyncio.ensure_future(meeting.connect(0, 2, group=name))
        done, group = await cancel_after(count, meeting.connect(1, 2, group=name))
        if not done:
            group = await meeting.connect(1, 2, group=name)
        first = await other
        assert await asyncio.gather(first.all_gather("a"), group.all_gather("b")) == [["a", "b"]] * 2
        await asyncio.gather(first.close(), group.close())
        if done:
            break
    assert count > 1


@pytest.mark.parametrize("name", list(OPERATIONS))
async def test_a_storm_of_cancels_ends_in_right_answers(meeting: Meeting, name: str) -> None:
    """Every rank cancelled again and again, at different steps, and still every call ends right."""
    operation, expected = OPERATIONS[name]
    groups = await meeting.form(N)

    async def stubborn(group: AsyncStatelessGroup, turn: int) -> Any:
        if name == "message":
            return await stubborn_ring(group, turn)
        for attempt in range(6):
            done, result = await cancel_after((turn * 7 + group.rank * 5 + attempt * 3) % 23, operation(group))
            if done:
                return result
        return await operation(group)

    for turn in range(25):
        assert await asyncio.gather(*(stubborn(group, turn) for group in groups)) == expected, turn


async def stubborn_ring(group: AsyncStatelessGroup, turn: int) -> Any:
    for attempt in range(6):
        done, _ = await cancel_after((turn + attempt) % 9, group.send(group.rank, (group.rank + 1) % N))
        if done:
            break
    else:
        await group.send(group.rank, (group.rank + 1) % N)
    for attempt in range(6):
        done, result = await cancel_after((turn * 3 + attempt) % 11, group.recv((group.rank - 1) % N))
        if done:
            return result
    return await group.recv((group.rank - 1) % N)
