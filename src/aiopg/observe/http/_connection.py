"""A connection to the side port: whoever brings no request on it holds little, and not for long.

Everybody may connect, and uvicorn waits for a first request as long as it takes. Of its two readers of requests this is
the one that bounds how long the head of a request may be (64 KiB).
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["CONNECTIONS", "Connection"]

CONNECTIONS: Final = 256
"""At once. Who comes then takes the place of the oldest one that never brought a request; where there is none, his
request is answered with 503."""

IDLE_SECONDS = 5.0
"""So long a connection may take to bring a request, and about as long to bring another one."""


_places = itertools.count()
"""In order of coming. Times would not do: on uvloop those of many are the same."""


class Connection(H11Protocol):
    """What uvicorn makes for each one."""

    _last: object = None
    """The request that was the newest one when it was looked last."""
    _timer: asyncio.TimerHandle | None = None
    _place = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._place = next(_places)
        self._timer = self.loop.call_later(IDLE_SECONDS, self._look)
        if len(self.connections) >= CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
            oldest = min((one for one in others if one.is_silent), key=lambda one: one._place, default=None)
            if oldest is not None:
                oldest.transport.abort()
                self.connections.discard(oldest)  # uvicorn counts when the request comes, which may be before it ends

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def is_silent(self) -> bool:
        """Whether no request came yet."""
        return self.cycle is None

    def _look(self) -> None:
        """Let go of it if nothing was asked since the last time, and all that was is answered."""
        is_idle = self.is_silent or self.cycle.response_complete
        if not is_idle or self.cycle is not self._last:
            self._last = self.cycle
            self._timer = self.loop.call_later(IDLE_SECONDS, self._look)
        elif self.is_silent:
            self.transport.abort()
        else:
            self.transport.close()  # what is still on its way to a slow reader gets there
