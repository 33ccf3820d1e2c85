"""Calls that wait, and the events that end them.

Each call gets exactly one event. A call that cannot be answered at once is a `Waiting`; the table of those
is here, so that no state machine can answer a call twice or forget one when its session ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TypeAlias

from aiopg._core.frames import Body
from aiopg._core.messages import Answer, Event, Failed, Withdrawn, pack_error, pack_value
from aiopg.errors import AiopgError

__all__ = ["Replies", "SessionId", "Waiting"]

SessionId: TypeAlias = Hashable
"""Names a session to the engine; any hashable value the shell likes."""


class Waiting(ABC):
    """A call that waits on the store: who made it, whom it waits for, and how to take it back."""

    __slots__ = ("call", "seat", "session")

    def __init__(self, session: SessionId, seat: int, call: int) -> None:
        self.session = session
        self.seat = seat
        self.call = call

    @abstractmethod
    def facts(self) -> tuple[list[int], list[int]]:
        """Ranks that have arrived and ranks that are awaited."""

    @abstractmethod
    def withdraw(self) -> bool:
        """Leave no trace, as if the call had not been made. False: too late, it was answered instead."""

    def confirmed(self) -> None:
        """The caller has acknowledged an answer that asked for it."""


class Replies:
    """The waiting calls of all sessions, and the events to deliver."""

    def __init__(self) -> None:
        self._waiting: dict[SessionId, dict[int, Waiting]] = {}
        self._receipts: dict[tuple[SessionId, int], Waiting] = {}
        self._events: list[tuple[SessionId, Event]] = []

    def wait(self, waiting: Waiting) -> None:
        """Remember a call that cannot be answered yet."""
        calls = self._waiting.get(waiting.session)
        if calls is None:
            calls = self._waiting[waiting.session] = {}
        calls[waiting.call] = waiting

    def waiting(self, session: SessionId, call: int) -> Waiting | None:
        """The waiting call of that number, if it waits."""
        calls = self._waiting.get(session)
        return calls.get(call) if calls else None

    def count(self, session: SessionId) -> int:
        """How many calls of the session wait."""
        return len(self._waiting.get(session, ()))

    def answer(self, waiting: Waiting, body: Body = (), receipt: bool = False) -> None:
        """End a waiting call with its result; with `receipt`, `Waiting.confirmed` is called in time."""
        self._forget(waiting)
        if receipt:
            self._receipts[waiting.session, waiting.call] = waiting
        self._events.append((waiting.session, Answer(waiting.call, receipt, body)))

    def fail(self, waiting: Waiting, error: AiopgError) -> None:
        """End a waiting call with an error."""
        self._forget(waiting)
        self._events.append((waiting.session, Failed(waiting.call, pack_error(error))))

    def withdrawn(self, waiting: Waiting, facts: tuple[list[int], list[int]]) -> None:
        """End a waiting call that was taken back."""
        self._forget(waiting)
        self._events.append((waiting.session, Withdrawn(waiting.call, pack_value(facts))))

    def answer_now(self, session: SessionId, call: int, body: Body = ()) -> None:
        """Answer a call that never waited."""
        self._events.append((session, Answer(call, False, body)))

    def fail_now(self, session: SessionId, call: int, error: AiopgError) -> None:
        """Fail a call that never waited."""
        self._events.append((session, Failed(call, pack_error(error))))

    def confirm(self, session: SessionId, call: int) -> None:
        """The session has acknowledged the answer of `call`."""
        waiting = self._receipts.pop((session, call), None)
        if waiting is not None:
            waiting.confirmed()

    def waiting_of(self, session: SessionId, seat: int | None = None) -> list[Waiting]:
        """The waiting calls of a session, or of one of its seats."""
        calls = self._waiting.get(session, {}).values()
        return [waiting for waiting in calls if seat is None or waiting.seat == seat]

    def end_session(self, session: SessionId) -> None:
        """Forget a session that is over: its calls get no event any more."""
        self._waiting.pop(session, None)
        self._events = [event for event in self._events if event[0] != session]
        for key in [key for key in self._receipts if key[0] == session]:
            del self._receipts[key]

    def drain(self) -> list[tuple[SessionId, Event]]:
        """The events since the last time, in order."""
        events, self._events = self._events, []
        return events

    def _forget(self, waiting: Waiting) -> None:
        calls = self._waiting.get(waiting.session)
        if calls is not None:
            calls.pop(waiting.call, None)
            if not calls:
                del self._waiting[waiting.session]
