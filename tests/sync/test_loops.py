"""The loop thread under every blocking group."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future

import pytest

from aiopg.loops import LoopThread, fast_loop
from tests.sync.processes import LONG


async def answer() -> int:
    """A coroutine that ends at once."""
    return 42


def test_a_coroutine_runs_there_and_gives_its_result() -> None:
    """submit() gives a future of the coroutine's result, run in the thread."""
    thread = LoopThread("aiopg test")

    async def where() -> bool:
        return thread.is_current

    assert thread.submit(where()).result(LONG)
    assert not thread.is_current
    thread.stop()


def test_what_a_call_raises_before_its_coroutine_is_there_is_its_error() -> None:
    """A function that cannot even make its coroutine fails its call, and nothing else."""
    thread = LoopThread("aiopg test")
    future: Future[int] = Future()
    thread.start(lambda: answer("too much"), future)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        future.result(LONG)
    assert thread.submit(answer()).result(LONG) == 42
    thread.stop()


def test_cancelling_the_future_cancels_the_coroutine() -> None:
    """Who no longer waits takes the call back."""
    thread = LoopThread("aiopg test")
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    future = thread.submit(wait())
    assert begun.wait(LONG)
    assert future.cancel()
    assert ended.wait(LONG)
    thread.stop()


def test_a_call_that_is_cancelled_before_it_began_does_not_begin() -> None:
    """A future that was cancelled on the way runs nothing."""
    thread = LoopThread("aiopg test")
    made: list[int] = []

    async def make() -> None:
        made.append(1)

    future: Future[None] = Future()
    future.cancel()
    thread.start(make, future)
    assert thread.submit(answer()).result(LONG) == 42
    assert made == []
    thread.stop()


def test_no_call_is_left_waiting_when_the_loop_ends() -> None:
    """Calls that wait when the loop ends, and calls that come later, are cancelled."""
    thread = LoopThread("aiopg test")

    async def wait() -> None:
        await asyncio.Event().wait()

    waiting = thread.submit(wait())
    thread.stop()
    late = thread.submit(answer())
    for future in (waiting, late):
        with pytest.raises(CancelledError):
            future.result(LONG)
    thread.stop()


def test_calls_that_race_with_the_end_of_the_loop_end() -> None:
    """A call that is handed over in the loop's last moment ends as well."""
    for _ in range(50):
        thread = LoopThread("aiopg test")
        stopper = threading.Thread(target=thread.stop)
        stopper.start()
        futures: list[Future[int]] = []
        while not futures or not futures[-1].cancelled():
            futures.append(Future())
            thread.start(answer, futures[-1])
        stopper.join()
        assert all(future.cancelled() or future.result(LONG) == 42 for future in futures)


def test_the_fast_loop_is_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop is an extra: without it the factory is None and asyncio's own loop is used."""
    factory = fast_loop()
    assert factory is not None
    assert factory.__module__.startswith("uvloop")
    monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    assert fast_loop() is None


def test_a_call_that_comes_in_the_last_moment_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over when the loop runs no more, and is not closed yet, is cancelled."""
    thread = LoopThread("aiopg test")
    late: Future[int] = Future()
    close = thread._loop.close

    def hand_over_and_close() -> None:
        thread.start(answer, late)
        close()

    monkeypatch.setattr(thread._loop, "close", hand_over_and_close)
    thread.stop()
    assert late.cancelled()
