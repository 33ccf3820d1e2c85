"""A clock that a test moves by hand, and the event loop that goes by it.

Theory of operation. An asyncio loop asks its selector to wait for sockets: not at all while something is ready to run,
until the next timer if there is one, and for ever if there is none. So the selector knows when the loop has nothing
left to do, and there the clock is moved: to the next timer, or to where `advance` was asked to come. Nothing sleeps.
The rest of the loop is asyncio's own, sockets, threads and child processes included.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any, NamedTuple, TypeVar

from aiopg.errors import UsageError

__all__ = ["ManualClock"]

T = TypeVar("T")

RESOLUTION = 1e-9
"""A timer that is due so many seconds behind where the clock is to come is due there: sums of floats differ by less."""


class _Advance(NamedTuple):
    """Where the clock is to come, and who waits for that."""

    target: float
    done: asyncio.Future[None]


class ManualClock:
    """Time that stands still until the test moves it, for event loops made by `new_event_loop`, which `run` does.

    ::

        async def check() -> None:
            group = await AsyncStatelessGroup.connect("memory://trainers", rank=0, world_size=2)
            ...

        clock = ManualClock()
        clock.run(check())

    All that goes by the loop's time goes by this clock: `asyncio.sleep`, `asyncio.timeout`, anyio's deadlines, every
    timeout of a group, and on a `memory://` store the expiry of data. A store in another process or thread has a time
    of its own; and what sockets and threads are busy with is not waited for: the clock goes on without it.

    Not with uvloop, whose clock cannot be set. It is not thread-safe. Where nothing moves the clock, a program that
    waits for it waits for ever.

    Args:
        start: what `time()` says at first, in seconds; finite.
    """

    def __init__(self, start: float = 1000.0) -> None:
        if not math.isfinite(start):
            raise ValueError(f"start must be a finite number of seconds, not {start!r}")
        self._now = float(start)
        self._advance: _Advance | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runs_free = False

    def __repr__(self) -> str:
        return f"<ManualClock {self._now:.6f}>"

    def time(self) -> float:
        """The time in seconds; what the loop's `time()` says."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Move the clock on, from timer to timer, and run what each of them sets off to its end or its next wait.

        What is ready runs before the clock is moved, so that tasks that were just made begin to wait at the old time; 0
        does no more than that. When it returns, the clock stands `seconds` later (at most a nanosecond more, if a timer
        is due there), and nothing is left that could run. Cancelling it stops the clock where it is.

        Args:
            seconds: finite, not negative.

        Raises:
            ValueError: seconds is neither.
            UsageError: the loop that runs here does not go by this clock, or another task moves it already.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be finite and not negative, not {seconds!r}")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise UsageError(
                f"the event loop that runs here ({type(loop).__module__}.{type(loop).__name__}) does not go by this "
                "clock; run the test by clock.run(...), or make its loop by clock.new_event_loop()"
            )
        if self._advance is not None:
            raise UsageError("another task moves this clock already")
        self._advance = _Advance(self._now + seconds, loop.create_future())
        try:
            await self._advance.done
        finally:
            self._advance = None

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A new event loop that goes by this clock: a `loop_factory` for `asyncio.Runner` and for test frameworks.

        One at a time: the loop that was made last is the one that `advance` moves.
        """
        self._loop = _Loop(self)
        return self._loop

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on a new loop and return its result, as `asyncio.run` does.

        When it has ended the clock runs on by itself, so that what it left behind can tidy up: nothing hangs there.

        Raises what it raises, and `RuntimeError` where a loop runs already.
        """
        with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
            try:
                return runner.run(main)
            finally:
                self._runs_free = True
                runner.close()
                self._runs_free = False

    def _pass(self, idle: float | None) -> bool:
        """The loop has nothing to do for `idle` seconds, None for ever. Whether it has something to do now."""
        if self._runs_free:
            self._now += idle or 0.0
            return idle is not None
        if self._advance is None:
            return False
        target, done = self._advance
        if idle is not None and self._now + idle <= target + RESOLUTION:
            self._now += idle
            return True
        self._now = max(self._now, target)
        if not done.done():
            done.set_result(None)
        return True


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0) or self._clock._pass(timeout):
            return events
        return super().select(None)  # no timer is due before somebody moves the clock


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._clock.time()

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        # The last that a runner does. Threads take real time to end, and its deadline (Python 3.12) would pass at once.
        self._clock._runs_free = False
        await super().shutdown_default_executor(*args, **kwargs)
