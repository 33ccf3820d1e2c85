"""The manual clock: time stands still until the test moves it, and then all happens that is due, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest
import uvloop

from aiopg import AsyncStatelessGroup, DataExpiredError, GroupTimeoutError, UsageError
from aiopg.testing import ManualClock


def under_clock(main: Callable[[ManualClock], Awaitable[None]]) -> ManualClock:
    """Run the coroutine function on a new clock, in no real time to speak of."""
    clock = ManualClock()

    async def run() -> None:
        await main(clock)

    began = time.monotonic()
    clock.run(run())
    assert time.monotonic() - began < 20
    return clock


async def settle() -> None:
    """Let others run in real time, for long enough to show what they would do of themselves."""
    await asyncio.to_thread(time.sleep, 0.05)


def test_time_stands_still() -> None:
    """A timer of a millisecond does not ring by itself, whatever else the loop is busy with."""

    async def main(clock: ManualClock) -> None:
        rang: list[float] = []
        asyncio.get_running_loop().call_later(0.001, lambda: rang.append(clock.time()))
        await settle()
        assert (rang, clock.time(), asyncio.get_running_loop().time()) == ([], 1000.0, 1000.0)
        await clock.advance(0.001)
        assert rang == [1000.001]

    under_clock(main)


def test_timers_ring_in_order_each_at_its_own_time() -> None:
    """One advance goes from timer to timer; what a timer sets off may set timers that are due on the way."""

    async def main(clock: ManualClock) -> None:
        heard: list[tuple[str, float]] = []

        async def tick(name: str, seconds: float) -> None:
            while True:
                await asyncio.sleep(seconds)
                heard.append((name, clock.time() - 1000))

        tasks = [asyncio.create_task(tick("slow", 30)), asyncio.create_task(tick("fast", 20))]
        await clock.advance(60)
        assert heard == [("fast", 20), ("slow", 30), ("fast", 40), ("slow", 60), ("fast", 60)]
        assert clock.time() == 1060
        for task in tasks:
            task.cancel()

    under_clock(main)


def test_tasks_that_were_just_made_begin_before_the_clock_moves() -> None:
    """A sleep of a task that is not yet running counts from now, and not from where the clock comes to."""

    async def main(clock: ManualClock) -> None:
        sleep = asyncio.create_task(asyncio.sleep(10))
        await clock.advance(9)
        assert not sleep.done()
        await clock.advance(1)
        assert sleep.done()

    under_clock(main)


def test_nothing_is_left_to_run_when_it_has_advanced() -> None:
    """A chain of a hundred steps that a timer sets off has run to its end; advance(0) does the same without time."""

    async def main(clock: ManualClock) -> None:
        steps: list[int] = []

        async def work(delay: float) -> None:
            await asyncio.sleep(delay)
            for step in range(100):
                await asyncio.sleep(0)
                steps.append(step)

        tasks = [asyncio.create_task(work(5)), asyncio.create_task(work(0))]
        await clock.advance(0)
        assert len(steps) == 100
        await clock.advance(5)
        assert len(steps) == 200
        assert all(task.done() for task in tasks)

    under_clock(main)


def test_sums_of_floats_do_not_miss_a_timer() -> None:
    """Ten times 0.1 reaches a timer of 1.0, although the floats add up to less."""
    clock = ManualClock(0)

    async def main() -> None:
        sleep = asyncio.create_task(asyncio.sleep(1.0))
        for _ in range(10):
            assert not sleep.done()
            await clock.advance(0.1)
        assert sleep.done()

    clock.run(main())


def test_the_deadlines_of_asyncio_and_of_anyio_go_by_it() -> None:
    """`asyncio.timeout` and `anyio.move_on_after` end when the clock says so."""

    async def main(clock: ManualClock) -> None:
        ended: list[str] = []

        async def by_asyncio() -> None:
            try:
                async with asyncio.timeout(100):
                    await asyncio.Event().wait()
            except TimeoutError:
                ended.append("asyncio")

        async def by_anyio() -> None:
            with anyio.move_on_after(200):
                await anyio.sleep_forever()
            ended.append("anyio")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(by_asyncio())
            tasks.create_task(by_anyio())
            for seconds, expected in ((99, []), (1, ["asyncio"]), (99, ["asyncio"]), (1, ["asyncio", "anyio"])):
                await clock.advance(seconds)
                assert ended == expected

    under_clock(main)


async def pair(url: str, **options: float) -> list[AsyncStatelessGroup]:
    """Both ranks of a group."""
    connect = AsyncStatelessGroup.connect
    return await asyncio.gather(*(connect(url, rank=rank, world_size=2, **options) for rank in range(2)))  # type: ignore[arg-type]


def test_a_barrier_times_out_after_five_minutes_in_no_time() -> None:
    """On a memory:// store: not a second earlier, with who is missing; and the group goes on after it."""

    async def main(clock: ManualClock) -> None:
        first, second = await pair("memory://barrier-by-hand")
        barrier = asyncio.create_task(first.barrier(timeout=300))
        await clock.advance(299)
        assert not barrier.done()
        await clock.advance(1)
        with pytest.raises(GroupTimeoutError) as caught:
            await barrier
        assert (caught.value.missing, caught.value.elapsed) == ((1,), 300.0)
        await asyncio.gather(first.barrier(), second.barrier())
        await asyncio.gather(first.close(), second.close())

    under_clock(main)


