"""Work on large objects, off the event loop: what it does to the order of calls, and to those that are cancelled.

Theory of operation. A payload of more than `codec.LARGE_BYTES` is made and read in a worker thread. Then there is an
await where for small ones there is none, so:

- the call's number is taken before it, as ever, and given back if the call does not come to its verb;
- a send whose object is being encoded holds the `Lanes` of its mailbox: sends that are called later go later;
- a message, or what a round came to, that is being decoded for a call that is cancelled or times out goes back to the
  member (`Member.give_back`, `Member.keep`), and the next call gets it.

The thread of a call that was cancelled works on to its end, and what it made is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from aiopg.stores.base import Call

__all__ = ["Aside", "Decoded", "Lanes"]

T = TypeVar("T")

WORKERS = 2
"""Objects of one group that are encoded or decoded at once: each takes memory, and a processor."""


class Decoded(list[Any]):
    """What a round came to, as objects and not payloads."""


class Aside:
    """The worker threads of one group. The pool is anyio's, whose threads no program can use up by blocking in them."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None  # it can be made on a running loop only

    async def run(self, call: Call, work: Callable[..., T], *arguments: object) -> T:
        """Do this in a worker thread. Raises what it raises, or `GroupTimeoutError` at the call's deadline."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(WORKERS)
        timeout = call.within_deadline()
        try:
            async with timeout:
                return await anyio.to_thread.run_sync(work, *arguments, abandon_on_cancel=True, limiter=self._limiter)
        except TimeoutError:
            if not timeout.expired():
                raise  # it is the work's own
            raise call.withdrawn(None, None) from None


class _Lane:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # first come, first served
        self.users = 0


class Lanes(dict[Hashable, _Lane]):
    """Turns, by key. One that nobody uses does not exist: while there are none, nothing waits for anything."""

    @asynccontextmanager
    async def turn(self, call: Call, key: Hashable) -> AsyncIterator[None]:
        """Be the only one in this lane; call order is order. Raises `GroupTimeoutError`: nothing was done."""
        lane = self.get(key)
        if lane is None:
            lane = self[key] = _Lane()
        lane.users += 1
        try:
            try:
                async with call.within_deadline():
                    await lane.lock.acquire()
            except TimeoutError:
                raise call.withdrawn(None, None) from None
            try:
                yield
            finally:
                lane.lock.release()
        finally:
            lane.users -= 1
            if not lane.users:
                del self[key]
