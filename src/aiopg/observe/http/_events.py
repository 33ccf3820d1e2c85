"""Server-sent events: the page is told what has changed, a few times a second, for as long as it listens.

There is no queue: who is slow gets all that he missed in one event. What is on its way to one who looks is one event
and what the transport buffers; who does not take that within `SLOW_SECONDS` is dropped, and his browser comes again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import anyio
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from aiopg._core.scopes import Scope
from aiopg.observe.http._feed import Feed

__all__ = ["Events"]

SLOW_SECONDS = 10.0

RETRY_MILLISECONDS = 2000
"""A browser whose connection ended comes again so much later."""


class Events(Response):
    """One who listens."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, scope_now: Callable[[], Scope | None]) -> None:
        """`scope_now`: what may be seen at this moment."""
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed
        self._scope_now = scope_now

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with anyio.create_task_group() as tasks:

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(until_gone)
            try:
                await self._tell(send)
            except TimeoutError:
                self._feed.dropped += 1
            tasks.cancel_scope.cancel()

    async def _tell(self, send: Send) -> None:
        text = f"retry: {RETRY_MILLISECONDS}\n\n"
        with anyio.fail_after(SLOW_SECONDS):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        async with aclosing(self._feed.tell(self._scope_now)) as told:
            async for frame in told:
                text = f"event: frame\ndata: {frame}\n\n" if frame else ": nothing new\n\n"
                with anyio.fail_after(SLOW_SECONDS):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
