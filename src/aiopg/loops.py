"""Event loops that aiopg starts by itself."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from aiopg.interrupts import HeldSignals

__all__ = ["LoopThread", "fast_loop"]

T = TypeVar("T")

STOP_SECONDS = 5.0
"""How long stop() waits for the thread, which ends at once unless user code or a slow name lookup holds it up."""

SETTLE_SECONDS = 0.4
"""How long calls that were cancelled may tidy up behind themselves when the loop is to end."""

IDLE_SECONDS = 0.02
"""When no call came for so long, the thread runs the loop again."""

FRAMES = 200
"""Calls within calls that the loop may need. Who has less of them left to `sys.getrecursionlimit()` does not run it."""


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """A loop factory for `asyncio.Runner`: uvloop's, or None where uvloop is not installed."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory


class _Awaited(Future[T]):
    """A future to wait for by a lock alone, in one step of the interpreter."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = ended = threading.Lock()
        ended.acquire()
        self.add_done_callback(lambda _: ended.release())


class LoopThread:
    """An event loop in a daemon thread: it never keeps the interpreter from ending, closed or not.

    Every call handed to it ends: with its result, or cancelled, at the latest when the loop ends.

    Theory of operation. To hand a call to another thread and to be woken by it takes longer than the call itself, so
    `call` has the calling thread run the loop while it waits, where it can. Whoever holds `_turn` runs the loop. That
    is the thread of the loop's own, until a call had to be handed to it by a caller who could have run the loop; then
    it stands back. It comes again when something is posted while nobody but a caller, or nobody, runs the loop, and
    when no call came for `IDLE_SECONDS`. So for as long after a call the loop may stand still; `lends` says whether
    that is fine. A caller who finds another one running the loop posts its call to it, and has the thread come.

    The loop is asyncio's own. A child that is forked from this process inherits the loop's handles without its
    thread, and with uvloop's it crashes when it frees them at its exit. (`anyio.from_thread.start_blocking_portal` is
    not used either: its clean-up waits for the thread, also in that child, where the thread does not exist.)
    """

    def __init__(self, name: str) -> None:
        # Made here and not in the thread, so that a lack of file descriptors is raised to the caller.
        self._loop = asyncio.SelectorEventLoop()
        self.lends = False
        """Whether who calls may run the loop."""
        self._stop = asyncio.Event()
        self._ending = False
        self._calls: set[Future[Any]] = set()
        self._turn = threading.Lock()
        self._turn.acquire()  # for the thread, which is the first to run the loop
        self._attended = True  # by the thread
        self._asked_for = False  # by a caller who would have run the loop
        self._driver: object = None
        self._cancelled: set[asyncio.Task[Any]] = set()  # and not yet ended
        self._driven = 0  # calls for which the caller ran the loop
        # A lock and not an Event: a signal handler may ring while its thread rings.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._needed = False
        self._awaits_driver = False
        self._signals = HeldSignals(lambda: self._post(self._loop.stop))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            self._loop.close()
            raise

    @property
    def is_current(self) -> bool:
        """Whether the caller is called by this loop."""
        return asyncio._get_running_loop() is self._loop

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a coroutine there, run it and wait for it.

        What a signal handler raises meanwhile, Ctrl-C's or another one, is raised here, and cancels the coroutine
        before anything that is called next begins.

        Raises:
            concurrent.futures.CancelledError: the loop has ended, or ended first.
        """
        if threading.get_ident() != threading.main_thread().ident:
            return _result(self._drive(make) or self._hand_in(make))
        # A handler that raises may do so between any two steps of this thread: in the middle of the loop's work, or
        # with a lock of a future in hand. So handlers wait, but for where this thread does.
        signals = self._signals
        begun = None
        try:
            try:
                signals.hold()
                begun = self._drive(make) or self._hand_in(make)
            finally:
                signals.let_go()
            if type(begun) is not _Awaited:
                return _result(begun)
            begun.ended.acquire()
            try:
                signals.hold()
                return _result(begun)
            finally:
                signals.let_go()
        finally:
            if type(begun) is _Awaited:
                try:
                    signals.hold()
                    begun.cancel()  # one that has ended is not touched
                finally:
                    signals.let_go()
            begun = None  # an error that leaves here knows this frame

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine there; cancelling the future cancels it."""
        future: Future[T] = Future()
        future.add_done_callback(lambda _: _close_unstarted(coroutine))
        self.start(lambda: coroutine, future)
        return future

    def start(self, make: Callable[[], Coroutine[Any, Any, T]], future: Future[T]) -> None:
        """Make a coroutine there and run it for `future`, which is cancelled if the loop has ended or ends first.

        The future is the caller's from before the call begins, so that a caller who is interrupted at any moment, in
        here too, can cancel it.
        """
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        if not self._post(lambda: self._begin(make, future)):
            future.cancel()

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """End the loop, cancelling what still runs there, and wait `patience` seconds for it. Twice is fine."""
        self._post(self._stop.set)
        self._thread.join(patience)

    # ------------------------------------------------------------------------------------ in the caller's thread

    def _hand_in(self, make: Callable[[], Coroutine[Any, Any, T]]) -> _Awaited[T]:
        """Have whoever runs the loop run this call."""
        future: _Awaited[T] = _Awaited()
        self.start(make, future)
        return future

    def _drive(self, make: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T] | _Awaited[T] | None:
        """Run the loop until this call has ended: its task; or, if something else has to come first, a future of it.

        None if the loop cannot be run here, or not now: nothing was begun.
        """
        if not self.lends or asyncio._get_running_loop() is not None or _stack_is_deep():
            return None
        if not self._turn.acquire(blocking=False):
            self._asked_for = True
            return None
        task = None
        try:
            # What a caller has cancelled is to be taken back first: the thread keeps that order.
            if self._ending or self._cancelled:
                self._asked_for = True
                return None
            self._driven += 1
            self._driver = make
            task = self._loop.create_task(self._carry_and_stop(make))
            self._loop.run_forever()
            return task if task.done() else self._entrust(task)
        except BaseException:
            # What code of the user's raised on the loop to end the program: this call's, or another's.
            if task is not None and not task.cancel() and not task.cancelled():
                task.exception()  # asked for, or asyncio logs that nobody did
            raise
        finally:
            self._driver = None
            self._turn.release()
            if self._awaits_driver:
                self._ring()

    async def _carry_and_stop(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await make()
        finally:
            if self._driver is make:
                self._loop.stop()

    def _entrust(self, task: asyncio.Task[T]) -> _Awaited[T]:
        """Leave what was begun here to the thread."""
        future: _Awaited[T] = _Awaited()
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        self._tie(task, future)
        self._call_thread()
        return future

    # -------------------------------------------------------------------------------------------- in any thread

    def _post(self, callback: Callable[[], object]) -> bool:
        """Have the loop call this; False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        # Behind the callback: the thread looks whether it is needed when it has said that it leaves.
        if not self._attended:
            self._call_thread()
        return True

    def _call_thread(self) -> None:
        self._needed = True
        self._ring()

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            pass  # it rings already

    # ---------------------------------------------------------------------------------------------- on the loop

    def _begin(self, make: Callable[[], Coroutine[Any, Any, T]], future: Future[T]) -> None:
        if self._ending:
            future.cancel()
        if not future.cancelled():
            self._tie(self._loop.create_task(_carry(make)), future)

    def _tie(self, task: asyncio.Task[T], future: Future[T]) -> None:
        def take_back() -> None:
            if not task.cancel():
                self._cancelled.discard(task)

        def cancelled(future: Future[T]) -> None:
            if future.cancelled():
                self._cancelled.add(task)
                self._post(take_back)

        task.add_done_callback(lambda task: self._hand_over(task, future))
        future.add_done_callback(cancelled)

    def _hand_over(self, task: asyncio.Task[T], future: Future[T]) -> None:
        """Give what a task came to to whoever waits for it."""
        self._cancelled.discard(task)
        if self._asked_for and self._attended and len(self._calls) <= 1:
            # Before the caller wakes, so that it finds the loop free when it calls again. What is posted in between
            # and is no call waits for IDLE_SECONDS.
            self._asked_for = False
            self._loop.stop()
        if task.cancelled():
            future.cancel()
            return
        error = task.exception()  # asked for even if nobody waits, or asyncio logs that nobody did
        if not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    async def _serve(self) -> None:
        await self._stop.wait()
        self._ending = True  # what runs now is cancelled next; nothing may begin behind that
        # Who was interrupted a moment ago is still letting go of things; cancelled once more, he could not.
        cancelled = [task for task in asyncio.all_tasks() if task.cancelling()]
        if cancelled:
            await asyncio.wait(cancelled, timeout=SETTLE_SECONDS)
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    # -------------------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        # Not asyncio.Runner: to end the loop's executor it starts a thread, which Python 3.12 refuses when the
        # interpreter ends, and that is when a group that nobody closed says goodbye.
        executor = ThreadPoolExecutor(thread_name_prefix=threading.current_thread().name)
        self._loop.set_default_executor(executor)
        try:
            self._attend()
        finally:
            executor.shutdown()
            self._loop.close()
            # The loop is closed. What was posted in its last moment never began, and nobody else ends it: a caller
            # adds his future first and then posts, so either he finds the loop closed or we find his future.
            for future in list(self._calls):
                future.cancel()

    def _attend(self) -> None:
        """Run the loop, but for when callers do, until it is to end. The turn is kept then: nobody else runs it."""
        serving = self._loop.create_task(self._serve())
        serving.add_done_callback(lambda _: self._loop.stop())
        while True:
            if not serving.done():
                self._loop.run_forever()
            if serving.done():
                serving.result()
                return
            self._attended = False
            self._turn.release()
            self._stand_back()
            self._turn.acquire()
            self._attended = True

    def _stand_back(self) -> None:
        """Return when the loop is to be run by this thread again."""
        # Who posted while we still seemed to be there has not rung, but its call is there.
        while not (self._needed or self._calls):
            driven = self._driven
            self._bell.acquire(timeout=IDLE_SECONDS)
            if self._needed or self._driven != driven:
                continue
            if not self._turn.locked():
                break
            # A caller waits in there for long; it rings when it leaves, and we look again then.
            self._awaits_driver = True
            if self._turn.locked():
                self._bell.acquire()
            self._awaits_driver = False
        self._needed = False


def _stack_is_deep() -> bool:
    """Whether the loop might meet the recursion limit if it ran here, anywhere in its own code."""
    try:
        sys._getframe(max(sys.getrecursionlimit() - FRAMES, 0))
    except ValueError:
        return False
    return True


def _result(call: asyncio.Task[T] | Future[T]) -> T:
    try:
        return call.result()
    except asyncio.CancelledError:
        raise CancelledError from None
    finally:
        del call  # an error that leaves here knows this frame


def _close_unstarted(coroutine: Coroutine[Any, Any, Any]) -> None:
    """A coroutine that will never run is closed, or Python complains that nobody awaited it."""
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()


async def _carry(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await make()  # called in here, so that what it raises is the call's error
