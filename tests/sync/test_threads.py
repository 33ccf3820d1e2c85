"""A blocking group in one process: threads, life cycle, the loop thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aiopg import (
    GroupAbortedError,
    GroupClosedError,
    PeerLostError,
    StatelessGroup,
    StoreUnreachableError,
    WrongThreadError,
)
from tests.sync.processes import HOST, await_waiting, form_pair, together


def test_two_groups_in_threads_of_one_process_meet(pair: list[StatelessGroup]) -> None:
    """Two blocking groups in one process, one per thread, are two ranks like any others."""
    assert together(lambda: pair[0].all_gather("a"), lambda: pair[1].all_gather("b")) == [["a", "b"]] * 2
    pair[0].send({"x": 1}, 1)
    assert pair[1].recv(0) == {"x": 1}


def test_each_thread_waits_for_its_own_call(pair: list[StatelessGroup]) -> None:
    """Several threads may wait on one group at once; each gets what it asked for."""
    tags = range(8)

    def answer() -> None:
        await_waiting(pair[1], "recv", len(tags))
        for tag in reversed(tags):
            pair[0].send(f"for {tag}", 1, tag=tag)

    *received, _ = together(*(lambda tag=tag: pair[1].recv(0, tag=tag) for tag in tags), answer)
    assert received == [f"for {tag}" for tag in tags]


def test_calls_of_one_tag_from_many_threads_lose_nothing(pair: list[StatelessGroup]) -> None:
    """Threads that send and receive on one mailbox at once get every message, each once."""

    def send(first: int) -> None:
        for number in range(first, first + 25):
            pair[0].send(number, 1)

    def receive() -> list[int]:
        return [pair[1].recv(0) for _ in range(25)]

    results = together(*(lambda n=n: send(25 * n) for n in range(4)), *[receive] * 4)
    assert sorted(number for part in results[4:] for number in part) == list(range(100))


async def test_it_works_inside_a_running_event_loop(url: str) -> None:
    """In a notebook the caller's thread runs an event loop; the blocking calls do not need it."""
    first, second = form_pair(url)
    with second:
        first.send("x", 1)
        assert second.recv(0) == "x"
        first.close()


def test_a_call_that_waits_ends_when_another_thread_closes_the_group(pair: list[StatelessGroup]) -> None:
    """close() in one thread raises GroupClosedError in every thread that waits on the group."""

    def wait(call: Any) -> None:
        with pytest.raises(GroupClosedError):
            call()

    def close() -> None:
        await_waiting(pair[0], "recv")
        await_waiting(pair[0], "barrier")
        pair[0].close()

    together(lambda: wait(lambda: pair[0].recv(1)), lambda: wait(pair[0].barrier), close)


def test_calls_that_race_with_close_end(url: str) -> None:
    """However a call and close() meet, the call ends, and with GroupClosedError if it was too late."""
    for number in range(20):
        first, second = form_pair(url, f"race {number}")

        def send_on(first: StatelessGroup = first) -> None:
            while True:
                first.send("x", 1)

        def call(send_on: Callable[[], None] = send_on) -> None:
            with pytest.raises(GroupClosedError):
                send_on()

        def close(first: StatelessGroup = first, second: StatelessGroup = second) -> None:
            second.recv(0)
            first.close()

        together(call, call, close)
        second.close()


def test_closing_twice_is_fine(pair: list[StatelessGroup]) -> None:
    """close() of a closed group does nothing, from any thread."""
    together(pair[0].close, pair[0].close)
    pair[0].close()
    with pytest.raises(PeerLostError, match="left"):
        pair[1].recv(0)


def test_no_thread_is_left_after_close(url: str) -> None:
    """close() ends the group's loop thread before it returns."""
    before = threading.active_count()
    groups = form_pair(url)
    assert threading.active_count() == before + 2
    for group in groups:
        group.close()
    assert threading.active_count() == before


