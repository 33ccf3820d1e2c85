"""Reads the store for all who look: one reader, however many there are.

Somebody looks: four times a second; nobody does: once a second, so that whoever comes finds the last minutes. In any
case the store's event loop spends at most a hundredth of its time on it: a store that takes long to say how it is
(tens of thousands of ranks) is asked less often.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import anyio

from aiopg._core.scopes import Scope
from aiopg.errors import StoreLostError
from aiopg.observe.http._page import Frame, next_frame
from aiopg.observe.http._tallies import Tallies
from aiopg.observe.http._timeline import Timeline
from aiopg.observe.picture import Picture
from aiopg.observe.view import View
from aiopg.stores.base import HAPPENINGS_READ, Excerpt

__all__ = ["Feed", "Source"]

WATCHED_SECONDS = 0.25
UNWATCHED_SECONDS = 1.0
"""Between two readings, at least."""

STORE_SHARE = 0.01
"""Of the time of the store's event loop, at most."""

OWN_SHARE = 0.2
"""Of one processor, at most, for what the page is told: thousands of groups may be told of less often."""

FRESH_SECONDS = 1.0
"""What is older is read anew for who asks, unless the store takes long to say it."""

SILENCE_SECONDS = 10.0
"""Who looks hears something at least so often: otherwise nobody would notice that he is gone."""


class Source(Protocol):
    """What there is to be known of a store. `Door` is one."""

    spent: float
    """Seconds that the store was at the last answer."""

    async def status(self) -> dict[str, Any]:
        """See `StoreLink.status`."""

    async def trace(self, after: int, most: int) -> Excerpt:
        """See `StoreLink.trace`."""


class Feed:
    """The newest frame, and what it was made of. `run` keeps it new."""

    def __init__(self, source: Source, url: str) -> None:
        """`url`: where members find the store; it is shown."""
        self.source = source
        self.url = url
        self.status: dict[str, Any] = {}
        """The store's last word on itself; empty before the first one."""
        self.frame: Frame | None = None
        """What the page is told; None while nobody looks."""
        self.watchers = 0
        self.dropped = 0
        """Who looked and did not take what was sent, since the start."""
        self.tallies = Tallies()
        self._view = View()
        self._timeline = Timeline()
        self._after = 0
        self._spent = self._worked = 0.0
        self._is_behind = False
        self._read_at = -FRESH_SECONDS
        self._turn = anyio.Lock()
        self._changed = anyio.Event()
        self._wanted = anyio.Event()
        self._closed = False

    async def run(self) -> None:
        """Read until the store is gone."""
        try:
            while True:
                await self.refresh(self._rest)
                least = max(self._rest, self._worked / OWN_SHARE)
                await anyio.sleep(least)  # also if somebody comes: many may, one behind the other
                pause = WATCHED_SECONDS if self.watchers else UNWATCHED_SECONDS
                with anyio.move_on_after(pause - least):
                    await self._wanted.wait()
                self._wanted = anyio.Event()
        except StoreLostError:
            self.close()

    def close(self) -> None:
        """The store is gone: whoever looks is told that there is no more."""
        self._closed = True
        self._changed.set()

    @property
    def _rest(self) -> float:
        """So long the store is left alone after a reading (`STORE_SHARE`)."""
        return self._spent / STORE_SHARE

    async def refresh(self, seconds: float = FRESH_SECONDS) -> dict[str, Any]:
        """The state of the store, read anew if it is older than this, and the store may be asked again.

        Raises `StoreLostError`.
        """
        async with self._turn:
            if anyio.current_time() - self._read_at >= max(seconds, self._rest):
                await self._read()
        return self.status

    async def _read(self) -> None:
        # Who is behind reads the newest ones: what is old is of less use.
        after = -HAPPENINGS_READ if self._is_behind else self._after
        excerpt = await self.source.trace(after, HAPPENINGS_READ)
        spent = self.source.spent
        happenings = [one for one in excerpt.happenings if one.number > self._after]
        missed = happenings[0].number - self._after - 1 if self._after and happenings else 0
        self._is_behind = missed > 0 or len(happenings) == HAPPENINGS_READ
        finished = self._view.hear(happenings, excerpt.now, missed=missed > 0)
        self._timeline.add(finished)
        self.tallies.add(finished, missed)
        self._after = excerpt.next
        self.status = await self.source.status()
        self._spent = spent + self.source.spent
        now = self.status.get("now", excerpt.now)
        self._view.see(self.status, now)
        self._read_at = anyio.current_time()
        began = time.perf_counter()
        self.frame = self._next_frame(now) if self.watchers else None
        self._worked = time.perf_counter() - began
        self._changed.set()
        self._changed = anyio.Event()

    def picture(self) -> Picture:
        """What has been made of it."""
        return self._view.picture()

    def _next_frame(self, now: float) -> Frame:
        return next_frame(self.frame, self._view.picture(now), self._timeline, now, self._facts(now))

    def _facts(self, now: float) -> dict[str, Any]:
        """What the page says of the store as a whole."""
        facts = {name: self.status[name] for name in ("pid", "version", "sessions") if name in self.status}
        return facts | {"url": self.url, "began": round(now - self.status.get("uptime", 0), 1)}

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self.watchers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.watchers -= 1

    async def tell(self, scope_now: Callable[[], Scope | None]) -> AsyncGenerator[str, None]:
        """What the page is told, whenever something has changed; empty texts when nothing has for long.

        Who takes one when there have been others since gets them all in one. It ends with the store, or when what may
        be seen is another than at first: tokens expire, and are replaced.
        """
        scope, last = scope_now(), None
        said_at = anyio.current_time()
        with self._watching():
            while scope is not None and scope_now() == scope and not self._closed:
                changed, frame = self._changed, self.frame
                said = None if frame is None else frame.tell(last, scope)
                last = frame
                if said is None and anyio.current_time() - said_at >= SILENCE_SECONDS:
                    said = ""
                if said is not None:
                    said_at = anyio.current_time()
                    yield said
                if changed is self._changed:  # otherwise there was another one while this one was taken
                    await changed.wait()
