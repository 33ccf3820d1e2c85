"""Who listens is told what changed; who does not take it costs little, and is let go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.types import Message

from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.observe.http import _events, _feed
from aiopg.observe.http._events import Events
from aiopg.observe.http._feed import Feed
from aiopg.stores.base import Excerpt

ALL = ("*",)


class Beside:
    """A store that is asked in its own process."""

    def __init__(self, server: StoreServer) -> None:
        self._server = server
        self.spent = 0.0
        self.asked = 0

    async def status(self) -> dict[str, Any]:
        self.asked += 1
        return self._server.describe()

    async def trace(self, after: int, most: int) -> Excerpt:
        return self._server.trace(after, most)


@asynccontextmanager
async def feed_of(server: StoreServer) -> AsyncIterator[Feed]:
    feed = Feed(Beside(server), server.address)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        yield feed
        tasks.cancel_scope.cancel()


async def until_gone() -> Message:
    """A browser that stays."""
    await anyio.sleep_forever()
    raise AssertionError


async def test_who_takes_one_after_others_gets_them_in_one() -> None:
    """Nothing is kept for who is slow: what he missed is in the next one that he takes."""
    async with StoreServer() as server, feed_of(server) as feed:
        told = feed.tell(lambda: ALL)
        first = json.loads(await anext(told))
        assert first["order"] == []
        groups = [
            await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, group=f"group {n}")
            for n in range(3)
        ]
        while feed.frame is None or len(feed.frame.cards) < 3:
            await feed.refresh(0)
        await feed.refresh(0)
        second = json.loads(await anext(told))
        assert len(second["groups"]) == 3
        assert second["number"] > first["number"] + 1
        await told.aclose()
        assert feed.watchers == 0
        for group in groups:
            await group.close()


async def test_who_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past ten seconds (here: a moment) that an event is not taken its listener is dropped, and that is counted."""
    monkeypatch.setattr(_events, "SLOW_SECONDS", 0.05)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body" and b"frame" in message["body"]:
            await anyio.sleep_forever()  # the transport is full

    async with StoreServer() as server, feed_of(server) as feed:
        await feed.refresh()
        with anyio.fail_after(30):
            await Events(feed, lambda: ALL)({"type": "http"}, until_gone, send)
        assert (feed.dropped, feed.watchers) == (1, 0)


async def test_a_browser_that_goes_is_noticed_at_once() -> None:
    """Also while there is nothing to tell."""
    gone = anyio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body" and b"frame" in message["body"]:
            gone.set()

    async with StoreServer() as server, feed_of(server) as feed:
        with anyio.fail_after(30):
            await Events(feed, lambda: ALL)({"type": "http"}, receive, send)
        assert (feed.dropped, feed.watchers) == (0, 0)


async def test_who_hears_of_nothing_hears_that_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something is written now and then: otherwise it would not be noticed that nobody is there any more."""
    monkeypatch.setattr(_feed, "SILENCE_SECONDS", 0.05)
    async with StoreServer() as server, feed_of(server) as feed:
        told = feed.tell(lambda: ALL)
        assert await anext(told)
        with anyio.fail_after(30):
            assert await anext(told) == ""
        await told.aclose()


async def test_it_ends_when_something_else_may_be_seen() -> None:
    """A token that is replaced, or expires, while somebody listens."""
    scope: tuple[str, ...] | None = ALL
    async with StoreServer() as server, feed_of(server) as feed:
        told = feed.tell(lambda: scope)
        assert await anext(told)
        scope = None
        with anyio.fail_after(30):
            assert [frame async for frame in told] == []


async def test_a_store_that_takes_long_to_say_how_it_is_is_asked_less_often() -> None:
    """It is never at it for more than a hundredth of its time."""
    async with StoreServer() as server:
        source = Beside(server)
        source.spent = 0.5
        feed = Feed(source, server.address)
        feed.watchers = 1
        with anyio.move_on_after(0.6):  # in which it would be asked three times, if that cost nothing
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed.run)
                await anyio.sleep_forever()
        assert source.asked == 1
