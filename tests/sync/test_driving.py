"""Callers that run the loop of a `LoopThread` themselves while they wait."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from types import FrameType
from typing import Any

import pytest

from aiopg import loops
from aiopg.loops import LoopThread
from tests.sync.processes import LONG, together, until


async def where() -> int:
    """The thread that runs the loop."""
    return threading.get_ident()


def runs_here(thread: LoopThread) -> bool:
    """Whether a call of the caller's is run by the caller's thread."""
    return thread.call(where) == threading.get_ident()


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    """One whose callers run the loop."""
    yield from _lending()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopThread]:
    """The same, where the loop's own thread does not come again when the test is slow."""
    monkeypatch.setattr(loops, "IDLE_SECONDS", 2.0)
    yield from _lending()


def _lending() -> Iterator[LoopThread]:
    made = LoopThread("aiopg test")
    made.lends = True
    until(lambda: runs_here(made))
    yield made
    made.stop()


class Wait:
    """A call that waits until it is told to end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.ran_in = 0
        self._end = asyncio.Event()

    async def __call__(self) -> str:
        self.ran_in = threading.get_ident()
        self.begun.set()
        try:
            await self._end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "ended"

    async def end(self) -> None:
        """To be called on the same loop."""
        self._end.set()


@pytest.fixture
def on_usr1() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what SIGUSR1 does."""
    before = signal.getsignal(signal.SIGUSR1)

    def set_handler(act: Callable[[], object]) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            act()

        signal.signal(signal.SIGUSR1, handle)

    yield set_handler
    signal.signal(signal.SIGUSR1, before)


def signal_when(begun: threading.Event) -> threading.Thread:
    """Send SIGUSR1 to this process when that has happened."""

    def send() -> None:
        assert begun.wait(LONG)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    return sender


def test_the_thread_runs_what_was_left_on_the_loop_when_no_call_comes(thread: LoopThread) -> None:
    """Timers and sockets are served between calls, with nobody calling."""
    rung = threading.Event()

    async def set_timer() -> None:
        asyncio.get_running_loop().call_later(0.05, rung.set)

    thread.call(set_timer)
    assert rung.wait(LONG)


def test_the_loop_is_served_after_a_long_call(patient: LoopThread) -> None:
    """The thread, which slept while a caller ran the loop for long, comes again."""
    rung = threading.Event()

    async def wait_and_set_timer() -> int:
        await asyncio.sleep(0.2)
        asyncio.get_running_loop().call_later(0.05, rung.set)
        return threading.get_ident()

    assert patient.call(wait_and_set_timer) == threading.get_ident()
    assert rung.wait(LONG)


def test_who_does_not_lend_runs_every_call_in_its_thread(patient: LoopThread) -> None:
    """A loop that serves others all the time is never left alone."""
    patient.lends = False
    assert not any(runs_here(patient) for _ in range(20))


def test_a_call_is_served_by_another_caller_who_waits(thread: LoopThread) -> None:
    """While one thread waits in the loop, those of others begin and end."""
    wait = Wait()

    def call_twice() -> list[int]:
        assert wait.begun.wait(LONG)
        return [thread.call(where), together(lambda: thread.call(wait.end))[0] or thread.call(where)]

    ended, _ = together(lambda: thread.call(wait), call_twice)
    assert ended == "ended"


def test_a_call_that_waits_is_served_when_the_caller_who_ran_the_loop_leaves(thread: LoopThread) -> None:
    """The thread takes over for those who are left."""
    first, second = Wait(), Wait()

    def call_second() -> str:
        assert first.begun.wait(LONG)
        return thread.call(second)

    def end_both() -> None:
        assert second.begun.wait(LONG)
        thread.call(first.end)
        thread.call(second.end)

    assert together(lambda: thread.call(first), call_second, end_both) == ["ended", "ended", None]


def test_many_callers_at_once_all_get_their_answers(thread: LoopThread) -> None:
    """However the turns fall, each call ends with its own result."""

    def count(first: int) -> list[int]:
        async def same(number: int) -> int:
            await asyncio.sleep(0)
            return number

        return [thread.call(lambda number=number: same(number)) for number in range(first, first + 200)]  # type: ignore[misc]

    results = together(*(lambda first=first: count(first) for first in range(0, 1000, 200)))
    assert results == [list(range(first, first + 200)) for first in range(0, 1000, 200)]


async def test_inside_a_running_loop_the_thread_runs_the_call(patient: LoopThread) -> None:
    """Two loops cannot run in one thread, and the caller's is the first."""
    assert not runs_here(patient)
    assert not runs_here(patient)


def test_near_the_recursion_limit_the_thread_runs_the_call(patient: LoopThread) -> None:
    """A RecursionError in the middle of a connection's work would lose what it had in hand."""

    def deep(levels: int) -> bool:
        return deep(levels - 1) if levels else runs_here(patient)

    assert not deep(sys.getrecursionlimit() - 150)


def test_what_a_handler_raises_cancels_the_call(
    patient: LoopThread, on_usr1: Callable[[Callable[[], object]], None]
) -> None:
    """It is raised by the call, which is taken back before the next one begins."""
    wait = Wait()

    def act() -> None:
        raise OSError("usr1")

    on_usr1(act)
    sender = signal_when(wait.begun)
    with pytest.raises(OSError, match="usr1"):
        patient.call(wait)

    async def is_cancelled() -> bool:
        return wait.cancelled.is_set()

    assert patient.call(is_cancelled)
    assert wait.ran_in == threading.get_ident()
    sender.join()
    until(lambda: runs_here(patient))


def test_a_handler_that_returns_lets_the_call_wait_on(
    patient: LoopThread, on_usr1: Callable[[Callable[[], object]], None]
) -> None:
    """And it may call there itself: the loop goes on without the thread that it interrupted."""
    wait = Wait()
    on_usr1(lambda: patient.call(wait.end))
    sender = signal_when(wait.begun)
    assert patient.call(wait) == "ended"
    assert wait.ran_in == threading.get_ident()
    sender.join()


def test_a_call_ends_when_the_loop_is_ended_by_another_thread(patient: LoopThread) -> None:
    """stop() does not wait for the caller who runs the loop."""
    wait = Wait()

    def stop() -> None:
        assert wait.begun.wait(LONG)
        patient.stop()

    def call() -> None:
        with pytest.raises(CancelledError):
            patient.call(wait)

    together(call, stop)
    assert wait.cancelled.is_set()
    with pytest.raises(CancelledError):
        patient.call(where)


def test_what_ends_the_program_leaves_the_loop_usable(patient: LoopThread) -> None:
    """SystemExit, raised by code that runs on the loop, is raised by the call."""

    async def leave() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        patient.call(leave)
    assert runs_here(patient)


def test_an_error_is_raised_as_it_is_and_kept_by_nobody(patient: LoopThread) -> None:
    """What an error holds is free when the error is, without the garbage collector."""
    import gc
    import weakref

    class Thing:
        pass

    class ThingError(Exception):
        def __init__(self, thing: Thing) -> None:
            self.thing = thing

    async def fail() -> Any:
        raise ThingError(Thing())

    gc.disable()
    try:
        with pytest.raises(ThingError) as caught:
            patient.call(fail)
        thing = weakref.ref(caught.value.thing)
        del caught
        until(lambda: thing() is None)
    finally:
        gc.enable()
