"""`Watch`: the changes of keys, as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from aiopg import forks
from aiopg.errors import GroupClosedError, UsageError
from aiopg.keys._space import Space
from aiopg.stores.keys import Following, KeyCall, KeyEvent

__all__ = ["Watch"]


class Watch:
    """The changes of keys that begin with a prefix, each once and in order, over broken connections too.

    Made by `AsyncStore.watch`. An async iterator: each step waits for the next change. ::

        async with store.watch("jobs/") as watch:
            async for change in watch:
                print(change.kind, change.key, change.value)

    A step that is cancelled or times out loses nothing: the next one goes on there. It ends when the watch, or the
    store that it was made from, is closed by this process. A watch is read by one task at a time.

    Steps raise:
        WatchGapError: changes are not kept any more that it was to tell; it tells none after that. List the keys, and
            watch anew.
        KeyTimeoutError: nothing came within the watch's `timeout`; it goes on.
        StoreLostError: the link to the store ended.
        UsageError: another task waits for its next change.
        GroupAbortedError, FencedError; and of a group's keys what joining it raises.
    """

    def __init__(
        self,
        space: Space,
        prefix: str,
        after: int,
        *,
        hidden: int,
        new_call: Callable[[str, tuple[str, ...], float | None], KeyCall],
        timeout: float,
    ) -> None:
        """`hidden`: how many characters of each key are the prefix of the store that is asked, and not told."""
        self._following: Following | None = None
        self._closed = False
        self._come: deque[KeyEvent] = deque()
        self._waits = False
        self._space, self._prefix, self._after = space, prefix, after
        self._hidden, self._new_call, self._timeout = hidden, new_call, timeout
        self._loop = asyncio.get_running_loop()
        self._forks = forks.count
        keys = space.keys()
        if keys is not None:
            self._following = keys.follow(prefix, after)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._come)} at hand"
        return f"<Watch of {self._prefix + '*'!r}, {state}, at {self._space.link.url}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KeyEvent:
        if not await self._fill():
            raise StopAsyncIteration
        return self._take()

    async def aclose(self) -> None:
        """End the watch; a step that waits ends too. Twice is fine."""
        if not self._closed:
            self._closed = True
            self._come.clear()
            if self._following is not None and self._forks == forks.count:
                self._following.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._following is not None and not self._closed and self._forks == forks.count:
            try:
                # It may be freed in any thread, and in the midst of anything.
                self._loop.call_soon_threadsafe(self._following.close)
            except RuntimeError:
                pass  # the loop is closed, and the link with it

    async def _fill(self) -> bool:
        """Wait until there is a change to take. False if the watch has ended."""
        if self._come:
            return True
        if self._closed:
            return False
        call = self._new_call("watch", (self._prefix,), self._timeout)
        if self._waits:
            raise UsageError(f"another task waits for the next change of {self!r}; make a watch for each task")
        self._waits = True
        try:
            following = self._following or await self._begin()
            changes = await following.changes(call)
        except GroupClosedError:
            self._closed = True
        else:
            if not self._closed:
                self._come.extend(changes)
        finally:
            self._waits = False
        return not self._closed

    async def _begin(self) -> Following:
        """Of a group that was not joined when the watch was made."""
        keys = self._space.keys() or await self._space.enter(self._new_call("watch", (self._prefix,), None))
        self._following = keys.follow(self._prefix, self._after)
        return self._following

    def _take(self) -> KeyEvent:
        """The first of what came."""
        change = self._come.popleft()
        return replace(change, key=change.key[self._hidden :]) if self._hidden else change
