"""Large objects: they are encoded and decoded in a thread, and nobody notices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, GroupTimeoutError, Limits, Outcome, PayloadTooLargeError, StoreServer
from aiopg.codec import MsgpackCodec
from aiopg.errors import CodecError
from tests.ages import ageless

from .conftest import Meeting, all_ranks

MIB = 2**20
LARGE = bytes(range(256)) * (5 * MIB // 256)


def large(number: int) -> bytes:
    """One of several large objects."""
    return LARGE + bytes([number])


class Gate:
    """A codec that waits, in its thread, before it encodes or decodes what is large."""

    name = "gate"

    def __init__(self) -> None:
        self._codec = MsgpackCodec()
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.threads: set[threading.Thread] = set()

    def encode(self, obj: object) -> bytes:
        return self._codec.encode(obj)

    def encode_large(self, obj: object) -> Any:
        self._pass()
        return self._codec.encode_large(obj)

    def decode(self, payload: Any) -> object:
        if len(payload) > MIB:
            self._pass()
        return self._codec.decode(payload)

    def _pass(self) -> None:
        self.threads.add(threading.current_thread())
        self.entered.release()
        assert self.open.wait(20)

    async def someone(self) -> None:
        """Wait until somebody stands before it."""
        await asyncio.to_thread(self.entered.acquire)


async def test_every_operation_carries_large_objects(meeting: Meeting) -> None:
    """Whole, at the right ranks."""
    groups = await meeting.form(3)
    calls: dict[str, tuple[Callable[[AsyncStatelessGroup], Any], list[Any]]] = {
        "broadcast": (lambda g: g.broadcast(large(1) if g.rank == 1 else None, 1), [large(1)] * 3),
        "all_gather": (lambda g: g.all_gather(large(g.rank)), [[large(0), large(1), large(2)]] * 3),
        "gather": (lambda g: g.gather(large(g.rank), 2), [None, None, [large(0), large(1), large(2)]]),
        "scatter": (lambda g: g.scatter([large(0), 1, 2] if g.rank == 0 else None), [large(0), 1, 2]),
        "all_to_all": (
            lambda g: g.all_to_all([large(g.rank), g.rank, None]),
            [[large(0), large(1), large(2)], [0, 1, 2], [None] * 3],
        ),
    }
    for call, expected in calls.values():
        assert await all_ranks(groups, call) == expected


async def test_sends_arrive_in_call_order_whatever_their_sizes(meeting: Meeting) -> None:
    """A small one that is called while a large one is encoded does not overtake it; one with another tag may."""
    gate = Gate()
    a, _ = await asyncio.gather(meeting.connect(0, 2, codec=gate), meeting.connect(1, 2))
    b = meeting._groups[-1] if meeting._groups[-1].rank == 1 else meeting._groups[-2]
    sent: list[Any] = [large(1), "small", large(2), "last"]
    async with asyncio.TaskGroup() as tasks:
        for obj in sent:
            tasks.create_task(a.send(obj, 1))
        await gate.someone()
        await a.send("beside", 1, tag="other")
        assert await b.recv(0, tag="other") == "beside"
        assert [call.seq for call in a.pending()] == [1, 2, 3, 4]
        gate.open.set()
        assert [await b.recv(0) for _ in sent] == sent
    assert threading.main_thread() not in gate.threads


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_call_that_ends_while_it_is_encoded_leaves_no_trace(meeting: Meeting, how: str) -> None:
    """Nothing is sent, later sends go on, and the call that is called again is the same one."""
    gate = Gate()
    a, b = await asyncio.gather(meeting.connect(0, 2, codec=gate), meeting.connect(1, 2))
    timeout = 0.2 if how == "timed out" else 20.0
    calls: list[Callable[[], Any]] = [
        lambda: a.send(LARGE, 1, timeout=timeout),
        lambda: a.all_gather(LARGE, timeout=timeout),
    ]
    for call in calls:
        task = asyncio.create_task(call())
        await gate.someone()
        if how == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(GroupTimeoutError) as caught:
                await task
            assert caught.value.outcome is Outcome.NOT_APPLIED
        assert a.pending() == ()
    await a.send("next", 1)
    assert await b.recv(0) == "next"
    gate.open.set()
    assert await all_ranks([a, b], lambda g: g.all_gather(g.rank)) == [[0, 1]] * 2
    assert [call for call, _ in a.entries] == ["send to 1, tag 0", "all_gather, tag 0"]


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_call_that_ends_while_it_is_decoded_loses_nothing(meeting: Meeting, how: str) -> None:
    """The message is the next recv's, and what the round came to is the next call's, which is the same call again."""
    gate = Gate()
    a, b = await asyncio.gather(meeting.connect(0, 2), meeting.connect(1, 2, codec=gate))
    timeout = 1.0 if how == "timed out" else 20.0
    await a.send(large(1), 1)
    await a.send("small", 1)
    await a.broadcast(large(2), 0)
    await a.broadcast("small", 0)
    calls: list[Callable[[], Any]] = [
        lambda: b.recv(0, timeout=timeout),
        lambda: b.broadcast(None, 0, timeout=timeout),
    ]
    for call in calls:
        task = asyncio.create_task(call())
        await gate.someone()
        if how == "cancelled":
            task.cancel()
        with pytest.raises((asyncio.CancelledError, GroupTimeoutError)):
            await task
        assert b.pending() == ()
    gate.open.set()
    assert [await b.recv(0), await b.recv(0)] == [large(1), "small"]
    assert [await b.broadcast(None, 0), await b.broadcast(None, 0)] == [large(2), "small"]


async def test_another_call_after_one_that_was_decoded_and_cancelled_is_the_next_one(meeting: Meeting) -> None:
    """As where a small one was decided before its withdrawal came there: the others have theirs."""
    gate = Gate()
    a, b = await asyncio.gather(meeting.connect(0, 2), meeting.connect(1, 2, codec=gate))
    await a.broadcast(LARGE, 0)
    task = asyncio.create_task(b.broadcast(None, 0))
    await gate.someone()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.gather(a.barrier(), b.barrier())
    gate.open.set()


async def test_a_message_that_is_given_back_wakes_who_waits_for_the_next(meeting: Meeting) -> None:
    """It is the next recv's, also if that waited already."""
    gate = Gate()
    a, b = await asyncio.gather(meeting.connect(0, 2), meeting.connect(1, 2, codec=gate))
    first, second = (asyncio.create_task(b.recv(0)) for _ in range(2))
    await a.send(LARGE, 1)
    await gate.someone()
    first.cancel()
    gate.open.set()
    assert await second == LARGE
    assert first.cancelled()


