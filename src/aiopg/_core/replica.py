"""A replica: one of many copies of a room's engine, that all apply the same log.

Theory of operation. Members append entries to a log (`entries`) which keeps them in one order for all, and each member
applies every entry to a copy of its own; it hears what the engine says to its session, and drops the rest. What a copy
is depends on the log alone, not on who has it, when it applies it, or whether it began with a snapshot (`stategraph`).
So all copies are equal behind equal entries, and no member has to be asked for anything.

Rules:

- A session counts its entries up from 1, and begins with the first. One that is there already is passed over, so an
  entry may be written again by who does not know whether it was written.
- That a session is over is an entry as well, of whoever saw it first. A session that is over does not come again.
- The room's time is the largest that an entry has told; who comes into a room where nobody was adds how long that
  was, by the calendar. What is past its time goes before the entry takes effect that says so; where nobody has
  anything to say, an entry without inputs says so.
- Who asks for a rank that another session holds puts that one down as away, and waits. A member that hears that of
  itself says that it is there (`Here`), and then the joiner is refused; one whose process has died says nothing more.
- A payload that lies elsewhere (`blobs`) and was handed out is needed until its reader has it (`Got`), or is over.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiopg._core.blobs import Blob, blobs_in, brought_by
from aiopg._core.engine import Engine, Events
from aiopg._core.entries import Entry, Gone, Got, Here, Input
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Command, Join
from aiopg.errors import ProtocolError

__all__ = ["Attendance", "Replica"]

ENDED_KEPT = 1024
"""So many sessions that are over are remembered. An entry that was sent twice comes within seconds, or never."""


class Attendance:
    """A session that is in the room."""

    __slots__ = ("blobs", "entries", "owed")

    def __init__(self) -> None:
        self.entries = 0
        """How many of its entries were applied."""
        self.blobs = 0
        """The largest number under which it has written something elsewhere, as far as entries say."""
        self.owed: dict[int, tuple[Blob, ...]] = {}
        """What lies elsewhere and it was answered with, by call, until it has that in hand."""


class Replica:
    """One copy. Its attributes are for reading."""

    __slots__ = ("date", "ended", "engine", "now", "sessions")

    def __init__(self, limits: Limits, about: Mapping[str, object], last_number: int = 0) -> None:
        """Of a room that begins; numbers of its incarnations are over `last_number`. `about`: see `Engine`."""
        self.engine = Engine(limits, about)
        self.engine.begin_after(last_number)
        self.sessions: dict[bytes, Attendance] = {}
        """Those in the room, oldest first."""
        self.ended: dict[bytes, None] = {}
        """Those that were, oldest first."""
        self.now = 0.0
        """The room's time, in seconds."""
        self.date = 0.0
        """The latest that an entry has told, in seconds since 1970; 0: none has."""

    def now_after(self, date: float) -> float:
        """The room's time on that date (seconds since 1970) if nobody has been in the room since the last entry."""
        return self.now + (max(date - self.date, 0.0) if self.date else 0.0)

    def is_suspect(self, sid: bytes) -> bool:
        """Whether somebody thinks that this session is away: if it is not, it is to say so."""
        return sid in self.sessions and self.engine.is_away(sid)

    def next_deadline(self) -> float | None:
        """When an entry is to be written though nobody has anything to say, in the room's time."""
        return self.engine.next_deadline()

    def apply(self, sender: bytes, number: int, entry: Entry) -> Events:
        """The next entry of the log: number `number` of session `sender`. The events for all sessions, in order.

        Raises `ProtocolError` where the log has lost some of the entries before: nothing was changed.
        """
        session = self.sessions.get(sender)
        if session is None:
            if number != 1 or sender in self.ended:
                return []
        elif number <= session.entries:
            return []
        elif number != session.entries + 1:
            raise ProtocolError(
                f"entry {number} of session {sender.hex()} came behind entry {session.entries}: the log has lost some"
            )
        if session is None:
            session = self.sessions[sender] = Attendance()
        session.entries = number
        self.date = max(self.date, entry.date)
        events = self._move_on(entry.now)
        for one in entry.inputs:
            if sender in self.sessions:  # it may have said that it is over
                events += self._input(sender, session, one)
        return events

    # ------------------------------------------------------------------------------------------------- inside

    def _move_on(self, now: float) -> Events:
        self.now = max(self.now, now)
        due = self.engine.next_deadline()
        return self._owing(self.engine.handle_timer(self.now)) if due is not None and due <= self.now else []

    def _input(self, sender: bytes, session: Attendance, one: Input) -> Events:
        if isinstance(one, Got):
            session.owed.pop(one.call, None)
            return self._owing(self.engine.confirm(sender, one.call))
        if isinstance(one, Here):
            return self._owing(self.engine.back(sender))
        if isinstance(one, Gone):
            return self._end(one)
        self._note(sender, session, one.command)
        return self._owing(self.engine.apply(sender, one.command, self.now))

    def _note(self, sender: bytes, session: Attendance, command: Command) -> None:
        """What a replica has to know of a command beside what the engine does with it."""
        for blob in brought_by(command):
            session.blobs = max(session.blobs, blob.number)
        if isinstance(command, Join) and (rival := self.engine.rival(sender, command)) is not None:
            self.engine.away(rival)

    def _end(self, gone: Gone) -> Events:
        if self.sessions.pop(gone.session, None) is None:
            return []
        self.ended[gone.session] = None
        if len(self.ended) > ENDED_KEPT:
            del self.ended[next(iter(self.ended))]
        return self._owing(self.engine.end_session(gone.session, gone.reason))

    def _owing(self, events: Events) -> Events:
        """Remember what is handed out and lies elsewhere."""
        for target, event in events:
            if type(event) is Answer and event.body and (blobs := blobs_in(event.body)):
                session = self.sessions.get(target)  # type: ignore[call-overload]
                if session is not None:
                    session.owed[event.call] = blobs
        return events
