"""The loop in virtual time: asyncio's order, no real waiting, and an end for every run."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from tests.simulation.loop import Deadlock, Runaway, SimLoop


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    """A loop that must end without failures of which the test did not know."""
    loop = SimLoop(1000.0)
    yield loop
    loop.close()
    assert loop.failures == []


def both_loops(program: Callable[[asyncio.AbstractEventLoop], None]) -> None:
    """Run it on asyncio's own loop and in virtual time."""
    for loop in (asyncio.SelectorEventLoop(), SimLoop()):
        program(loop)
        loop.close()


@pytest.mark.parametrize("seed", range(20))
def test_callbacks_and_tasks_run_in_the_order_of_asyncio(seed: int) -> None:
    """First in, first out; what a pass schedules runs in the next; a cancelled handle does not run."""
    print("seed", seed)
    orders: list[list[str]] = []

    def program(loop: asyncio.AbstractEventLoop) -> None:
        chance = random.Random(seed)
        order: list[str] = []
        orders.append(order)
        handles: list[asyncio.Handle] = []

        async def work(name: str) -> None:
            for turn in range(chance.randrange(4)):
                order.append(f"{name}.{turn}")
                await asyncio.sleep(0)

        def callback(name: str, depth: int) -> None:
            order.append(name)
            for child in range(chance.randrange(4) if depth < 6 else 0):
                draw = chance.random()
                if draw < 0.2:
                    handles.append(loop.call_later(0, callback, f"{name}/timer{child}", depth + 1))
                elif draw < 0.4:
                    kept.append(loop.create_task(work(f"{name}/task{child}")))
                else:
                    handles.append(loop.call_soon(callback, f"{name}/{child}", depth + 1))
            if handles and chance.random() < 0.2:
                chance.choice(handles).cancel()

        async def main() -> None:
            await asyncio.sleep(0)
            for _ in range(60):
                await asyncio.sleep(0)

        kept: list[asyncio.Task[None]] = []
        for root in range(4):
            loop.call_soon(callback, str(root), 0)
        loop.run_until_complete(main())

    both_loops(program)
    assert orders[0] == orders[1]
    assert len(orders[0]) > 4


def test_timers_run_by_time_and_then_by_creation(loop: SimLoop) -> None:
    """The clock jumps to each of them; one that is due runs in the pass after what is ready."""
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, loop.time()))

    async def main() -> None:
        for name, delay in (("c", 7200.0), ("a", 0.5), ("b", 0.5), ("late", -1.0)):
            loop.call_later(delay, note, name)
        loop.call_later(0.25, note, "cancelled").cancel()
        loop.call_soon(note, "soon")
        await asyncio.sleep(7200.0)

    began = time.perf_counter()
    loop.run(main())
    assert seen == [("soon", 1000.0), ("late", 1000.0), ("a", 1000.5), ("b", 1000.5), ("c", 8200.0)]
    assert time.perf_counter() - began < 5.0
    assert (loop.time(), loop.leftovers()) == (8200.0, [])


def test_a_run_that_nothing_can_go_on_is_a_deadlock_that_says_who_waits_where(loop: SimLoop) -> None:
    """Each task by its name, down to the line that waits. A timer that never comes is none."""

    async def inner(event: asyncio.Event) -> None:
        await event.wait()

    async def outer() -> None:
        await inner(asyncio.Event())

    async def main() -> None:
        loop.call_at(math.inf, print)
        task = asyncio.create_task(outer(), name="rank 3")
        await task

    with pytest.raises(Deadlock, match="nothing will ever happen again") as caught:
        loop.run(main())
    first, second = caught.value.waiting
    assert first.startswith("Task-1: ")
    assert "main (test_loop.py:" in first
    assert second.startswith("rank 3: ")
    assert "outer (test_loop.py:" in second
    assert "inner (test_loop.py:" in second
    assert "Event.wait (locks.py:" in second
    assert second in str(caught.value)


def test_a_run_without_end_is_a_runaway() -> None:
    """By its steps where time stands still, by virtual seconds where only timers go on."""

    async def busy() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    async def patient() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    for work, what in ((busy, "more than 1000 steps"), (patient, "no end by 1060")):
        loop = SimLoop(1000.0, max_steps=1000, max_seconds=60.0)
        with pytest.raises(Runaway, match=what) as caught:
            loop.run(work())
        assert work.__name__ in caught.value.waiting[0]
        assert loop.steps <= 1002
        loop.close()
        assert loop.failures == []


