"""A member's session as the server's shell sees it: what carries it, and how its end is noticed."""

from __future__ import annotations

import asyncio

from aiopg._core.exchange import Line
from aiopg.processes import ProcessIdentity, WatchHandle
from aiopg.server._connection import ServerConnection

__all__ = ["ServerSession"]


class ServerSession:
    """One session. `line` is what a journal keeps of it; the rest belongs to this life of the server."""

    __slots__ = ("connection", "ended_how", "grace_timer", "identity", "line", "watch")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.connection: ServerConnection | None = None
        self.grace_timer: asyncio.TimerHandle | None = None
        """Runs while no connection carries it."""
        self.identity: ProcessIdentity | None = None
        """Its process, where that is sure to be on this host."""
        self.watch: WatchHandle | None = None
        self.ended_how = ""
        """How its process ended, if it did."""

    def stop_timers(self) -> None:
        """It is over, or carried again."""
        if self.grace_timer is not None:
            self.grace_timer.cancel()
            self.grace_timer = None
