"""How a group forms of whoever comes, and forms anew when members come or go.

Theory of operation. A *lobby* is where those wait who asked for a place in a group of a name and no rank (`Enlist`). It
opens a new incarnation of the name when enough are there: at once when as many as there may be, else when `patience`
seconds have passed since the last of at least `least` came. Ranks are given in order of arrival. There is one group of
a name at a time: while an incarnation of it is live, those in the lobby wait for it to form anew, or to end.

A live incarnation *forms anew* when every member that it still has asks for it (`Reform`), whether some were lost, or
some wait in the lobby, or it was aborted: the next incarnation has the members of this one in the order of their
ranks, then as many from the lobby as fit. This is the shrink of MPI's fault tolerance (ULFM), and its growth. A member
that is lost while the others wait for it is not waited for; the members of the old incarnation stay what they are
until they leave it.

Who is given a place and withdraws at the same moment has it, and leaves it: the others see it lost.
"""

from __future__ import annotations

import math
import struct

from aiopg._core.frames import Body, body_size
from aiopg._core.groups import Groups, Incarnation, Seat
from aiopg._core.limits import Limits
from aiopg._core.messages import Enlist, Join, Reform
from aiopg._core.parts import pack_parts
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg._core.scopes import Scope, allows
from aiopg.errors import (
    AiopgError,
    GroupClosedError,
    PayloadTooLargeError,
    ProtocolError,
    StoreFullError,
    UsageError,
)

__all__ = ["Lobbies"]

_PLACE = struct.Struct(">IIq")

WAITING = "waiting"
"""What happens to the members of a live incarnation when somebody comes to its lobby."""


class _Applicant(Waiting):
    """Who asks for a place: in a lobby, or as a member of an incarnation that forms anew."""

    __slots__ = ("_lobbies", "holder", "metadata", "place", "ttl")

    def __init__(
        self, session: SessionId, seat: int, call: int, lobbies: Lobbies, asks: Enlist | Reform, place: _Lobby | Seat
    ) -> None:
        super().__init__(session, seat, call)
        self._lobbies = lobbies
        self.metadata = b"".join(asks.body)  # its size was checked
        self.holder = asks.holder
        self.ttl = asks.ttl
        self.place = place

    def facts(self) -> tuple[list[int], list[int]]:
        return self._lobbies.facts(self)

    def told_facts(self) -> Body:
        place = self.place.incarnation if isinstance(self.place, Seat) else self.place
        if place.known is None:
            place.known = super().told_facts()
        return place.known

    def withdraw(self) -> bool:
        self._lobbies.remove(self)
        return True


class _Lobby:
    __slots__ = ("applicants", "due", "known", "least", "most", "name", "patience")

    def __init__(self, name: str, least: int, most: int, patience: float) -> None:
        self.name = name
        self.least = least
        self.most = most
        self.patience = patience
        self.applicants: list[_Applicant] = []
        self.due = math.inf
        """When it opens a group, if none is live then."""
        self.known: Body | None = None
        """What those are told who inquire; None when it has changed."""

    def settle(self, now: float) -> None:
        """Somebody came, or went."""
        count = len(self.applicants)
        self.due = math.inf if count < self.least else now if count >= self.most else now + self.patience


