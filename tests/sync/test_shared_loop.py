"""The loop under a blocking group or store: whoever waits runs it, and else its own thread does."""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import pytest

from aiopg.sync._shared_loop import OwnLoopError, SharedLoop
from tests.sync.processes import LONG, together


@pytest.fixture
def shared() -> Iterator[SharedLoop]:
    """One, which is stopped behind the test."""
    loop = SharedLoop("aiopg test")
    yield loop
    loop.stop()


async def thread_name() -> str:
    """Of the thread that runs the loop."""
    return threading.current_thread().name


def waits(
    count: int,
) -> tuple[list[threading.Event], list[asyncio.Event], Callable[[int], Callable[[], Coroutine[Any, Any, int]]]]:
    """Events that say that a call has begun, events that it waits for, and what makes the call."""
    begun = [threading.Event() for _ in range(count)]
    gates = [asyncio.Event() for _ in range(count)]

    def call(number: int) -> Callable[[], Coroutine[Any, Any, int]]:
        async def wait() -> int:
            begun[number].set()
            await gates[number].wait()
            return number

        return wait

    return begun, gates, call


async def opened(gate: asyncio.Event) -> None:
    """Open a gate, on its loop."""
    gate.set()


def test_who_calls_runs_the_loop(shared: SharedLoop) -> None:
    """No switch of threads: the coroutine runs where the call was made."""
    for _ in range(3):
        assert shared.run(thread_name) == threading.current_thread().name


def test_a_call_in_a_running_loop_is_handed_over(shared: SharedLoop) -> None:
    """A thread in which an event loop runs (a notebook's) runs no second one."""

    async def main() -> str:
        return shared.run(thread_name)

    assert asyncio.run(main()) == "aiopg test"


def test_a_pinned_loop_stays_in_its_thread(shared: SharedLoop) -> None:
    """What serves others on it does so between calls too."""
    shared.pin()
    assert shared.run(thread_name) == "aiopg test"


def test_what_is_due_between_calls_happens(shared: SharedLoop) -> None:
    """A loop that was left alone is run by its own thread."""
    rang = threading.Event()

    async def set_alarm() -> None:
        asyncio.get_running_loop().call_later(0.05, rang.set)

    shared.run(set_alarm)
    assert rang.wait(LONG)


def test_a_call_goes_on_when_who_runs_the_loop_has_what_it_wanted(shared: SharedLoop) -> None:
    """Of two that wait one runs the loop; when that one ends first, the other's call does not stand still."""
    begun, gates, call = waits(2)
    futures: list[Future[int]] = [Future(), Future()]

    def wait(number: int) -> None:
        futures[number].set_result(shared.run(call(number)))

    threads = [threading.Thread(target=wait, args=(number,), daemon=True) for number in (0, 1)]
    for number in (0, 1):
        threads[number].start()
        assert begun[number].wait(LONG)
    for number in (0, 1):
        shared.submit(opened(gates[number])).result(LONG)
        assert futures[number].result(LONG) == number
        threads[number].join(LONG)


def test_calls_of_many_threads_all_end(shared: SharedLoop) -> None:
    """However calls meet, at once or with pauses between them, each gets its own result."""
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")

    def call_on(number: int) -> int:
        draw = random.Random(f"{seed}/{number}")
        for turn in range(300):
            seconds = draw.choice([0.0, 0.0, 0.0, 0.0001, 0.001])

            async def answer(seconds: float = seconds, expected: tuple[int, int] = (number, turn)) -> tuple[int, int]:
                if seconds:
                    await asyncio.sleep(seconds)
                return expected

            assert shared.run(answer) == (number, turn)
            if draw.random() < 0.05:
                time.sleep(draw.choice([0.001, 0.011, 0.025]))
        return number

    assert together(*(lambda n=n: call_on(n) for n in range(4))) == [0, 1, 2, 3]


