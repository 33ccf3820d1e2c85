"""Pops that were given up and have no outcome yet.

What such a pop brings goes back to its place in the queue. Another pop of this link that was asked for before that
would have the item behind it, and a consumer that polls would see its queue out of order. So that one waits here, for
as long as it takes the store to say a word. So does a member that leaves: from no seat anything is put back.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from aiopg.stores._calls import Calls, DeadlinePassedError, Waiter
from aiopg.stores.keys import KeyCall

__all__ = ["Adrift"]


class _Queue:
    __slots__ = ("line", "pops")

    def __init__(self) -> None:
        self.pops = 0
        self.line: deque[Waiter] = deque()


class Adrift:
    """Those of one key space, by the name of their queue."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._queues: dict[str, _Queue] = {}
        self._all_over: Waiter | None = None

    def __contains__(self, key: str) -> bool:
        """Whether another pop of this queue has to wait; also where others do."""
        return key in self._queues

    def begin(self, key: str) -> None:
        """A pop of this queue was given up."""
        self._queues.setdefault(key, _Queue()).pops += 1

    def end(self, key: str) -> None:
        """It has its outcome, and what it brought is on its way back."""
        self._queues[key].pops -= 1
        self._let_in(key)
        if self._all_over is not None and self._is_over:
            self._all_over.wake()

    async def settle(self, call: KeyCall, key: str) -> None:
        """Wait until there is none; first come, first served. Raises `KeyTimeoutError`."""
        line = self._queues[key].line
        waiter = Waiter(self._calls.alarms)
        line.append(waiter)
        try:
            await waiter.wait(call, lambda _, call: call.warn(None, None))
        except DeadlinePassedError:
            raise call.timed_out((), (0,)) from None
        finally:
            line.remove(waiter)
            self._let_in(key)

    async def wait_over(self, deadline: float) -> None:
        """Wait until there is none of any queue, or until `deadline` (loop time)."""
        if not self._is_over:
            self._all_over = Waiter(self._calls.alarms)
            with suppress(DeadlinePassedError):
                await self._all_over.wait_until(deadline)

    @property
    def _is_over(self) -> bool:
        return not any(queue.pops for queue in self._queues.values())

    def _let_in(self, key: str) -> None:
        queue = self._queues[key]
        if queue.pops:
            return
        if queue.line:
            queue.line[0].wake()
        else:
            del self._queues[key]
