"""Groups that end with their last reference, as vLLM's do, which have no close().

Where the last reference goes away is no place to wait for a store, or to start a thread: that may be in a collection of
garbage, in any thread, in the middle of anything. So what was dropped is put in a queue (`SimpleQueue.put` is made for
that), and a thread that waits there closes it. Who makes a group waits until what was dropped before has left: it
may be about to take the same place.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

from aiopg.errors import AiopgError
from aiopg.sync import StatelessGroup

__all__ = ["await_dropped", "close_with"]

logger = logging.getLogger("aiopg.integrations.vllm")

SETTLE_SECONDS = 5.0
"""How long who makes a group waits for those that were dropped; each takes at most 2 s to close."""

EXIT_SECONDS = 2.5
"""How long the end of the interpreter waits for them."""


class _Closer:
    """The queue, and the thread that reads it once there is somebody to close."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._starting = threading.Lock()
        self._started = False

    def watch(self, holder: object, group: StatelessGroup) -> None:
        """Close `group` when `holder` is no more."""
        with self._starting:
            if not self._started:
                threading.Thread(target=self._work, name="aiopg dropped groups", daemon=True).start()
                atexit.register(self.settle, EXIT_SECONDS)
                self._started = True
        # Not at exit: a group says goodbye by itself there.
        weakref.finalize(holder, self._jobs.put, group.close).atexit = False

    def settle(self, seconds: float) -> None:
        """Wait until all that were dropped so far are closed, at most so long."""
        if self._started:
            done = threading.Event()
            self._jobs.put(done.set)
            done.wait(seconds)

    def _work(self) -> None:
        while True:
            close = self._jobs.get()
            try:
                close()
            except AiopgError as error:
                # It is gone all the same: its connection ends, and the other ranks see that.
                logger.info("a group that was dropped could not say goodbye: %s", error, extra={"reason": str(error)})


_closer = _Closer()


def _begin_anew() -> None:
    global _closer  # the thread is the parent's, and so are the groups that it closes
    _closer = _Closer()


os.register_at_fork(after_in_child=_begin_anew)


def close_with(holder: object, group: StatelessGroup) -> None:
    """Have `group` closed when `holder` has no reference left."""
    _closer.watch(holder, group)


def await_dropped() -> None:
    """Wait until the groups whose holders are gone have left their places, at most `SETTLE_SECONDS`."""
    _closer.settle(SETTLE_SECONDS)
