"""The scribe of a server that keeps a journal: every input is written down, and nothing leaves before that is on disk.

Theory of operation. The inputs of the exchange (`_core.exchange`) are recorded as they are given to it. What the
exchange has to say, acknowledgements included, waits in one line behind the records that it rests on, and goes when
they are durable as the journal's mode promises: so no member ever knows of something that a crash could undo. All
records of one pass of the event loop are one write (`journal`), so under load the price is shared.

After a crash the inputs are replayed from the last snapshot on. The engine's clock goes on from the last time in the
journal: the time that the store was down does not count. Members that come again find their sessions as they were; one
that does not is lost after a while (`_sessions.RESTART_GRACE_SECONDS`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from aiopg._core.compaction import is_due, restore
from aiopg._core.exchange import Line
from aiopg._core.frames import Received
from aiopg._core.limits import Limits
from aiopg._core.records import (
    encode_away,
    encode_back,
    encode_command,
    encode_confirm,
    encode_end,
    encode_held,
    encode_open,
    encode_timer,
)
from aiopg.loops import clock_of
from aiopg.server._connection import RecordedConnection
from aiopg.server.journal import Journal

__all__ = ["Scribe"]

BACKLOG_BYTES = 64 * 1024 * 1024
"""Nothing more is read from members while so much waits for the disk; below half of it reading goes on."""


class Scribe:
    """Round one journal and one exchange, on one event loop."""

    def __init__(self, journal: Journal, limits: Limits, about: Mapping[str, object]) -> None:
        """Replays what the journal holds. Blocks as long as that takes.

        Raises `JournalCorruptError` if the journal makes no sense.
        """
        self.journal = journal
        self._loop = asyncio.get_running_loop()
        self.exchange, now = restore(journal.snapshot, journal.records, limits, about)
        self._clock = clock_of(self._loop)
        self._ahead = now - self._clock()
        self.frame: Received | None = None
        """The frame that is being acted on."""
        self._position = 0
        self._waiting: deque[tuple[int, Callable[[], None], Callable[[], None] | None]] = deque()
        self._gave_up = False
        self._paused: list[RecordedConnection] = []
        self._stopping = False
        journal.on_written = self._written

    def now(self) -> float:
        """The engine's time."""
        return self._clock() + self._ahead

    # ------------------------------------------------------------------------------------------------- inputs

    def opened(self, line: Line) -> None:
        """See `Exchange.open`."""
        self._position = self.journal.append(encode_open(line.id, line.secret, line.grace, line.process, line.scope))

    def back(self, line: Line) -> None:
        """See `Exchange.back`; also for a connection that took the place of another."""
        self._position = self.journal.append(encode_back(line.id, line.attempt))

    def away(self, line: Line) -> None:
        """See `Exchange.away`."""
        self._position = self.journal.append(encode_away(line.id))

    def command(self, line: Line, now: float) -> None:
        """See `Exchange.command`: the one in `frame`."""
        assert self.frame is not None
        _, ack, kind, fields, body = self.frame
        self._position = self.journal.append(encode_command(line.id, ack, kind, fields, body, now))

    def confirmed(self, line: Line, count: int) -> None:
        """See `Exchange.confirm`."""
        self._position = self.journal.append(encode_confirm(line.id, count))

    def ended(self, line: Line, reason: str) -> None:
        """See `Exchange.end`."""
        self._position = self.journal.append(encode_end(line.id, reason))

    def ticked(self, now: float) -> None:
        """See `Exchange.handle_timer`."""
        self._position = self.journal.append(encode_timer(now))

    # ------------------------------------------------------------------------------------------------ outputs

    def when_recorded(self, action: Callable[[], None], or_else: Callable[[], None] | None = None) -> None:
        """Do this when all that was recorded so far is durable; in order, and at once if it is.

        `or_else`: to be done instead when it is clear that it will never be (`give_up`).
        """
        if self.journal.written >= self._position and not self._waiting:
            action()
        elif not self._gave_up:
            self._waiting.append((self._position, action, or_else))
        elif or_else is not None:
            or_else()

    def give_up(self) -> None:
        """The journal cannot be written any more."""
        self._gave_up = True
        waiting, self._waiting = self._waiting, deque()
        for _, _, or_else in waiting:
            if or_else is not None:
                or_else()

    def slow_down(self, connections: Mapping[RecordedConnection, None]) -> None:
        """Have the members wait if the disk is too far behind."""
        if self.journal.backlog > BACKLOG_BYTES and not self._paused:
            self._paused = list(connections)
            for connection in self._paused:
                connection.pause_reading(True)

    def rotate_in_time(self) -> None:
        """Have the journal begin a new log, and make a snapshot, if the logs have grown long."""
        if self._stopping or self.journal.rotating:
            return
        if is_due(self.journal.size, self.journal.snapshot_bytes):
            self._position = self.journal.append(encode_held(self.exchange))
            self.journal.rotate()

    def stop(self) -> None:
        """The journal is to be closed: no new log is begun. What waits still goes when it is recorded."""
        self._stopping = True

    def _written(self) -> None:
        waiting, written = self._waiting, self.journal.written
        while waiting and waiting[0][0] <= written:
            waiting.popleft()[1]()
        if self._paused and self.journal.backlog < BACKLOG_BYTES / 2:
            paused, self._paused = self._paused, []
            for connection in paused:
                connection.pause_reading(False)
        self.rotate_in_time()
