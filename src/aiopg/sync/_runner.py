"""How a blocking call runs: on a loop thread, for whatever thread makes it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeAlias, TypeVar

from aiopg import forks
from aiopg.errors import AiopgError, ForkError, GroupClosedError, WrongThreadError
from aiopg.sync._shared_loop import OwnLoopError, SharedLoop

__all__ = ["Runner", "start"]

T = TypeVar("T")
Make: TypeAlias = Callable[[], Coroutine[Any, Any, T]]

EXIT_SECONDS = 2.5
"""How long the end of the interpreter waits for what was not closed to say goodbye."""

FAILED_SECONDS = 0.7
"""How long what could not be made waits for its loop to end: Ctrl-C in a slow name lookup is not held up."""


def start(name: str, make: Make[T]) -> tuple[SharedLoop, T]:
    """Run a new loop in a thread of that name, and there make what it is for. If that fails no thread stays."""
    thread = SharedLoop(name)
    try:
        return thread, thread.run(make)
    except BaseException:
        thread.stop(FAILED_SECONDS)
        raise


class Runner:
    """Runs the calls of one group or store; refuses them in a forked child, on the loop's own thread and after close.

    A program that ends without `close` says goodbye all the same.
    """

    def __init__(
        self, thread: SharedLoop, what: str, close: Make[None], *, owns_thread: bool, closed_where: str = ""
    ) -> None:
        """`what` it is for people ("group 'default'"); `close`: how it is closed; `closed_where`: for people, too."""
        self.thread = thread
        self.closed = False
        self._exits = False  # the interpreter ends
        self._what, self._close, self._closed_where = what, close, closed_where
        self._owns_thread = owns_thread
        self._pid = os.getpid()
        self._forks = forks.count
        self._kept: list[object] = []
        atexit.register(self._at_exit)

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child of the process that made it."""
        return self._forks != forks.count

    def call(self, make: Make[T]) -> T:
        """Run one call and wait for it, if it can be made from here."""
        if self.closed or self._forks != forks.count:
            self.check_place()
        try:
            return self.thread.run(make)
        except OwnLoopError:
            raise self._own_loop() from None
        except (CancelledError, GroupClosedError) as error:
            if self._exits:
                # Only daemon threads run by now. One that raised would print its traceback while the interpreter goes,
                # which may find the lock of stderr held and abort the process; so it stays in its call, and ends there.
                threading.Event().wait()
            if isinstance(error, GroupClosedError):
                raise
            raise GroupClosedError(f"{self._what} was closed while this call waited") from None

    def keep(self, thing: object) -> None:
        """Have this live until `close` at least: somebody uses it whose hold on it Python does not see."""
        self._kept.append(thing)

    def check_place(self) -> None:
        """Raises unless a call can be made here and now."""
        if self.is_forked:
            raise ForkError(
                f"{self._what} belongs to process {self._pid}, and this is its forked child {os.getpid()}; "
                "make a new one here"
            )
        if self.thread.is_current:
            raise self._own_loop()
        if self.closed:
            raise GroupClosedError(f"{self._what} was closed{self._closed_where}")

    def close(self) -> None:
        """Close it, and end the loop thread if it is its own. Twice is fine."""
        if self.closed or self.is_forked:
            return  # in a forked child it is the parent's, and goes on there
        if self.thread.is_current:
            raise self._own_loop()
        self.closed = True
        atexit.unregister(self._at_exit)
        try:
            self.thread.run(self._close)
        except (CancelledError, GroupClosedError):
            pass  # a subgroup whose loop ended with the group that it was made from
        finally:
            if self._owns_thread:
                self.thread.stop()

    def hand_over(self) -> bool:
        """It was closed, and something else goes on in its loop thread; whether the thread was its own."""
        self.closed = True
        atexit.unregister(self._at_exit)
        owned, self._owns_thread = self._owns_thread, False
        return owned

    def _own_loop(self) -> WrongThreadError:
        return WrongThreadError(
            f"a blocking call on {self._what} from its own loop thread would wait for itself; "
            "call it from another thread"
        )

    def _at_exit(self) -> None:
        """The interpreter ends and nobody closed it: say goodbye, and do not wait for long."""
        if self.closed or self.is_forked:
            return
        self.closed = self._exits = True
        goodbye: Future[None] = Future()
        self.thread.start(self._close, goodbye)
        try:
            goodbye.result(EXIT_SECONDS)
        except (AiopgError, CancelledError, TimeoutError):
            pass  # the connection ends with the process, and the others see that
        if self._owns_thread:
            self.thread.stop(FAILED_SECONDS)
