"""The engine: everything a store knows and does, as a deterministic function of its inputs.

Inputs are `apply` (a session said something), `confirm` (a session acknowledged an answer that asked for it),
`away` and `back` (no connection carries a session; one does again), `end_session` and `handle_timer`; each returns the
events to deliver, in order. `now` is monotonic seconds and never runs backwards. The same inputs give the same events
and the same state, always.

The engine trusts no session: a command that makes no sense is answered with an error and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias, cast

from aiopg._core.frames import body_size
from aiopg._core.groups import Common, Groups, Incarnation, Seat
from aiopg._core.key_messages import STORE, KeyCommand
from aiopg._core.keys import NO_KEYS
from aiopg._core.keys.requests import REQUESTS
from aiopg._core.limits import Limits
from aiopg._core.membership import Membership
from aiopg._core.messages import (
    Abort,
    Arrive,
    Cancel,
    Command,
    Enlist,
    Event,
    Expire,
    Inquire,
    Join,
    Leave,
    Message,
    Needs,
    Put,
    Reform,
    Status,
    Take,
    TakeBack,
    Trace,
    Vacate,
    Void,
    Watch,
    pack_value,
)
from aiopg._core.recorder import BOUNDS, Excerpt, Recorder
from aiopg._core.replies import Replies, SessionId
from aiopg._core.scopes import ANY_GROUP, Scope, allows
from aiopg.errors import (
    AiopgError,
    AuthenticationError,
    ProtocolError,
    UsageError,
)

__all__ = ["Engine", "Events"]

Events: TypeAlias = list[tuple[SessionId, Event]]

SWEEPS_PER_TTL = 8
"""Expired data is looked for this often in the shortest lifetime in use; readers never see it in any case."""

SWEEP_SECONDS_LEAST = 0.05
"""And never more often than this, however short the lifetimes."""


class Engine:
    """The state of one store."""

    def __init__(self, limits: Limits, about: Mapping[str, object]) -> None:
        """`about`: plain values that the shell wants in every description of this store (its pid, its version)."""
        self._limits = limits
        self._replies = Replies(limits.waiting_calls)
        recorder = Recorder()  # records nothing
        self._groups = Groups(limits, self._replies, recorder)
        self._membership = Membership(self._groups, limits, self._replies)
        self._swept = 0.0
        self.complete(about)
        self.observe(recorder)

    def complete(self, about: Mapping[str, object]) -> None:
        """Give the engine what is not state, and so in no snapshot."""
        self._about = dict(about)
        membership = self._membership
        self._working_seat = membership.working_seat
        self._handlers: dict[type[Any], Callable[[SessionId, Any, float], None]] = {
            Join: membership.join,
            Enlist: membership.enlist,
            Reform: membership.reform,
            Leave: membership.leave,
            Vacate: membership.vacate,
            Abort: membership.abort,
            Put: self._put,
            TakeBack: self._take_back,
            Take: self._take,
            Arrive: self._arrive,
            Cancel: self._cancel,
            Void: self._void,
            Inquire: self._inquire,
            Expire: self._expire,
            Watch: self._watch,
            Status: self._status,
            Trace: self._trace,
            **dict.fromkeys(REQUESTS, self._on_keys),
        }

    def observe(self, recorder: Recorder, sessions: Callable[[], int] | None = None) -> None:
        """From here on what happens is recorded there. `sessions`: how many there are, for descriptions."""
        self._recorder = self._groups.recorder = recorder
        self._sessions = sessions
        for incarnation in self._groups:
            incarnation.observe(recorder)

    # ------------------------------------------------------------------------------------------------- inputs

    def restrict(self, session: SessionId, scope: Scope) -> None:
        """The session may join and see no other groups than these."""
        self._membership.restrict(session, scope)

    def apply(self, session: SessionId, command: Message, now: float) -> Events:
        """A session's command takes effect, or fails and changes nothing.

        Raises `ProtocolError` if the message is no command.
        """
        handler = self._handlers.get(type(command))
        if handler is None:
            raise ProtocolError(f"a store takes no {type(command).__name__}")
        self._recorder.now = now
        try:
            handler(session, command, now)
        except AiopgError as error:
            self._replies.fail_now(session, cast(Command, command).call, error)
        return self._replies.drain()

    def confirm(self, session: SessionId, call: int) -> Events:
        """A session has acknowledged the answer of `call`, which asked for it (`Answer.receipt`)."""
        self._replies.confirm(session, call)
        return self._replies.drain()

    def away(self, session: SessionId, now: float | None = None) -> None:
        """No connection carries the session; it may come back. Who wants its ranks waits to see whether it does.

        `now`, here and in the next two: for the recorder alone; without it, the time of the last input that had one.
        """
        self._at(now)
        self._membership.leave_away(session)

    def rival(self, session: SessionId, join: Join) -> SessionId | None:
        """Which other session holds the rank that a joiner would be refused for; None: it will not be for that."""
        try:
            holder = None if join.takeover else self._groups.holder(join)
        except AiopgError:
            return None  # another world_size, which `apply` says
        return None if holder is None or holder.session == session else holder.session

    def is_away(self, session: SessionId) -> bool:
        """Whether `away` was said of the session last, and not `back`."""
        return session in self._membership.away

    def back(self, session: SessionId, now: float | None = None) -> Events:
        """A connection carries the session again."""
        self._at(now)
        self._membership.back(session)
        return self._replies.drain()

    def end_session(self, session: SessionId, reason: str, now: float | None = None) -> Events:
        """A session is over: its members are gone from their groups, for the `reason` given."""
        self._at(now)
        self._membership.end_session(session, reason)
        return self._replies.drain()

    def _at(self, now: float | None) -> None:
        if now is not None:
            self._recorder.now = now

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due, or None while nothing can expire."""
        ttl, end = math.inf, self._groups.common.keys.values.next_end()
        for incarnation in self._groups:
            if incarnation.waiting_bytes:
                ttl = min(ttl, incarnation.ttl)
            if incarnation.keys is not None:
                end = min(end, incarnation.keys.values.next_end())
        sweep = self._swept + max(ttl / SWEEPS_PER_TTL, SWEEP_SECONDS_LEAST)
        when = min(sweep, end, self.next_opening())
        return None if when == math.inf else when

    def next_opening(self) -> float:
        """When a group of whoever came is to form; infinite if none is."""
        return self._membership.lobbies.next_due()

    def handle_timer(self, now: float) -> Events:
        """Drop what is past its time."""
        self._swept = self._recorder.now = now
        for incarnation in self._groups:
            incarnation.mailboxes.expire(now)
            incarnation.rounds.expire(now)
            if incarnation.keys is not None:
                incarnation.keys.values.expire(now)
        self._groups.common.keys.values.expire(now)
        self._membership.open_due(now)
        return self._replies.drain()

    # -------------------------------------------------------------------------------------------------- state

    @property
    def last_number(self) -> int:
        """Number of the last incarnation that began."""
        return self._groups.last_number

    def begin_after(self, number: int) -> None:
        """The first incarnation has a larger number than this: those up to it were of an earlier life of the store."""
        self._groups.begin_after(number)

    @property
    def members(self) -> int:
        """Seats taken, in all groups."""
        return sum(len(seats) for seats in self._membership.seats.values())

    @property
    def is_vacant(self) -> bool:
        """Whether no seat is taken in any group, and nobody waits for one that is to form."""
        return self._membership.is_vacant

    def describe(self, scope: Scope = ANY_GROUP, now: float | None = None) -> dict[str, object]:
        """State for people, plain values only; what may be seen in that scope.

        `now`: without it, ages are those at the last input that had one.
        """
        self._at(now)
        seen = [incarnation for incarnation in self._groups if allows(scope, incarnation.name)]
        common, sees_all = self._groups.common.keys, scope == ANY_GROUP
        return self._about | {
            "groups": [incarnation.describe(self._membership.away) for incarnation in seen],
            "rounds": sum(len(incarnation.rounds) for incarnation in seen),
            "bytes": sum(incarnation.bytes for incarnation in seen) + (common.bytes if sees_all else 0),
            "members": sum(len(incarnation.seats) for incarnation in seen),
            "lobbies": self._membership.lobbies.describe(scope),
            "keys": common.describe() if sees_all else dict(NO_KEYS),
            "limits": asdict(self._limits),
            **self._recorded(seen, sees_all),
        }

    def excerpt(
        self, after: int, most: int, group: str = "", scope: Scope = ANY_GROUP, now: float | None = None
    ) -> Excerpt:
        """What was recorded, see `Recorder.excerpt`; what may be seen in that scope."""
        self._at(now)
        return self._recorder.excerpt(after, most, group, scope)

    def _recorded(self, seen: list[Incarnation], sees_all: bool) -> dict[str, object]:
        """What is known while a recorder is on."""
        recorder = self._recorder
        if not recorder.is_on:
            return {}
        trails = [incarnation.trail for incarnation in seen]
        told: dict[str, object] = {"now": recorder.now, "uptime": recorder.now - recorder.began}
        if not sees_all:
            rounds, messages = sum(trail.rounds for trail in trails), sum(trail.messages for trail in trails)
            return told | {"done": {"rounds": rounds, "messages": messages}}
        took = {"bounds": BOUNDS, "counts": tuple(recorder.took), "sum": recorder.seconds}
        return told | {
            "done": {"rounds": recorder.totals["done"], "messages": recorder.totals["put"]},
            "sessions": self._sessions() if self._sessions is not None else 0,
            "totals": dict(recorder.totals),
            "round_seconds": took,
        }

    # ------------------------------------------------------------------------------------------------ messages

    def _put(self, session: SessionId, put: Put, now: float) -> None:
        call, number, dst, tag, body = put
        seat = self._working_seat(session, number, tag)
        incarnation = seat.incarnation
        seat.heard = now
        if dst not in incarnation.seats and (absent := incarnation.absent(dst)) is not None:
            self._replies.fail_now(session, call, absent, incarnation.trail.lines("lost"))
            return
        incarnation.check_room(body_size(body))
        try:
            incarnation.mailboxes.put((seat.rank, dst, tag), body, call, now + seat.ttl)
        except AiopgError:
            incarnation.count_again()
            raise
        self._replies.answer_now(session, call)

    def _take_back(self, session: SessionId, command: TakeBack, now: float) -> None:
        seat = self._working_seat(session, command.seat, command.tag)
        address = (seat.rank, command.dst, command.tag)
        taken = not seat.incarnation.mailboxes.take_back(address, command.put)
        self._replies.answer_now(session, command.call, pack_value(taken))

    def _take(self, session: SessionId, take: Take, now: float) -> None:
        _, number, src, tag, _ = take
        seat = self._working_seat(session, number, tag)
        incarnation = seat.incarnation
        seat.heard = now
        gone = None if src in incarnation.seats else incarnation.absent(src)
        incarnation.mailboxes.take(session, take, (src, seat.rank, tag), now, gone)

    # --------------------------------------------------------------------------------------------- collectives

    def _arrive(self, session: SessionId, arrive: Arrive, now: float) -> None:
        _, number, tag, _, _, root, _, needs, _, body = arrive
        seat = self._working_seat(session, number, tag)
        incarnation = seat.incarnation
        seat.heard = now
        if needs == Needs.ROOT and not 0 <= root < incarnation.world_size:
            raise UsageError(f"root must be 0 to {incarnation.world_size - 1}, not {root}")
        if not Needs.NOTHING <= needs <= Needs.ALL_TOLD:
            raise ProtocolError(f"no arrival needs {needs}")
        if body:
            incarnation.check_room(body_size(body))
        try:
            incarnation.rounds.arrive(session, seat.rank, arrive, now, seat.ttl)
        except AiopgError:
            incarnation.count_again()
            raise

    # ---------------------------------------------------------------------------------------------------- keys

    def _on_keys(self, session: SessionId, command: KeyCommand, now: float) -> None:
        home: Incarnation | Common
        if command.seat != STORE:
            home = self._working_seat(session, command.seat).incarnation
            space = home.key_space()
        else:
            if session in self._membership.scopes:
                raise AuthenticationError(
                    "", "this member's token is for some groups, and the store's own keys are for all"
                )
            home = self._groups.common
            space = home.keys
        space.values.expire(now)
        try:
            REQUESTS[type(command)](space, session, command, now)
        except AiopgError:
            home.count_again()
            raise

    # ---------------------------------------------------------------------------------------------- every call

    def _cancel(self, session: SessionId, cancel: Cancel, now: float) -> None:
        waiting = self._replies.waiting(session, cancel.call)
        if waiting is None:
            return  # it has had its event already
        facts = waiting.facts()
        lines = waiting.lines(facts[1])
        if waiting.withdraw():
            self._replies.withdrawn(waiting, facts, lines)
            if isinstance(waiting, Seat):
                self._membership.withdrawn(session, waiting)

    def _void(self, session: SessionId, void: Void, now: float) -> None:
        self._replies.withdrawn_now(session, void.call)

    def _inquire(self, session: SessionId, inquire: Inquire, now: float) -> None:
        waiting = self._replies.waiting(session, inquire.about)
        self._replies.answer_now(session, inquire.call, waiting.told_facts() if waiting else pack_value(None))

    def _expire(self, session: SessionId, expire: Expire, now: float) -> None:
        incarnation = self._working_seat(session, expire.seat).incarnation
        count = 0
        if now >= incarnation.expired_at + SWEEP_SECONDS_LEAST:  # it looks at all that the group holds
            incarnation.expired_at = now
            count = incarnation.mailboxes.expire(now) + incarnation.rounds.expire(now)
        self._replies.answer_now(session, expire.call, pack_value(count))

    def _watch(self, session: SessionId, watch: Watch, now: float) -> None:
        seat = self._membership.seat(session, watch.seat)
        if not seat.incarnation.live:
            raise ProtocolError("the group is not formed yet")
        seat.incarnation.history.watch(session, watch)

    def _status(self, session: SessionId, status: Status, now: float) -> None:
        self._replies.answer_now(
            session, status.call, pack_value(self.describe(self._membership.scopes.get(session, ANY_GROUP)))
        )

    def _trace(self, session: SessionId, trace: Trace, now: float) -> None:
        _, after, most, group, _ = trace
        scope = self._membership.scopes.get(session, ANY_GROUP)
        if group and not allows(scope, group):
            raise AuthenticationError("", f"this member's token is not for group {group!r:.200}")
        told = self.excerpt(after, most, group, scope)
        self._replies.answer_now(session, trace.call, pack_value(told.fields()))
