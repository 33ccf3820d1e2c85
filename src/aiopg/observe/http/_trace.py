"""`/api/trace`: the store's happenings as Chrome's trace-event JSON (`observe.chrome`)."""

from __future__ import annotations

import json
from typing import Any

import anyio.to_thread

from aiopg._core.scopes import Scope, allows
from aiopg.observe.chrome import chrome_trace
from aiopg.observe.http._feed import Feed
from aiopg.observe.http._scoped import narrow
from aiopg.stores.base import HAPPENINGS_READ, Excerpt, Happening

__all__ = ["chrome_json"]

EXCERPTS = 16
"""Of a store that goes on while it is read, no more is read than it could have kept."""


async def chrome_json(feed: Feed, scope: Scope, group: str | None, seconds: float) -> str:
    """What happened in the last `seconds` to the groups that may be seen, or to one of them, as far as it is kept.

    Raises `StoreLostError`.
    """
    after = 0
    found: list[Happening] = []
    for _ in range(EXCERPTS):
        excerpt = await feed.source.trace(after, HAPPENINGS_READ)
        after = excerpt.next
        found += excerpt.happenings
        if len(excerpt.happenings) < HAPPENINGS_READ:
            break
    status = narrow(await feed.refresh(), scope)
    shown = [
        one
        for one in found
        if one.at >= excerpt.now - seconds and allows(scope, one.group) and (group is None or one.group == group)
    ]
    # In a thread: all that a store keeps is megabytes of JSON, and pages that are open want their share.
    return await anyio.to_thread.run_sync(_write, shown, excerpt, status)


def _write(shown: list[Happening], excerpt: Excerpt, status: dict[str, Any]) -> str:
    return json.dumps(chrome_trace(shown, now=excerpt.now, epoch=excerpt.epoch, status=status))