async def test_a_large_send_that_is_cancelled_and_called_again_arrives_once(meeting: Meeting) -> None:
    """At whatever moment it was cancelled."""
    a, b = await meeting.form(2)
    for delay in (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1):
        receiving = asyncio.create_task(b.recv(0))
        sending = asyncio.create_task(a.send(LARGE, 1))
        await asyncio.sleep(delay)
        sending.cancel()
        await asyncio.wait([sending])
        if sending.cancelled():
            await a.send(LARGE, 1)
        assert await receiving == LARGE
        await a.send("end", 1)
        assert await b.recv(0) == "end"


async def test_a_payload_over_the_limit_is_refused_by_the_sender(no_task_left: None) -> None:
    """Before a byte of it is sent; the group goes on, and no number was used."""
    async with StoreServer(limits=Limits(payload_bytes=6 * MIB)) as server:
        meeting = Meeting(server.address)
        a, b = await meeting.form(2)
        before = server.describe()
        for call in (a.send(LARGE * 2, 1), a.all_gather(LARGE * 2), a.scatter([LARGE, LARGE])):
            with pytest.raises(PayloadTooLargeError) as caught:
                await call
            assert caught.value.limit == 6 * MIB
        assert ageless(server.describe()) == ageless(before)
        await a.send(LARGE, 1)
        assert await b.recv(0) == LARGE
        assert await all_ranks([a, b], lambda g: g.all_gather(g.rank)) == [[0, 1]] * 2
        await meeting.close()


async def test_a_large_object_that_cannot_be_encoded_is_refused(meeting: Meeting) -> None:
    """And leaves no trace."""
    a, b = await meeting.form(2)
    with pytest.raises(CodecError):
        await a.all_gather([LARGE, object()])
    with pytest.raises(CodecError):
        await a.send([LARGE, object()], 1)
    assert await all_ranks([a, b], lambda g: g.all_gather(g.rank)) == [[0, 1]] * 2
