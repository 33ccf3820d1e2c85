"""Groups: who sits where, in which life of a group name.

Theory of operation. A group name is lived by *incarnations*, one after another. Each has a fixed world_size and
one seat per rank, and passes through::

    forming ──(the last seat is taken)──> live ──(the last seat is left)──> gone
       │
       └──(every joiner has withdrawn)──> gone

Rules:

- A rank joins the oldest incarnation of the name in which its seat is free and was never used. If there is none
  it opens the next one, which forms while members of the last one are still there: so a rank that left and joins
  again waits for the next life, and no two lives ever mix.
- A joiner may withdraw, and its seat is free again; so it is if the incarnation became live before the withdrawal
  was heard, and the next joiner of that rank completes it. A seat that was left or lost is not used again.
- A seat held by a live member is a `RankConflictError`, another world_size a `WorldSizeMismatchError`, at once.
  The engine looks first (`holder`): a joiner may put a holder out, and waits for one whose connection is lost.
- Incarnation numbers are never reused on one store.
- A member that leaves or is lost fails what needs it and cannot have it, now and later (`PeerLostError`). An
  aborted incarnation fails everything, until its members have left.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from copy import copy

from aiopg._core.frames import Body
from aiopg._core.history import History
from aiopg._core.keys import NO_KEYS, Space
from aiopg._core.limits import Limits
from aiopg._core.mailboxes import Mailboxes
from aiopg._core.messages import Join, pack_value
from aiopg._core.recorder import Recorder, Trail
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg._core.rounds import Rounds
from aiopg.errors import (
    AiopgError,
    GroupAbortedError,
    PeerLostError,
    RankConflictError,
    StoreFullError,
    UsageError,
    WorldSizeMismatchError,
)

__all__ = ["Common", "Groups", "Incarnation", "Queued", "Seat"]

TALLY_STEP = 64 * 1024
"""A group's bytes are counted in the store's total when they changed by more than this: to add every payload to both
would cost each call, and the total need not be exact."""


class Seat(Waiting):
    """One rank's place in one incarnation; waits as a call until the incarnation is complete."""

    __slots__ = ("heard", "holder", "incarnation", "joined", "rank", "ttl", "used")

    def __init__(self, session: SessionId, join: Join, incarnation: Incarnation) -> None:
        super().__init__(session, join.seat, join.call)
        self.incarnation = incarnation
        self.rank = join.rank
        self.ttl = join.ttl
        self.holder = join.holder
        self.used = False  # whether its member has made a call in the group
        self.joined = incarnation.groups.recorder.now
        self.heard = math.nan
        """When its member last put, took or arrived; NaN before that, and where it is not known."""

    def facts(self) -> tuple[list[int], list[int]]:
        taken = self.incarnation.seats
        return sorted(taken), [rank for rank in range(self.incarnation.world_size) if rank not in taken]

    def told_facts(self) -> Body:
        if self.incarnation.known is None:
            self.incarnation.known = super().told_facts()
        return self.incarnation.known

    def lines(self, missing: Sequence[int]) -> tuple[str, ...]:
        return self.incarnation.trail.lines("join", came=self.incarnation.came)

    def withdraw(self) -> bool:
        self.incarnation.groups.unseat(self)
        return True


class Queued(Waiting):
    """A joiner whose rank is held by a member that no connection carries: it may come back, or be lost."""

    __slots__ = ("_queue", "holder", "join")

    def __init__(self, session: SessionId, join: Join, holder: Seat, queue: list[Queued]) -> None:
        super().__init__(session, join.seat, join.call)
        self.join = join
        self.holder = holder
        self._queue = queue

    def holder_is_there(self) -> bool:
        """Whether the seat is still held by the one that it was held by."""
        return self.holder.incarnation.seats.get(self.holder.rank) is self.holder

    def facts(self) -> tuple[list[int], list[int]]:
        return [], [self.join.rank]

    def lines(self, missing: Sequence[int]) -> tuple[str, ...]:
        return self.holder.incarnation.trail.lines("queued", missing)

    def withdraw(self) -> bool:
        self._queue.remove(self)
        return True


