"""An event loop that whoever waits for it runs: a blocking call without a switch of threads.

Theory of operation. To give a call to a loop in another thread and to get its result back takes two switches of threads
that also want one another's interpreter lock: about half of the time of a blocking barrier. So a thread that calls runs
the loop itself until its call has ended; it has the *turn*. Between calls nobody runs it for a moment, as there mostly
is a next call, and then the loop's own thread does: what comes unasked is seen to, and connections live.

Who has the turn:

- The loop's own thread: from the beginning, and when the loop was left alone for `LULL_SECONDS`, or when a call waits
  and nobody runs it. It gives the turn away when it is asked to (`_claim`).
- A thread that calls, until its call has ended, if nobody has it or the loop's own thread would give it away.
- Otherwise the call is handed over (`LoopThread.start`) to whoever has the turn, and waits. Calls of several threads at
  once are of this kind, all but one; a call within another event loop (a notebook's), and all of them once the loop is
  pinned.

What comes between any two steps:

- Another thread. A call that is handed over in the moment in which the turn is given back: either the one sees that
  nobody has it, or the other sees that a call waits, and tells the loop's own thread.
- A signal, in the main thread. Handlers wait (`_signals`) while the turn is taken, used and given back, and are called
  behind it. A call that one of them has ended is taken back before another one begins.
- A finalizer that makes a call, in a thread that takes the turn: it cannot wait for that, and is refused.
- An exception that another thread sets in this one (`PyThreadState_SetAsyncExc`): nothing helps against that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

from aiopg.loops import LoopThread
from aiopg.sync import _signals
from aiopg.sync._signals import HeldSignals

__all__ = ["OwnLoopError", "SharedLoop"]

T = TypeVar("T")

LULL_SECONDS = 0.01
"""For so long, and not for twice as long, nobody runs the loop after a call."""

CLAIM_SECONDS = 0.005
"""How often who waits for the turn looks whether it is still to be had. The loop's own thread gives it away at once,
unless a callback (a user's reduce function, say) keeps it."""


class OwnLoopError(Exception):
    """A call on a loop that is to wait for that loop. Never leaves `sync`."""


class SharedLoop(LoopThread):
    """A loop in a daemon thread, which a thread that calls runs in its place."""

    def __init__(self, name: str) -> None:
        self._turn = threading.Lock()
        self._turn.acquire()  # for the loop's own thread
        self._claims = threading.Lock()  # one caller at a time asks for the turn
        self._claimed = False
        self._resting = True  # the loop's own thread runs it
        self._left = threading.Event()  # nobody runs the loop, and a call waits
        self._runs = 0  # how many calls have had the turn
        self._pinned = False
        self._inside: set[int] = set()  # threads that take the turn, or have it
        self._taken_back: set[asyncio.Task[Any]] = set()  # calls that were cancelled, until they have ended
        super().__init__(name)

    def pin(self) -> None:
        """From now on its own thread runs it all the time: something on it serves others, between calls too."""
        self._pinned = True
        self._left.set()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a coroutine there, run it and return what it returns. Raises what it raises.

        What a signal handler raises meanwhile is raised here: the coroutine is then cancelled, before anything that
        is called next begins.

        Raises:
            OwnLoopError: called on this loop, or by a finalizer in a thread that is about to run it.
            concurrent.futures.CancelledError: the loop has ended, or ends first.
        """
        running, me = asyncio._get_running_loop(), get_ident()
        if running is self._loop or me in self._inside:
            raise OwnLoopError
        future: Future[T] | None = None
        try:
            # Where a loop runs already (a notebook's) asyncio runs no second one.
            if running is None and not self._pinned and not self._taken_back:
                signals = HeldSignals(self._interrupt) if me == _signals.main_thread else None
                if signals is not None:
                    signals.hold()
                try:
                    self._inside.add(me)
                    ran = self._run_here(make, signals)
                    if isinstance(ran, Future):
                        future = ran
                finally:
                    self._inside.discard(me)
                    if signals is not None:
                        signals.release()
                if isinstance(ran, asyncio.Task):
                    return _result(ran)
            if future is None:
                future = Future()
                self.start(make, future)
            return future.result()
        finally:
            # Ctrl-C, or another exception that a signal handler raised here: the call is taken back on the loop
            # before anything that is called next begins there. A call that has ended is not touched by it.
            if future is not None:
                future.cancel()

    def _run_here(
        self, make: Callable[[], Coroutine[Any, Any, T]], signals: HeldSignals | None
    ) -> asyncio.Task[T] | Future[T] | None:
        """Run the loop until the coroutine has ended, or a signal came: then it goes on, and the future is its own.

        None if the loop is not ours to run; then nothing has begun.
        """
        if not self._turn.acquire(blocking=False) and not self._claim(signals):
            return None
        try:
            if self._ending:
                return None
            task = self._loop.create_task(_carry_and_stop(make, self._loop))
            while not task.done() and (signals is None or not signals.came):
                self._run_on()
            if task.done():
                return task
            future: Future[T] = Future()
            self._note_call(future)
            self._bind(task, future)
            return future
        finally:
            self._give_turn()

    def _run_on(self) -> None:
        # What a call raises to end the program is its caller's, who gets it; asyncio lets it out here as well.
        with suppress(SystemExit, KeyboardInterrupt):
            self._loop.run_forever()

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        # Until it has ended calls are handed over, and so begin behind that.
        self._taken_back.add(task)
        self._post(partial(self._take_back, task))

    def _take_back(self, task: asyncio.Task[Any]) -> None:
        task.add_done_callback(self._taken_back.discard)
        task.cancel()

    # -------------------------------------------------------------------------------------------------- turns

    def _claim(self, signals: HeldSignals | None) -> bool:
        """Ask the loop's own thread for the turn, if it has it and no call of others waits; whether we have it now."""
        if not self._resting or self._calls or not self._claims.acquire(blocking=False):
            return False
        taken = False
        try:
            self._claimed = True
            self._interrupt()
            while not (taken := self._turn.acquire(timeout=CLAIM_SECONDS)):
                if not self._resting or (signals is not None and signals.came):
                    break
        finally:
            self._claimed = False
            self._claims.release()
            if not taken:
                self._left.set()
        return taken

    def _give_turn(self) -> None:
        self._turn.release()
        self._runs += 1
        if self._calls or self._stop.is_set():
            self._left.set()

    def _interrupt(self) -> None:
        """Have whoever runs the loop stop and look."""
        super()._post(self._loop.stop)

    def _post(self, callback: Callable[[], object]) -> bool:
        posted = super()._post(callback)
        if not self._turn.locked():
            self._left.set()
        return posted

    # ------------------------------------------------------------------------------------ the loop's own thread

    def _run_until(self, served: asyncio.Task[None]) -> None:
        served.add_done_callback(lambda _: self._loop.stop())
        while True:
            try:
                while not served.done() and not self._claimed:
                    self._run_on()
            finally:
                self._resting = False
            if served.done():
                return served.result()  # with the turn: nobody runs it any more
            self._left.clear()
            self._turn.release()
            if self._calls:
                # It was handed over while we had the turn, and whoever has claimed it may have given up.
                self._left.set()
            self._stand_by()
            self._turn.acquire()
            self._resting = True

    def _stand_by(self) -> None:
        """Return when nobody has run the loop for a while, or somebody has for long, or a call waits."""
        runs = -1
        while not self._left.wait(LULL_SECONDS) and runs != self._runs:
            runs = self._runs


def _result(task: asyncio.Task[T]) -> T:
    if task.cancelled():
        raise CancelledError
    return task.result()


async def _carry_and_stop(make: Callable[[], Coroutine[Any, Any, T]], loop: asyncio.AbstractEventLoop) -> T:
    # One that is cancelled before it began stops nothing: only the end of the loop does that, and stops all.
    try:
        return await make()
    finally:
        loop.stop()
