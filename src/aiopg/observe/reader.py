"""Looking at a store through a link to it, again and again."""

from __future__ import annotations

import time
from typing import Any

from aiopg.observe.picture import Picture
from aiopg.observe.view import View
from aiopg.stores.base import HAPPENINGS_READ, StoreLink

__all__ = ["READS_MOST", "Reader"]

READS_MOST = 4
"""Reads of one refresh."""

SPARE = 50
"""A status is asked for again when so many times as long has passed as the last one took: looking costs a store, and
whoever waits behind the answer, no more than a fiftieth."""


class Reader:
    """Keeps a `View` of the store at the other end of a link. It makes no key, joins no group and changes nothing.

    Args:
        link: belongs to the caller, who closes it.
    """

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        self._view = View()
        self._has_recorder = True
        self._after = -HAPPENINGS_READ
        self._rest_until = 0.0

    @property
    def has_recorder(self) -> bool:
        """Whether the store tells what happened, as far as is known by now."""
        return self._has_recorder

    async def refresh(self) -> Picture:
        """Ask the store, and show what is known then.

        It waits for as long as the store takes; cancelling it loses nothing. A store of very many ranks is asked for
        its status less often than this is called (`SPARE`), and for what happened each time.

        Raises: StoreLostError (the link ended), GroupClosedError (it was closed).
        """
        began = time.monotonic()
        status: dict[str, Any] | None = None
        if began >= self._rest_until:
            status = await self._link.status()
            self._rest_until = time.monotonic() + SPARE * (time.monotonic() - began)
        now = await self._hear() if self._has_recorder else None
        if now is None:
            now = time.monotonic()
        if status is not None:
            self._view.see(status, status.get("now", now))
        return self._view.picture(now)

    async def _hear(self) -> float | None:
        """Take what happened since the last time; the store's clock, or None if it does not tell."""
        now: float | None = None
        for _ in range(READS_MOST):
            try:
                excerpt = await self._link.trace(self._after, HAPPENINGS_READ)
            except NotImplementedError:
                self._has_recorder = False
                return None
            if self._after > excerpt.next:
                self._view = View()  # the store was started anew, and counts from 1
            heard, now = excerpt.happenings, excerpt.now
            self._view.hear(heard, now, missed=self._after < 0 or excerpt.oldest > self._after + 1)
            self._after = excerpt.next
            if len(heard) < HAPPENINGS_READ:
                return now
        # More happens than we read: next time the newest, which are worth more than all.
        self._after = -HAPPENINGS_READ
        return now