def test_timeouts_of_asyncio_and_anyio_are_in_virtual_time(loop: SimLoop) -> None:
    """They end at their deadline exactly."""
    ends: list[float] = []

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.Event().wait()
        ends.append(loop.time())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout_at(loop.time() + 5):
                await asyncio.sleep(100)
        ends.append(loop.time())
        with pytest.raises(TimeoutError), anyio.fail_after(3):
            await anyio.sleep(100)
        ends.append(loop.time())
        with anyio.move_on_after(2) as scope:
            await anyio.Event().wait()
        ends.append(loop.time())
        assert scope.cancelled_caught
        async with asyncio.timeout(1000), anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 20)
        ends.append(loop.time())

    loop.run(main())
    assert ends == [1010.0, 1015.0, 1018.0, 1020.0, 1040.0]
    assert loop.leftovers() == []


def test_what_asyncio_builds_on_a_loop_works(loop: SimLoop) -> None:
    """Locks, queues, gather, context variables, the running loop."""
    place = contextvars.ContextVar("place", default="nowhere")

    async def main() -> list[str]:
        assert asyncio.get_running_loop() is loop
        assert loop.is_running()
        lock, queue = asyncio.Lock(), asyncio.Queue[str](1)

        async def work(name: str) -> None:
            place.set(name)
            async with lock:
                await asyncio.sleep(1)
                await queue.put(f"{place.get()} at {loop.time():.0f}")

        workers = asyncio.gather(work("a"), work("b"))
        said = [await queue.get(), await queue.get(), place.get()]
        await workers
        return said

    assert loop.run(main()) == ["a at 1001", "b at 1002", "nowhere"]
    assert not loop.is_running()


