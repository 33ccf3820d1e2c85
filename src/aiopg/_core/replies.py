"""Calls that wait, and the events that end them.

Each call gets exactly one event. A call that cannot be answered at once is a `Waiting`; the table of those
is here, so that no state machine can answer a call twice or forget one when its session ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

from aiopg._core.frames import Body
from aiopg._core.messages import Event, Failed, Withdrawn, answer, pack_error, pack_value
from aiopg.errors import AiopgError, ProtocolError, StoreFullError

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

    def told_facts(self) -> Body:
        """The same for who inquires, as thousands do when one rank is late: made once, until they change."""
        return pack_value(self.facts())

    def lines(self, missing: Sequence[int]) -> tuple[str, ...]:
        """What happened lately that matters to this call, for the error that it may end with (`recorder.Trail`).

        `missing`: the awaited ranks of `facts`.
        """
        return ()

    @abstractmethod
    def withdraw(self) -> bool:
        """Leave no trace, as if the call had not been made. False: too late, it was answered instead."""

    def confirmed(self) -> None:  # noqa: B027 (few calls ever ask for a receipt)
        """The caller has acknowledged an answer that asked for it."""

    def unconfirmed(self) -> None:  # noqa: B027
        """The caller's session ended before it did."""


class Replies:
    """The waiting calls of all sessions, and the events to deliver."""

    def __init__(self, waiting_calls: int) -> None:
        """`waiting_calls`: as many calls of one session may wait (`Limits.waiting_calls`)."""
        self.obey(waiting_calls)
        self._waiting: dict[SessionId, dict[int, Waiting]] = {}
        self._receipts: dict[SessionId, dict[int, Waiting]] = {}
        self._events: list[tuple[SessionId, Event]] = []

    def obey(self, waiting_calls: int) -> None:
        """Keep this limit from here on."""
        self._waiting_calls = waiting_calls

    def __len__(self) -> int:
        """Calls that wait, and answers whose receipt is awaited."""
        return sum(map(len, self._waiting.values())) + sum(map(len, self._receipts.values()))

    def check(self, session: SessionId, call: int) -> None:
        """Whether `call` may wait: to be asked before anything is changed for it.

        Raises `ProtocolError` if a call of that number waits already (one event could not be told from the other's),
        `StoreFullError` if too many wait.
        """
        calls = self._waiting.get(session)
        if calls is None:
            return
        if call in calls:
            raise ProtocolError(f"call {call} was made again while it waits")
        if len(calls) >= self._waiting_calls:
            raise StoreFullError("waiting_calls", self._waiting_calls, "this session")

    def wait(self, waiting: Waiting) -> None:
        """Remember a call that cannot be answered yet. Raises as `check`, and then remembers nothing."""
        session, call = waiting.session, waiting.call
        calls = self._waiting.get(session)
        if calls is None:
            calls = self._waiting[session] = {}
        elif call in calls or len(calls) >= self._waiting_calls:
            self.check(session, call)
        calls[call] = waiting

    def waiting(self, session: SessionId, call: int) -> Waiting | None:
        """The waiting call of that number, if it waits."""
        calls = self._waiting.get(session)
        return calls.get(call) if calls else None

    def answer(self, waiting: Waiting, body: Body = ()) -> None:
        """End a waiting call with its result."""
        self._forget(waiting)
        self._events.append((waiting.session, answer(waiting.call, False, body)))

    def answer_all(self, waitings: Iterable[Waiting], body: Body, receipt: bool) -> None:
        """End waiting calls with one shared result; with `receipt`, `Waiting.confirmed` is called in time."""
        table, say = self._waiting, self._events.append
        for waiting in waitings:
            session, call = waiting.session, waiting.call
            if (calls := table.get(session)) is not None:
                calls.pop(call, None)
            if receipt:
                self._receipts.setdefault(session, {})[call] = waiting
            say((session, answer(call, receipt, body)))

    def fail(self, waitings: Iterable[Waiting], error: AiopgError, trace: Sequence[str] = ()) -> None:
        """End waiting calls with one error, which is encoded once for all of them; `trace`: lines that it carries."""
        body = None
        for waiting in waitings:
            body = body or pack_error(error, trace)
            self._forget(waiting)
            self._events.append((waiting.session, Failed(waiting.call, body)))

    def withdrawn(self, waiting: Waiting, facts: tuple[list[int], list[int]], trace: tuple[str, ...] = ()) -> None:
        """End a waiting call that was taken back; `trace`: see `Waiting.lines`."""
        self._forget(waiting)
        told = (*facts, trace) if trace else facts
        self._events.append((waiting.session, Withdrawn(waiting.call, pack_value(told))))

    def withdrawn_now(self, session: SessionId, call: int) -> None:
        """End a call of which nothing came here but that it was given up."""
        self._events.append((session, Withdrawn(call, pack_value((None, None)))))

    def let_go(self, waiting: Waiting) -> None:
        """A waiting call goes on as another one with the same number."""
        self._forget(waiting)

    def answer_now(self, session: SessionId, call: int, body: Body = ()) -> None:
        """Answer a call that never waited."""
        self._events.append((session, answer(call, False, body)))

    def fail_now(self, session: SessionId, call: int, error: AiopgError, trace: Sequence[str] = ()) -> None:
        """Fail a call that never waited."""
        self._events.append((session, Failed(call, pack_error(error, trace))))

    def confirm(self, session: SessionId, call: int) -> None:
        """The session has acknowledged the answer of `call`."""
        receipts = self._receipts.get(session, {})
        waiting = receipts.pop(call, None)
        if waiting is None:
            return
        if not receipts:
            del self._receipts[session]
        waiting.confirmed()

    def waiting_of(self, session: SessionId, seat: int | None = None) -> list[Waiting]:
        """The waiting calls of a session, or of one of its seats."""
        calls = self._waiting.get(session, {}).values()
        return [waiting for waiting in calls if seat is None or waiting.seat == seat]

    def end_session(self, session: SessionId) -> None:
        """Forget a session that is over: its calls get no event any more."""
        self._waiting.pop(session, None)
        for waiting in self._receipts.pop(session, {}).values():
            waiting.unconfirmed()
        self._events = [event for event in self._events if event[0] != session]

    def drain(self) -> list[tuple[SessionId, Event]]:
        """The events since the last time, in order."""
        events, self._events = self._events, []
        return events

    # --------------------------------------------------------------------------------------------------- inside

    def _forget(self, waiting: Waiting) -> None:
        calls = self._waiting.get(waiting.session)
        if calls is not None:
            # The session's table stays, empty, until the session ends: most sessions are soon back.
            calls.pop(waiting.call, None)