def test_a_call_that_meets_the_end_of_a_turn_is_not_forgotten(
    shared: SharedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed over just before the turn is given back, or just behind that: the loop's own thread is told at once."""
    monkeypatch.setattr("aiopg.sync._shared_loop.LULL_SECONDS", 1000.0)
    give_turn = shared._give_turn
    before: Future[str] = Future()
    behind: Future[str] = Future()

    def hand_over_and_give() -> None:
        shared.start(thread_name, before)
        give_turn()

    with monkeypatch.context() as patched:
        patched.setattr(shared, "_give_turn", hand_over_and_give)
        shared.run(thread_name)
    assert before.result(LONG)
    shared.run(thread_name)
    shared.start(thread_name, behind)
    assert behind.result(LONG) == "aiopg test"


def test_what_a_coroutine_raises_is_raised(shared: SharedLoop) -> None:
    """Errors of the call, of what cannot even make it, and what ends a program; the loop goes on."""

    async def fail(error: BaseException) -> None:
        raise error

    for error in (ZeroDivisionError("x"), SystemExit(3), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            shared.run(partial(fail, error))
        assert caught.value is error
    with pytest.raises(TypeError):
        shared.run(lambda: fail())  # type: ignore[call-arg]
    assert shared.run(thread_name) == threading.current_thread().name


def test_a_call_ends_when_the_loop_is_stopped() -> None:
    """By another thread, while the call's thread runs the loop; and every later call too."""
    shared = SharedLoop("aiopg test")
    begun, _, call = waits(1)

    def wait() -> None:
        with pytest.raises(CancelledError):
            shared.run(call(0))

    def stop() -> None:
        assert begun[0].wait(LONG)
        shared.stop()

    together(wait, stop)
    with pytest.raises(CancelledError):
        shared.run(thread_name)


def test_a_loop_may_be_stopped_while_calls_come(shared: SharedLoop) -> None:
    """Whatever moment stop() meets, each call ends, and the thread too."""
    for _ in range(30):
        loop = SharedLoop("aiopg race")

        def call_on(loop: SharedLoop = loop) -> int:
            count = 0
            while True:
                try:
                    loop.run(thread_name)
                except CancelledError:
                    return count
                count += 1

        def stop(loop: SharedLoop = loop) -> None:
            time.sleep(0.002)
            loop.stop()

        together(call_on, call_on, stop)
        assert not any(thread.name == "aiopg race" for thread in threading.enumerate())


def test_what_ends_a_program_ends_the_call_that_raised_it(shared: SharedLoop) -> None:
    """Whoever runs the loop at that moment goes on, another caller or the loop's own thread."""
    begun, gates, call = waits(1)

    async def fail() -> None:
        raise SystemExit(3)

    def exits() -> None:
        assert begun[0].wait(LONG)
        with pytest.raises(SystemExit):
            shared.run(fail)
        shared.submit(opened(gates[0])).result(LONG)

    assert together(lambda: shared.run(call(0)), exits)[0] == 0
    shared.pin()
    with pytest.raises(SystemExit):
        shared.run(fail)
    assert shared.run(thread_name) == "aiopg test"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a task is left, as the loop is
def test_a_call_ends_when_the_loop_itself_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that raises in its own thread is over: calls say so, and none waits."""
    shared = SharedLoop("aiopg test")
    failed: Future[object] = Future()
    monkeypatch.setattr(threading, "excepthook", lambda args: failed.set_result(args.exc_value))

    def select(timeout: float | None) -> None:
        raise OSError("no selector")

    monkeypatch.setattr(shared._loop._selector, "select", select)  # type: ignore[attr-defined]
    shared._loop.call_soon_threadsafe(lambda: None)
    assert isinstance(failed.result(LONG), OSError)
    with pytest.raises(CancelledError):
        shared.run(thread_name)


def test_a_finalizer_in_a_thread_that_takes_the_turn_is_refused(
    shared: SharedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for the loop that the frame below it is about to run."""
    refused: list[str] = []
    create_task = shared._loop.create_task

    def finalize(coroutine: Any) -> Any:
        with pytest.raises(OwnLoopError):
            shared.run(thread_name)
        refused.append("refused")
        return create_task(coroutine)

    monkeypatch.setattr(shared._loop, "create_task", finalize)
    assert shared.run(thread_name) == threading.current_thread().name
    assert refused == ["refused"]


def test_a_call_that_was_cancelled_is_taken_back_before_the_next_one_begins(
    shared: SharedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was handed over and nobody runs the loop just now: as Ctrl-C in a call, and the same call again."""
    monkeypatch.setattr("aiopg.sync._shared_loop.LULL_SECONDS", 1000.0)
    happened: list[str] = []
    first: Future[None] = Future()
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            happened.append("first taken back")

    async def second() -> None:
        happened.append("second begins")

    shared.start(wait, first)
    assert begun.wait(LONG)
    with monkeypatch.context() as patched:
        patched.setattr(shared, "_calls", set())  # so that the loop's own thread gives its turn away
        shared.run(thread_name)
        patched.setattr(shared, "_left", threading.Event())  # and does not wake at once
        first.cancel()
        late = threading.Thread(target=lambda: shared.run(second), daemon=True)
        late.start()
    shared._left.set()
    late.join(LONG)
    assert happened == ["first taken back", "second begins"]