def test_data_on_a_memory_store_expires_by_it() -> None:
    """A message that nobody takes is there for data_expiration_seconds of this clock, and then no more."""

    async def main(clock: ManualClock) -> None:
        first, second = await pair("memory://expiry-by-hand", data_expiration_seconds=3600)
        await first.send("early", 1)
        await clock.advance(3599)
        await first.send("late", 1)
        await clock.advance(2)
        with pytest.raises(DataExpiredError):
            await second.recv(0)
        assert await second.recv(0) == "late"
        await asyncio.gather(first.close(), second.close())

    under_clock(main)


def test_sockets_and_threads_work_while_time_stands_still() -> None:
    """The loop is asyncio's own: what comes through a socket or from a thread wakes it."""

    async def main(clock: ManualClock) -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"once\n")
        assert await reader.readline() == b"once\n"
        assert await asyncio.to_thread(lambda: 17) == 17
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert clock.time() == 1000.0

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    under_clock(main)


def test_what_a_test_leaves_behind_is_ended() -> None:
    """When the coroutine has ended the clock runs on by itself: a task that tidies up with a pause does not hang."""
    tidied: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(2)
            tidied.append("up")

    async def main(clock: ManualClock) -> None:
        tasks.append(asyncio.create_task(work()))
        await clock.advance(1)

    tasks: list[asyncio.Task[None]] = []
    assert under_clock(main).time() >= 1003
    assert tidied == ["up"]


def test_a_thread_that_is_left_behind_is_waited_for() -> None:
    """In real time, as `asyncio.run` does it, and without a complaint that it took 300 seconds."""
    ended: list[float] = []

    def work() -> None:
        time.sleep(0.2)
        ended.append(clock.time())

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, work)

    clock = ManualClock()
    clock.run(main())
    assert ended == [1000.0]


def test_an_advance_that_is_cancelled_stops_where_it_is() -> None:
    """And the clock can be moved again."""

    async def main(clock: ManualClock) -> None:
        advance = asyncio.create_task(clock.advance(100))
        asyncio.get_running_loop().call_later(40, advance.cancel)
        with pytest.raises(asyncio.CancelledError):
            await advance
        assert clock.time() == 1040
        await clock.advance(60)
        assert clock.time() == 1100

    under_clock(main)


def test_a_clock_serves_one_run_after_another() -> None:
    """Its time goes on."""
    clock = ManualClock(0)
    for run in range(2):
        clock.run(clock.advance(10))
        assert clock.time() == 10 * (run + 1)
    assert repr(clock) == "<ManualClock 20.000000>"


def test_a_runner_can_make_its_loop() -> None:
    """`new_event_loop` is a loop_factory."""
    clock = ManualClock()
    with asyncio.Runner(loop_factory=clock.new_event_loop) as runner:
        runner.run(clock.advance(5))
    assert clock.time() == 1005


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_it_goes_forward_and_to_an_end(seconds: float) -> None:
    """A time that makes no sense is refused, with the value."""
    with pytest.raises(ValueError, match=str(seconds)):
        ManualClock().run(ManualClock().advance(seconds))


def test_a_start_that_is_no_time_is_refused() -> None:
    """Nothing ever comes to infinity."""
    with pytest.raises(ValueError, match="inf"):
        ManualClock(float("inf"))


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_on_another_loop_it_says_what_to_do(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A loop that does not go by the clock is not moved by it, and whoever tries is told."""
    with asyncio.Runner(loop_factory=factory) as runner, pytest.raises(UsageError, match=r"clock\.run"):
        runner.run(ManualClock().advance(1))


def test_one_task_at_a_time_moves_it() -> None:
    """Two would each come to another time than they asked for."""

    async def main(clock: ManualClock) -> None:
        first = asyncio.create_task(clock.advance(10))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="another task"):
            await clock.advance(5)
        await first
        assert clock.time() == 1010

    under_clock(main)