def test_sets_of_tasks_have_the_same_order_in_every_run() -> None:
    """Task groups keep their tasks in sets, and cancel them in that order."""

    def cancelled_in_order() -> list[str]:
        order: list[str] = []

        async def work(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                order.append(name)

        async def break_off() -> None:
            async with asyncio.TaskGroup() as tasks:
                for number in range(200):
                    padding.append([object()] * random.randrange(1000))  # tasks lie elsewhere in memory each time
                    tasks.create_task(work(str(number)))
                await asyncio.sleep(0)
                raise ValueError

        async def main() -> None:
            with pytest.raises(ExceptionGroup):
                await break_off()
            waiting = [asyncio.create_task(asyncio.sleep(1, str(number))) for number in range(200)]
            done, _ = await asyncio.wait(waiting)
            order.extend(task.result() for task in done)
            order.extend(task.get_name() for task in asyncio.all_tasks())

        padding: list[Any] = []
        loop = SimLoop()
        loop.run(main())
        loop.close()
        return order

    first = cancelled_in_order()
    assert len(first) == 401
    assert first[-1] == "Task-1"
    assert first == cancelled_in_order()


def test_an_executor_is_a_later_step_in_the_same_thread(loop: SimLoop) -> None:
    """Nothing runs beside the loop; results and errors come as from a thread."""

    async def main() -> None:
        order: list[Any] = []
        future = loop.run_in_executor(None, order.append, "function")
        order.append("caller")
        await future
        order.append(await asyncio.to_thread(threading.get_ident))
        assert order == ["caller", "function", threading.get_ident()]
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        loop.call_soon_threadsafe(order.append, "soon")
        await asyncio.sleep(0)
        assert order[-1] == "soon"

    loop.run(main())


def test_abandoned_generators_are_closed(loop: SimLoop) -> None:
    """At once when nobody refers to them, else by close(), in the order of their beginning."""
    closed: list[str] = []
    kept: list[AsyncIterator[int]] = []

    async def count(name: str) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            closed.append(name)

    async def main() -> None:
        async for _ in count("dropped"):
            break
        for name in ("first", "second"):
            kept.append(generator := count(name))
            await anext(generator)
        await asyncio.sleep(5)
        assert closed == ["dropped"]

    loop.run(main())
    loop.close()
    assert closed == ["dropped", "first", "second"]


def test_errors_that_nobody_catches_are_kept() -> None:
    """Of callbacks, of tasks that nobody awaits, and of tasks that are destroyed while they wait."""
    loop = SimLoop(5.0)
    handled: list[str] = []

    async def fails() -> None:
        raise ValueError("nobody sees this")

    async def waits() -> None:
        await loop.create_future()

    async def main() -> None:
        loop.call_soon(lambda: 1 // 0)
        asyncio.create_task(fails())  # noqa: RUF006 (that is the point)
        asyncio.create_task(waits())  # noqa: RUF006
        await asyncio.sleep(1)
        loop.set_exception_handler(lambda _, context: handled.append(context["message"]))
        loop.call_soon(fails_at_once)
        await asyncio.sleep(0)

    def fails_at_once() -> None:
        raise KeyError

    loop.run(main())
    loop.close()
    errors = {type(failure.exception).__name__: failure for failure in loop.failures}
    assert set(errors) == {"ZeroDivisionError", "ValueError", "NoneType", "KeyError"}, loop.failures
    assert errors["ZeroDivisionError"].at == 5.0
    assert "never retrieved: Task-2" in errors["ValueError"].message
    assert "destroyed but it is pending" in errors["NoneType"].message
    assert "Task-3" in errors["NoneType"].message
    assert len(handled) == 2  # the second callback, and the destroyed task that the collection after the run found


def test_leftovers_name_what_a_run_leaves_behind(loop: SimLoop) -> None:
    """Tasks and timers; close() ends them, and lets them tidy up in virtual time."""
    ended: list[float] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(2)
            ended.append(loop.time())

    async def main() -> None:
        kept.append(asyncio.create_task(work(), name="worker"))
        loop.call_later(50, ended.append, 0.0)
        await asyncio.sleep(1)

    kept: list[asyncio.Task[None]] = []
    loop.run(main())
    task, append, sleep = loop.leftovers()
    assert task.startswith("task worker: ")
    assert "work (test_loop.py:" in task
    assert append == "timer in 49.000000 s: list.append"
    assert sleep.startswith("timer in 99.000000 s: ")
    assert loop.pending_tasks() == kept
    loop.close()
    assert (ended, kept[0].cancelled()) == ([1003.0], True)


def test_a_task_that_does_not_end_when_cancelled_is_reported() -> None:
    """close() closes all the same."""

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    loop = SimLoop()
    with pytest.raises(Deadlock):
        loop.run(stubborn())
    loop.close()
    assert loop.is_closed()
    assert [type(failure.exception) for failure in loop.failures] == [Deadlock]
    assert "stubborn" in str(loop.failures[0].exception)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_it_runs_under_a_runner() -> None:
    """`asyncio.Runner` makes it, runs on it and closes it."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        assert runner.run(asyncio.sleep(3600, "an hour")) == "an hour"
        loop = runner.get_loop()
    assert isinstance(loop, SimLoop)
    assert (loop.time(), loop.is_closed(), loop.failures) == (4600.0, True, [])


@pytest.mark.parametrize("name", ["getaddrinfo", "create_connection", "create_server", "sock_connect", "add_reader"])
def test_the_outside_world_is_refused(loop: SimLoop, name: str) -> None:
    """A simulation that would reach for a socket says so."""
    with pytest.raises(NotImplementedError, match=name):
        getattr(loop, name)("127.0.0.1", 1)


def test_cancelled_timers_do_not_pile_up(loop: SimLoop) -> None:
    """A long run with a timeout round each call keeps no more than it needs."""

    async def main() -> None:
        for _ in range(2000):
            async with asyncio.timeout(1000):
                await asyncio.sleep(0)
            assert len(loop._timers) < 200

    loop.run(main())


def test_garbage_is_collected_at_fixed_steps_only(loop: SimLoop) -> None:
    """A collection can run code, and must not come at another moment in another run."""

    async def main() -> None:
        assert not gc.isenabled()

    loop.run(main())
    assert gc.isenabled()


def test_a_callback_costs_little() -> None:
    """Printed, not asserted: the machine may be busy."""
    loop = SimLoop()

    async def main() -> float:
        began, left, done = time.perf_counter(), itertools.repeat(None, 20_000), loop.create_future()

        def tick() -> None:
            if next(left, done) is None:
                loop.call_soon(tick)
            else:
                done.set_result(None)

        tick()
        await done
        return (time.perf_counter() - began) / 20_000 * 1e6

    print(f"{loop.run(main()):.2f} us a callback")
    loop.close()