def test_a_group_that_could_not_be_made_leaves_no_thread(port: int) -> None:
    """A constructor that raises has ended its loop thread."""
    before = threading.active_count()
    for make in (StatelessGroup.connect, lambda url, **place: StatelessGroup(store=url, **place)):
        with pytest.raises(StoreUnreachableError):
            make(f"aiopg://{HOST}:{port}", rank=0, world_size=1, store_timeout=0.1)
    assert threading.active_count() == before


def test_many_groups_one_after_another_leak_nothing(port: int) -> None:
    """Threads and file descriptors are where they were after any number of groups."""

    def cycle() -> tuple[int, int]:
        with StatelessGroup.create(HOST, port, 0, 1, store_host="thread") as group:
            group.barrier()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    first = cycle()
    assert [cycle() for _ in range(20)] == [first] * 20


def test_a_call_from_the_loop_thread_is_refused(pair: list[StatelessGroup]) -> None:
    """A reduce function runs on the group's loop: a blocking call from there would wait for itself."""
    group, peer = pair
    refused: list[str] = []

    def reduce(a: int, b: int) -> int:
        calls = (group.barrier, group.close, group.pending, lambda: group.recv(1), lambda: group.subgroup([0]))
        for call in calls:
            with pytest.raises(WrongThreadError, match="own event loop") as caught:
                call()
            refused.append(str(caught.value))
        return a + b

    results = together(lambda: group.all_reduce(1, reduce), lambda: peer.all_reduce(2, _reduce_like(reduce)))
    assert results == [3, 3]
    assert len(refused) == 5
    together(group.barrier, peer.barrier)


def _reduce_like(reduce: Any) -> Any:
    def plus(a: int, b: int) -> int:
        return a + b

    plus.__qualname__ = reduce.__qualname__  # which is what the ranks compare
    return plus


def test_what_a_reduce_function_raises_reaches_the_caller(pair: list[StatelessGroup]) -> None:
    """An error of the caller's own function is raised as it is, and the group goes on."""

    def reduce(a: int, b: int) -> int:
        raise ZeroDivisionError(a, b)

    def call(group: StatelessGroup) -> None:
        with pytest.raises(ZeroDivisionError):
            group.all_reduce(1, reduce)
        group.barrier()

    together(lambda: call(pair[0]), lambda: call(pair[1]))


def test_an_exception_that_leaves_the_block_aborts_the_group(pair: list[StatelessGroup]) -> None:
    """The other ranks learn what ended a rank's `with` block; leaving it by sys.exit is no different."""
    with pytest.raises(SystemExit), pair[0]:
        raise SystemExit("no more")
    with pytest.raises(GroupAbortedError, match="SystemExit: no more"):
        pair[1].barrier()
    with pytest.raises(GroupClosedError):
        pair[0].barrier()


def test_a_subgroup_is_a_blocking_group_too(pair: list[StatelessGroup]) -> None:
    """subgroup() gives a group with its own order of ranks, on the same loop thread."""
    before = threading.active_count()
    first, second = together(lambda: pair[0].subgroup([1, 0]), lambda: pair[1].subgroup([1, 0]))
    assert threading.active_count() == before
    assert (first.rank, second.rank) == (1, 0)
    assert together(lambda: first.all_gather("a"), lambda: second.all_gather("b")) == [["b", "a"]] * 2
    first.close()
    with pytest.raises(PeerLostError):
        second.recv(1)
    together(pair[0].barrier, pair[1].barrier)
    second.close()


def test_a_subgroup_ends_with_the_loop_of_its_parent(pair: list[StatelessGroup]) -> None:
    """A subgroup whose parent was closed first raises GroupClosedError; closing it is fine."""
    first, second = together(lambda: pair[0].subgroup([0, 1]), lambda: pair[1].subgroup([0, 1]))
    pair[0].close()
    with pytest.raises(GroupClosedError):
        first.barrier()
    first.close()
    second.close()


def test_its_text_says_what_it_is(pair: list[StatelessGroup]) -> None:
    """repr() names the class, the place and the store."""
    assert repr(pair[0]).startswith("<StatelessGroup 'default' rank 0 of 2, incarnation ")
    pair[0].close()
    assert "closed" in repr(pair[0])