class Incarnation:
    """One life of a group name."""

    def __init__(self, groups: Groups, name: str, number: int, world_size: int) -> None:
        self.groups = groups
        self.name = name
        self.number = number
        self.world_size = world_size
        self.live = False
        self.works = False
        """Live and not aborted: its members' calls are to be heard."""
        self.ttl = math.inf
        """The shortest lifetime that any member ever gave its data."""
        self.seats: dict[int, Seat] = {}
        self.known: Body | None = None
        """What those are told who inquire while they wait for the others; None when it has changed."""
        self.gone: dict[int, PeerLostError] = {}
        self.aborted: GroupAbortedError | None = None
        self.history = History(groups.replies)
        self.expired_at = -math.inf
        """When a member last asked to drop what has expired."""
        self.tallied = 0
        """Of `bytes`, what the store's total counts."""
        self.trail = Trail(groups.recorder, name, number, self.seats)
        self.mailboxes = Mailboxes(name, groups.limits, groups.replies, self.trail)
        self.rounds = Rounds(name, world_size, groups.limits, groups.replies, self.trail)
        self.keys: Space | None = None
        """Its key space, once a member has asked for it."""

    def observe(self, recorder: Recorder) -> None:
        """See `Engine.observe`."""
        self.trail = self.mailboxes.trail = Trail(recorder, self.name, self.number, self.seats)
        self.rounds.observe(self.trail)

    def came(self) -> Iterator[tuple[float, str]]:
        """When each rank joined, the last one first; for people."""
        for rank, seat in reversed(self.seats.items()):
            yield seat.joined, f"rank {rank} joined ({seat.holder})"

    @property
    def bytes(self) -> int:
        """Payload bytes that wait in this incarnation, and those of its keys."""
        return self.waiting_bytes + (self.keys.bytes if self.keys is not None else 0)

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes that wait to be read, and may expire before that."""
        return self.mailboxes.bytes + self.rounds.bytes

    def key_space(self) -> Space:
        """The keys of this incarnation's members."""
        if self.keys is None:
            self.keys = Space(self, self.number, self.groups.limits, self.groups.replies)
        return self.keys

    def check_room(self, size: int) -> None:
        """Raises `StoreFullError` if `size` more bytes are too many."""
        held = self.mailboxes.bytes + self.rounds.bytes + size
        if self.keys is not None:
            held += self.keys.bytes
        limits = self.groups.limits
        if held > limits.group_bytes:
            raise StoreFullError("group_bytes", limits.group_bytes, f"group {self.name!r}")
        if abs(held - self.tallied) > TALLY_STEP:
            self.groups.check_tally(held - self.tallied)
            self.groups.tally += held - self.tallied
            self.tallied = held

    def count_again(self) -> None:
        """Have the store's total count what is here: also when what `check_room` made room for did not come."""
        self.groups.tally += self.bytes - self.tallied
        self.tallied = self.bytes

    def absent(self, rank: int) -> AiopgError | None:
        """Why `rank` will not do its part in this live group any more, if so."""
        if rank in self.seats:
            return None
        if rank in self.gone:
            return copy(self.gone[rank])
        if 0 <= rank < self.world_size:
            return None  # its joiner withdrew; whoever joins in its place will do it
        return UsageError(f"group {self.name!r} has ranks 0 to {self.world_size - 1}, not {rank}")

    def abort(self, error: GroupAbortedError) -> None:
        """Fail everything, now and later. The first abort is the one that is told."""
        if self.aborted is None:
            self.aborted = error
            self.works = False
            self.history.add("aborted", error.origin, error.reason)
            self.trail.member("aborted", error.origin, error.reason)
            self.mailboxes.abort(error)
            self.rounds.abort(error)
            if self.keys is not None:
                self.keys.fail(error)
                self.keys = None  # nobody can reach them any more

    def describe(self, away: Container[SessionId] = ()) -> dict[str, object]:
        """State for people, plain values only. `away`: sessions that no connection carries."""
        return {
            "name": self.name,
            "incarnation": self.number,
            "world_size": self.world_size,
            "state": "aborted" if self.aborted else "live" if self.live else "forming",
            "members": {rank: seat.holder for rank, seat in sorted(self.seats.items())},
            "gone": {rank: error.reason for rank, error in sorted(self.gone.items())},
            "left": sorted(rank for what, rank, _ in self.history.happenings if what == "left" and rank in self.gone),
            "rounds": self.rounds.describe(),
            "mailboxes": len(self.mailboxes),
            "messages": self.mailboxes.messages,
            "keys": self.keys.describe() if self.keys is not None else dict(NO_KEYS),
            "bytes": self.bytes,
            "away": [rank for rank, seat in sorted(self.seats.items()) if seat.session in away],
            **self._recorded(),
        }

    def _recorded(self) -> dict[str, object]:
        """What is known while a recorder is on; times in seconds before now."""
        recorder, trail = self.trail.recorder, self.trail
        if not recorder.is_on:
            return {}
        seats = sorted(self.seats.items())
        return {
            "since": {rank: recorder.now - seat.joined for rank, seat in seats if not math.isnan(seat.joined)},
            "silent": {rank: recorder.now - seat.heard for rank, seat in seats if not math.isnan(seat.heard)},
            "done": {"rounds": trail.rounds, "messages": trail.messages, "failed": trail.failures},
        }