class Lobbies:
    """All lobbies, and all incarnations that form anew."""

    __slots__ = ("_groups", "_limits", "_lobbies", "_reforming", "_replies")

    def __init__(self, groups: Groups, limits: Limits, replies: Replies) -> None:
        self._groups = groups
        self._limits = limits
        self._replies = replies
        self._lobbies: dict[str, _Lobby] = {}
        self._reforming: dict[int, dict[int, _Applicant]] = {}  # by incarnation and rank

    def __len__(self) -> int:
        return len(self._lobbies) + len(self._reforming)

    def enlist(self, session: SessionId, enlist: Enlist, now: float) -> None:
        """Somebody wants a place. Raises `UsageError`, `StoreFullError`, and as `Replies.wait`."""
        lobby = self._lobbies.get(enlist.group) or _Lobby(enlist.group, enlist.least, enlist.most, enlist.patience)
        if (lobby.least, lobby.most) != (enlist.least, enlist.most):
            raise UsageError(
                f"others wait for group {enlist.group!r:.200} with min_size {lobby.least} and max_size {lobby.most}, "
                f"not {enlist.least} and {enlist.most}"
            )
        self._check_metadata(enlist)
        if enlist.group not in self._lobbies and len(self._lobbies) >= self._limits.groups:
            raise StoreFullError("groups", self._limits.groups, "groups that are to form")
        applicant = self._admit(_Applicant(session, enlist.seat, enlist.call, self, enlist, lobby))
        self._lobbies[enlist.group] = lobby
        lobby.applicants.append(applicant)
        lobby.known = None
        lobby.settle(now)
        for life in self._groups.lives(enlist.group):
            if life.live and (not life.history.happenings or life.history.happenings[-1][0] != WAITING):
                life.history.add(WAITING, -1, applicant.holder)

    def reform(self, session: SessionId, reform: Reform, seat: Seat) -> list[Seat]:
        """A member wants its group to form anew. Returns the seats that were taken. Raises as `enlist`."""
        life = seat.incarnation
        if seat.rank in self._reforming.get(life.number, {}):
            raise UsageError(f"rank {seat.rank} of group {life.name!r:.200} asked already for it to form anew")
        self._check_metadata(reform)
        applicant = self._admit(_Applicant(session, reform.new_seat, reform.call, self, reform, seat))
        self._reforming.setdefault(life.number, {})[seat.rank] = applicant
        life.known = None
        return self._form_anew(life)

    def member_gone(self, seat: Seat, why: AiopgError | None = None) -> list[Seat]:
        """A member has gone, for whom the others may have waited. Returns the seats that were taken.

        `why`: what is told to that member, where it had asked for the group to form anew itself.
        """
        life = seat.incarnation
        arrived = self._reforming.get(life.number)
        if arrived is None:
            return []
        gone = arrived.get(seat.rank)
        if gone is not None:
            gone.withdraw()
            left = GroupClosedError(f"group {life.name!r:.200} was left while it was to form anew")
            self._replies.fail([gone], why or left)
        return self._form_anew(life) if arrived else []

    def asked_by(self, session: SessionId) -> int:
        """How many places a session waits for."""
        return sum(isinstance(waiting, _Applicant) for waiting in self._replies.waiting_of(session))

    def next_due(self) -> float:
        """When a lobby may open a group."""
        return min((lobby.due for lobby in self._lobbies.values() if self._is_free(lobby)), default=math.inf)

    def open_due(self, now: float) -> list[Seat]:
        """Open the groups whose time has come. Returns the seats that were taken."""
        seats: list[Seat] = []
        for lobby in [lobby for lobby in self._lobbies.values() if lobby.due <= now and self._is_free(lobby)]:
            seats += self._seat(lobby.name, self._take(lobby, lobby.most))
        return seats

    def describe(self, scope: Scope) -> list[dict[str, object]]:
        """Who waits for groups to form, for people; what may be seen in that scope."""
        return [
            {"group": lobby.name, "waiting": [one.holder for one in lobby.applicants], "awaited": lobby.least}
            for lobby in self._lobbies.values()
            if allows(scope, lobby.name)
        ]

    def facts(self, applicant: _Applicant) -> tuple[list[int], list[int]]:
        """Who has come and who is awaited: ranks of the incarnation that forms anew, or so many in a lobby."""
        place = applicant.place
        if isinstance(place, _Lobby):
            count = len(place.applicants)
            return list(range(count)), list(range(count, place.least))
        arrived = self._reforming[place.incarnation.number]
        return sorted(arrived), [rank for rank in sorted(place.incarnation.seats) if rank not in arrived]

    def remove(self, applicant: _Applicant) -> None:
        """One that waits no more."""
        self._groups.tally -= len(applicant.metadata)
        place = applicant.place
        if isinstance(place, _Lobby):
            place.applicants.remove(applicant)
            place.known = None
            if len(place.applicants) < place.least:
                place.due = math.inf
            self._drop_if_empty(place)
            return
        place.incarnation.known = None
        number = place.incarnation.number
        del self._reforming[number][place.rank]
        if not self._reforming[number]:
            del self._reforming[number]

    # -------------------------------------------------------------------------------------------------- inside

    def _check_metadata(self, asks: Enlist | Reform) -> None:
        if (size := body_size(asks.body)) > self._limits.metadata_bytes:
            raise PayloadTooLargeError(size, self._limits.metadata_bytes)

    def _admit(self, applicant: _Applicant) -> _Applicant:
        if any(self._replies.waiting_of(applicant.session, applicant.seat)):
            raise ProtocolError(f"seat {applicant.seat} is asked for already")
        size = len(applicant.metadata)
        self._groups.check_tally(size)
        self._replies.wait(applicant)
        self._groups.tally += size
        return applicant

    def _is_free(self, lobby: _Lobby) -> bool:
        return not any(True for _ in self._groups.lives(lobby.name))

    def _form_anew(self, life: Incarnation) -> list[Seat]:
        arrived = self._reforming[life.number]
        if arrived.keys() != life.seats.keys():
            return []
        del self._reforming[life.number]
        applicants = [arrived[rank] for rank in sorted(arrived)]
        lobby = self._lobbies.get(life.name)
        if lobby is not None and len(applicants) + len(lobby.applicants) >= lobby.least:
            applicants += self._take(lobby, lobby.most - len(applicants))
        return self._seat(life.name, applicants)

    def _take(self, lobby: _Lobby, most: int) -> list[_Applicant]:
        taken = lobby.applicants[: max(most, 0)]
        del lobby.applicants[: len(taken)]
        lobby.known = None
        if len(lobby.applicants) < lobby.least:
            lobby.due = math.inf
        self._drop_if_empty(lobby)
        return taken

    def _drop_if_empty(self, lobby: _Lobby) -> None:
        if not lobby.applicants:
            del self._lobbies[lobby.name]

    def _seat(self, name: str, applicants: list[_Applicant]) -> list[Seat]:
        """Open an incarnation of these, and tell each its place and what all said of themselves."""
        self._groups.tally -= sum(len(applicant.metadata) for applicant in applicants)
        size = len(applicants)
        joins = [
            (applicant.session, Join(applicant.call, applicant.seat, name, rank, size, applicant.ttl, applicant.holder))
            for rank, applicant in enumerate(applicants)
        ]
        try:
            seats = self._groups.open_with(name, joins)
        except StoreFullError as error:
            self._replies.fail(applicants, error)
            return []
        said = pack_parts([applicant.metadata for applicant in applicants])
        for seat, applicant in zip(seats, applicants, strict=True):
            place = _PLACE.pack(seat.rank, size, seat.incarnation.number)
            self._replies.answer(applicant, (place, *said))
        return seats
