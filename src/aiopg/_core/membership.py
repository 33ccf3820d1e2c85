"""Membership: which session holds which seat, who waits for one, and how a seat is taken and given up.

Rules:

- A session counts its seats up; each is one rank of one incarnation (`groups`), that it asked for or was given
  (`lobbies`).
- A rank that is held by a member whose connection is away is waited for: the member may come back, or be lost.
- A member that is put out (takeover) keeps the number of its seat, and every call on it fails.
- A session whose token is for some groups may ask for no others.
"""

from __future__ import annotations

from copy import copy

from aiopg._core.groups import Groups, Queued, Seat
from aiopg._core.key_messages import STORE
from aiopg._core.limits import Limits
from aiopg._core.lobbies import Lobbies
from aiopg._core.messages import Abort, Enlist, Join, Leave, Reform, Tag, Vacate
from aiopg._core.replies import Replies, SessionId
from aiopg._core.scopes import ANY_GROUP, Scope, allows
from aiopg.errors import (
    AiopgError,
    AuthenticationError,
    FencedError,
    GroupAbortedError,
    GroupClosedError,
    ProtocolError,
    RankConflictError,
    StoreFullError,
    UsageError,
)

__all__ = ["Membership"]


class Membership:
    """All seats of all sessions."""

    def __init__(self, groups: Groups, limits: Limits, replies: Replies) -> None:
        self._groups = groups
        self._limits = limits
        self._replies = replies
        self.lobbies = Lobbies(groups, limits, replies)
        self.seats: dict[SessionId, dict[int, Seat]] = {}
        self.away: set[SessionId] = set()
        """Sessions that no connection carries."""
        self.queue: list[Queued] = []
        self.fenced: dict[SessionId, dict[int, FencedError]] = {}
        """Seats that were taken over."""
        self.scopes: dict[SessionId, Scope] = {}
        """Of the sessions that may not join every group."""

    @property
    def is_vacant(self) -> bool:
        """Whether no seat is taken in any group, and nobody waits for one that is to form."""
        return not self.seats and not len(self.lobbies)

    def restrict(self, session: SessionId, scope: Scope) -> None:
        """The session may join and see no other groups than these."""
        if scope != ANY_GROUP:
            self.scopes[session] = scope

    def leave_away(self, session: SessionId) -> None:
        """No connection carries the session."""
        self.away.add(session)
        for seat in self.seats.get(session, {}).values():
            seat.incarnation.trail.member("away", seat.rank)

    def back(self, session: SessionId) -> None:
        """A connection carries the session again: who waited to see whether it would is refused."""
        self.away.discard(session)
        for seat in self.seats.get(session, {}).values():
            seat.incarnation.trail.member("back", seat.rank)
        for queued in [queued for queued in self.queue if queued.holder.session == session]:
            self._refuse(queued, queued.holder.holder)

    def end_session(self, session: SessionId, reason: str) -> None:
        """A session is over: its members are lost."""
        self.away.discard(session)
        self.scopes.pop(session, None)
        self.fenced.pop(session, None)
        seats = self.seats.pop(session, {})
        for waiting in self._replies.waiting_of(session):
            if not isinstance(waiting, Seat):
                waiting.withdraw()
        for seat in seats.values():
            self._groups.lose(seat, reason)
            self._take_seats(self.lobbies.member_gone(seat))
        self._groups.common.keys.end_owner((session, STORE))
        self._replies.end_session(session)
        self._seat_queued()

    def withdrawn(self, session: SessionId, seat: Seat) -> None:
        """A join was taken back before it was answered."""
        self._unseat(session, seat.seat)
        self._seat_queued()

    # ------------------------------------------------------------------------------------------------ commands

    def join(self, session: SessionId, join: Join, now: float) -> None:
        """A session takes a rank, or waits for it."""
        self._check_join(session, join)
        self._replies.check(session, join.call)
        holder = self._groups.holder(join)
        if holder is not None and join.takeover:
            self._groups.check_succession(holder, join)
            fenced = self._fence(holder, join.holder)
            self._take_seat(session, join)
            self._take_seats(self.lobbies.member_gone(holder, fenced))  # behind the seat, or it might be refused now
            return
        if holder is not None and holder.session in self.away:
            queued = Queued(session, join, holder, self.queue)
            self._replies.wait(queued)
            self.queue.append(queued)
            return
        self._take_seat(session, join)

    def enlist(self, session: SessionId, enlist: Enlist, now: float) -> None:
        """A session takes whatever rank there will be."""
        self._check_place(session, enlist.seat, enlist.group, enlist.holder, enlist.ttl)
        most = self._limits.world_size
        if not 1 <= enlist.least <= enlist.most <= most:
            raise UsageError(f"min_size and max_size must be 1 to {most}, not {enlist.least} and {enlist.most}")
        if not enlist.patience >= 0:
            raise UsageError(f"the patience of a rendezvous must be 0 seconds or more, not {enlist.patience}")
        self.lobbies.enlist(session, enlist, now)
        self.open_due(now)

    def reform(self, session: SessionId, reform: Reform, now: float) -> None:
        """A member has its group form anew."""
        seat = self.seat(session, reform.seat)
        if not seat.incarnation.live:
            raise ProtocolError("the group is not formed yet")
        self._check_place(session, reform.new_seat, seat.incarnation.name, reform.holder, reform.ttl)
        self._take_seats(self.lobbies.reform(session, reform, seat))

    def leave(self, session: SessionId, leave: Leave | Vacate, now: float) -> None:
        """A member gives its seat up."""
        seat = self.seat(session, leave.seat)
        for waiting in self._replies.waiting_of(session, leave.seat):
            facts = waiting.facts()
            if not isinstance(waiting, Seat) and not waiting.withdraw():
                continue
            self._replies.withdrawn(waiting, facts)
        self._groups.lose(seat, "it left the group", "left")
        self._unseat(session, leave.seat)
        self._take_seats(self.lobbies.member_gone(seat))
        self._seat_queued()
        self._replies.answer_now(session, leave.call)

    def vacate(self, session: SessionId, vacate: Vacate, now: float) -> None:
        """A session takes a join back."""
        for queued in self.queue:
            if (queued.session, queued.seat) == (session, vacate.seat):
                self.queue.remove(queued)
                self._replies.withdrawn(queued, queued.facts())
                self._replies.answer_now(session, vacate.call)
                return
        seat = self.seat(session, vacate.seat)
        if seat.used:  # what it did cannot be undone, so nobody can take its place
            self.leave(session, vacate, now)
            return
        if self._replies.waiting(session, seat.call) is seat:
            self._replies.withdrawn(seat, seat.facts())
        self._groups.unseat(seat)
        self._unseat(session, vacate.seat)
        self._take_seats(self.lobbies.member_gone(seat))
        self._seat_queued()
        self._replies.answer_now(session, vacate.call)

    def abort(self, session: SessionId, abort: Abort, now: float) -> None:
        """A member ends its group for all."""
        seat = self.seat(session, abort.seat)
        if not seat.incarnation.live:
            raise ProtocolError("the group is not formed yet")
        reason = abort.reason.encode(errors="replace")[: self._limits.reason_bytes].decode(errors="ignore")
        seat.incarnation.abort(GroupAbortedError(seat.incarnation.name, seat.rank, reason))
        self._replies.answer_now(session, abort.call)

    # --------------------------------------------------------------------------------------------------- seats

    def seat(self, session: SessionId, number: int) -> Seat:
        """The seat of that number. Raises `FencedError` or `GroupClosedError` if the session has none."""
        seat = self.seats.get(session, {}).get(number)
        if seat is None:
            if (fenced := self.fenced.get(session, {}).get(number)) is not None:
                raise copy(fenced)
            raise GroupClosedError(f"seat {number} is not taken")
        return seat

    def working_seat(self, session: SessionId, number: int, tag: Tag = 0) -> Seat:
        """The seat, if its group can work; raises what every call on it fails with otherwise."""
        seats = self.seats.get(session)
        seat = seats.get(number) if seats else None
        if seat is None or not seat.incarnation.works:
            seat = self.seat(session, number)
            if (aborted := seat.incarnation.aborted) is not None:
                raise copy(aborted)  # raising the kept one would grow its traceback each time
            raise ProtocolError("the group is not formed yet")
        if type(tag) is str and len(tag.encode(errors="replace")) > self._limits.tag_bytes:
            raise UsageError(f"a tag has at most {self._limits.tag_bytes} bytes, not {tag!r:.200}")
        seat.used = True
        return seat

    def open_due(self, now: float) -> None:
        """Open the groups whose time has come."""
        self._take_seats(self.lobbies.open_due(now))

    def _take_seats(self, seats: list[Seat]) -> None:
        """Members have places in a group that formed of whoever came."""
        for seat in seats:
            taken = self.seats.setdefault(seat.session, {})
            if seat.seat in taken:  # taken by a join while it was asked for here: a member of ours counts its seats up
                self._groups.lose(seat, "it took two seats with one number")
            else:
                taken[seat.seat] = seat

    def _take_seat(self, session: SessionId, join: Join) -> None:
        seat = self._groups.join(session, join)
        self.seats.setdefault(session, {})[join.seat] = seat

    def _fence(self, seat: Seat, by: str) -> FencedError:
        """Put a member out: its rank has another holder from here on."""
        error = FencedError(seat.incarnation.name, seat.rank, by)
        for waiting in self._replies.waiting_of(seat.session, seat.seat):
            if waiting is seat or waiting.withdraw():
                self._replies.fail([waiting], error)
        for queued in [queued for queued in self.queue if queued.holder is seat]:
            self._refuse(queued, by)
        self.fenced.setdefault(seat.session, {})[seat.seat] = error
        self._groups.lose(seat, f"its rank was taken over by {by}")
        self._unseat(seat.session, seat.seat)
        return error

    def _refuse(self, queued: Queued, holder: str) -> None:
        """Who queues for a rank does not get it: that `holder` is there."""
        self.queue.remove(queued)
        self._replies.fail([queued], RankConflictError(queued.join.group, queued.join.rank, holder))

    def _seat_queued(self) -> None:
        """Seats may have become free: who waits for one gets it, or the error that tells why not."""
        for queued in [queued for queued in self.queue if not queued.holder_is_there()]:
            self.queue.remove(queued)
            self._replies.let_go(queued)
            try:
                self._check_join(queued.session, queued.join)  # again: the session may have joined more meanwhile
                self._take_seat(queued.session, queued.join)
            except AiopgError as error:
                self._replies.fail_now(queued.session, queued.call, error)

    def _check_join(self, session: SessionId, join: Join) -> None:
        self._check_place(session, join.seat, join.group, join.holder, join.ttl)
        if not 1 <= join.world_size <= self._limits.world_size:
            raise UsageError(f"world_size must be 1 to {self._limits.world_size} on this store, not {join.world_size}")
        if not 0 <= join.rank < join.world_size:
            raise UsageError(f"rank must be 0 to {join.world_size - 1}, not {join.rank}")

    def _check_place(self, session: SessionId, seat: int, group: str, holder: str, ttl: float) -> None:
        limits = self._limits
        if (scope := self.scopes.get(session)) is not None and not allows(scope, group):
            raise AuthenticationError("", f"this member's token is not for group {group!r:.200}")
        if seat in (seats := self.seats.get(session, {})):
            raise ProtocolError(f"seat {seat} is taken")
        asked = self.lobbies.asked_by(session)
        if len(seats) + len(self.fenced.get(session, ())) + asked >= limits.seats:
            raise StoreFullError("seats", limits.seats, "this session")
        if len(group.encode(errors="replace")) > limits.name_bytes or not group:
            raise UsageError(f"a group name has 1 to {limits.name_bytes} bytes, not {group!r:.200}")
        if len(holder.encode(errors="replace")) > limits.reason_bytes:
            raise UsageError(f"a member's name has at most {limits.reason_bytes} bytes, not {holder!r:.200}")
        if not ttl > 0:
            raise UsageError(f"data_expiration_seconds must be over 0, not {ttl}")

    def _unseat(self, session: SessionId, number: int) -> None:
        seats = self.seats[session]
        del seats[number]
        if not seats:
            del self.seats[session]
