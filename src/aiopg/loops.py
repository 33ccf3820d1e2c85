"""Event loops that aiopg starts by itself."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

from aiopg import forks

__all__ = ["LoopThread", "clock_of", "fast_loop"]

T = TypeVar("T")

STOP_SECONDS = 5.0
"""How long stop() waits for the thread, which ends at once unless user code or a slow name lookup holds it up."""

SETTLE_SECONDS = 0.4
"""How long calls that were cancelled may tidy up behind themselves when the loop is to end."""


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """A loop factory for `asyncio.Runner`: uvloop's, or None where uvloop is not installed."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The clock of a loop's timers, as fine as it is to be had: uvloop's counts whole milliseconds."""
    return time.monotonic if type(loop).__module__.partition(".")[0] == "uvloop" else loop.time


class LoopThread:
    """An event loop in a daemon thread: it never keeps the interpreter from ending, closed or not.

    Every call handed to it ends: with its result, or cancelled, at the latest when the loop ends.

    The loop is asyncio's own. A child that is forked from this process inherits the loop's handles without its
    thread, and with uvloop's it crashes when it frees them at its exit. (`anyio.from_thread.start_blocking_portal` is
    not used either: its clean-up waits for the thread, also in that child, where the thread does not exist.)
    """

    def __init__(self, name: str) -> None:
        # Made here and not in the thread, so that a lack of file descriptors is raised to the caller.
        self._loop = _OwnLoop()
        self._stop = asyncio.Event()
        self._ending = False
        self._calls: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            self._loop.close()
            raise

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this loop."""
        return asyncio._get_running_loop() is self._loop

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
        self._note_call(future)
        if not self._post(lambda: self._begin(make, future)):
            future.cancel()

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """End the loop, cancelling what still runs there, and wait `patience` seconds for it. Twice is fine."""
        self._post(self._stop.set)
        self._thread.join(patience)

    def _note_call(self, future: Future[Any]) -> None:
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)

    def _post(self, callback: Callable[[], object]) -> bool:
        """Have the loop call this; False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def _begin(self, make: Callable[[], Coroutine[Any, Any, T]], future: Future[T]) -> None:
        if self._ending:
            future.cancel()
        if future.cancelled():
            return
        self._bind(self._loop.create_task(_carry(make)), future)

    def _bind(self, task: asyncio.Task[T], future: Future[T]) -> None:
        """What the task comes to is the future's; who cancels the future cancels the task."""

        def cancelled(future: Future[T]) -> None:
            if future.cancelled():
                self._cancel(task)

        task.add_done_callback(lambda task: _hand_over(task, future))
        future.add_done_callback(cancelled)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        self._post(task.cancel)

    def _run(self) -> None:
        # Not asyncio.Runner: to end the loop's executor it starts a thread, which Python 3.12 refuses when the
        # interpreter ends, and that is when a group that nobody closed says goodbye.
        executor = ThreadPoolExecutor(thread_name_prefix=threading.current_thread().name)
        self._loop.set_default_executor(executor)
        try:
            self._run_until(self._loop.create_task(self._serve()))
        finally:
            executor.shutdown()
            self._loop.close()
            # The loop is closed. What was posted in its last moment never began, and nobody else ends it: a caller
            # adds his future first and then posts, so either he finds the loop closed or we find his future.
            for future in list(self._calls):
                future.cancel()

    def _run_until(self, served: asyncio.Task[None]) -> None:
        """Run the loop until it is over."""
        self._loop.run_until_complete(served)

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


class _OwnLoop(asyncio.SelectorEventLoop):
    """A loop whose copy in a forked child leaves no trace when it is freed.

    asyncio closes one that does not run then, and for that takes its sockets off the selector's list. The list of an
    epoll is the parent's as well: its loop would never be woken again.
    """

    def __init__(self) -> None:
        self._forks = forks.count
        super().__init__()

    def __del__(self, forks: ModuleType = forks) -> None:  # bound here: the interpreter clears the module first
        if self._forks == forks.count:
            super().__del__()


def _close_unstarted(coroutine: Coroutine[Any, Any, Any]) -> None:
    """A coroutine that will never run is closed, or Python complains that nobody awaited it."""
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()


async def _carry(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await make()  # called in here, so that what it raises is the call's error


def _hand_over(task: asyncio.Task[T], future: Future[T]) -> None:
    """Give what a task came to to whoever waits for it."""
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