class Common:
    """The store's own keys, for every session that may see all groups."""

    __slots__ = ("_groups", "keys", "tallied")

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self.keys = Space(self, 0, groups.limits, groups.replies)
        self.tallied = 0
        """Of their bytes, what the store's total counts."""

    def check_room(self, size: int) -> None:
        """Raises `StoreFullError` if `size` more bytes are too many."""
        held = self.keys.bytes + size
        self._groups.check_tally(held - self.tallied)
        self._groups.tally += held - self.tallied
        self.tallied = held

    def count_again(self) -> None:
        """Have the store's total count what is here."""
        self._groups.tally += self.keys.bytes - self.tallied
        self.tallied = self.keys.bytes


class Groups:
    """All incarnations of all names."""

    def __init__(self, limits: Limits, replies: Replies, recorder: Recorder) -> None:
        self.limits = limits
        self.replies = replies
        self.recorder = recorder
        self._incarnations: dict[str, list[Incarnation]] = {}  # oldest first, never an empty list
        self._last_number = 0
        self.tally = 0
        """Bytes of all groups, within `TALLY_STEP` a group, and of the store's own keys."""
        self.common = Common(self)

    def __len__(self) -> int:
        return sum(len(lives) for lives in self._incarnations.values())

    def __iter__(self) -> Iterator[Incarnation]:
        for lives in self._incarnations.values():
            yield from lives

    @property
    def last_number(self) -> int:
        """Number of the last incarnation that began."""
        return self._last_number

    def begin_after(self, number: int) -> None:
        """No incarnation began yet; the first one's number is larger than this."""
        self._last_number = number

    def join(self, session: SessionId, join: Join) -> Seat:
        """Seat a rank; when it is the last one, answer all.

        Raises `RankConflictError`, `WorldSizeMismatchError` or `StoreFullError`.
        """
        incarnation = self._free_seat(join) or self._open(join)
        if incarnation.history.is_long(incarnation.world_size):
            raise UsageError(f"ranks of group {join.group!r:.200} were taken and given back too often: close it")
        seat = incarnation.seats[join.rank] = Seat(session, join, incarnation)
        incarnation.known = None
        incarnation.ttl = min(incarnation.ttl, join.ttl)
        self.replies.wait(seat)
        incarnation.trail.member("joined", join.rank, join.holder)
        if len(incarnation.seats) == incarnation.world_size or incarnation.live:
            told = [seat] if incarnation.live else list(incarnation.seats.values())
            if not incarnation.live:
                incarnation.trail.member("formed", join.rank, str(incarnation.world_size))
            for member in told:
                incarnation.history.add("joined", member.rank, member.holder)
            incarnation.live = True
            incarnation.works = incarnation.aborted is None
            body = pack_value(incarnation.number)
            for member in told:
                self.replies.answer(member, body)
        return seat

    def lives(self, name: str) -> tuple[Incarnation, ...]:
        """The incarnations of a name, oldest first."""
        return tuple(self._incarnations.get(name, ()))

    def open_with(self, name: str, joins: list[tuple[SessionId, Join]]) -> list[Seat]:
        """A new incarnation, complete from its first moment: each has the rank that its join says.

        Raises `StoreFullError`.
        """
        incarnation = self._open(joins[0][1])
        for session, join in joins:
            incarnation.seats[join.rank] = Seat(session, join, incarnation)
            incarnation.ttl = min(incarnation.ttl, join.ttl)
            incarnation.history.add("joined", join.rank, join.holder)
            incarnation.trail.member("joined", join.rank, join.holder)
        incarnation.trail.member("formed", -1, str(incarnation.world_size))
        incarnation.live = incarnation.works = True
        return list(incarnation.seats.values())

    def holder(self, join: Join) -> Seat | None:
        """Who holds the seat that a joiner would take. Raises `WorldSizeMismatchError`."""
        lives = self._incarnations.get(join.group, [])
        for incarnation in lives:
            if incarnation.world_size != join.world_size:
                raise WorldSizeMismatchError(join.group, join.world_size, incarnation.world_size)
        open_lives = (life for life in lives if join.rank not in life.gone and not life.aborted)
        oldest = next(open_lives, None)
        return oldest.seats.get(join.rank) if oldest is not None else None

    def check_succession(self, holder: Seat, join: Join) -> None:
        """Raise what would keep the joiner from a seat though the holder were put out.

        That is `RankConflictError` if it would come to a later life and somebody waits there with that rank, or
        `StoreFullError`.
        """
        ends = holder.incarnation
        stays = len(ends.seats) > 1
        if stays and not ends.live:
            return  # the seat is free again
        others = (life for life in self._incarnations[join.group] if life is not ends)
        later = next((life for life in others if join.rank not in life.gone and not life.aborted), None)
        if later is not None and (rival := later.seats.get(join.rank)) is not None:
            raise RankConflictError(join.group, join.rank, rival.holder)
        if stays and later is None:
            self._check_number()

    def _free_seat(self, join: Join) -> Incarnation | None:
        if (holder := self.holder(join)) is not None:
            raise RankConflictError(join.group, join.rank, holder.holder)
        for incarnation in self._incarnations.get(join.group, []):
            if join.rank not in incarnation.gone and not incarnation.aborted:
                return incarnation
        return None

    def _check_number(self) -> None:
        if len(self) >= self.limits.groups:
            raise StoreFullError("groups", self.limits.groups)

    def _open(self, join: Join) -> Incarnation:
        self._check_number()
        self._last_number += 1
        incarnation = Incarnation(self, join.group, self._last_number, join.world_size)
        self._incarnations.setdefault(join.group, []).append(incarnation)
        return incarnation

    def check_tally(self, more: int) -> None:
        """Raises `StoreFullError` if so many more bytes are too many for the store."""
        if self.tally + more > self.limits.store_bytes:
            self.count_again()
        if self.tally + more > self.limits.store_bytes:
            raise StoreFullError("store_bytes", self.limits.store_bytes, "all groups together")

    def count_again(self) -> None:
        """Count what all groups hold: the tally does not follow what is read, expires or is dropped."""
        for incarnation in self:
            incarnation.count_again()
        self.common.count_again()

    def unseat(self, seat: Seat) -> None:
        """A joiner withdraws: its seat is as if never taken, also where the incarnation has become live meanwhile."""
        incarnation = seat.incarnation
        del incarnation.seats[seat.rank]
        incarnation.known = None
        incarnation.trail.member("left", seat.rank, "it took its join back")
        if incarnation.live:
            incarnation.history.add("left", seat.rank, "it took its join back")
        if not incarnation.seats:
            self._drop(incarnation)

    def lose(self, seat: Seat, reason: str, what: str = "lost") -> None:
        """A member is gone: it "left", or was "lost"."""
        incarnation = seat.incarnation
        if not incarnation.live:
            self.unseat(seat)
            return
        del incarnation.seats[seat.rank]
        incarnation.known = None
        error = PeerLostError(incarnation.name, [seat.rank], reason)
        incarnation.gone[seat.rank] = error
        incarnation.trail.member(what, seat.rank, reason)
        incarnation.mailboxes.lose(seat.rank, error)
        incarnation.rounds.lose(seat.rank, error)
        if incarnation.keys is not None:
            incarnation.keys.end_owner((seat.session, seat.seat))
        incarnation.history.add(what, seat.rank, reason)
        if not incarnation.seats:
            self._drop(incarnation)

    def _drop(self, incarnation: Incarnation) -> None:
        self.tally -= incarnation.tallied
        lives = self._incarnations[incarnation.name]
        lives.remove(incarnation)
        if not lives:
            del self._incarnations[incarnation.name]
