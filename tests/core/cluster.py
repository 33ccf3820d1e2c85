"""An engine, the members that talk to it, and a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiopg._core.engine import Engine, Events
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    Abort,
    Answer,
    Arrive,
    Cancel,
    Command,
    Event,
    Expire,
    Failed,
    Inquire,
    Join,
    Leave,
    Needs,
    Put,
    Status,
    Tag,
    Take,
    TakeBack,
    Trace,
    Vacate,
    Withdrawn,
    unpack_error,
    unpack_value,
)
from aiopg._core.parts import join_parts, split_parts
from aiopg.errors import AiopgError

__all__ = ["Cluster", "Member", "Ticket"]

TTL = 100.0


class Cluster:
    """Drives one engine; every event is filed under the session and call it belongs to."""

    def __init__(self, **limits: Any) -> None:
        self.engine = Engine(Limits(**limits), {"pid": 1})
        self.now = 1000.0
        self.events: dict[tuple[object, int], list[Event]] = {}
        self.order: list[tuple[object, int]] = []
        self._last_call = 0

    def say(self, session: object, command: Command) -> Ticket:
        """A session says a command."""
        self.file(self.engine.apply(session, command, self.now))
        return Ticket(self, session, command.call)

    def file(self, events: Events) -> None:
        """Keep what the engine told."""
        for session, event in events:
            self.events.setdefault((session, event.call), []).append(event)
            self.order.append((session, event.call))

    def number(self) -> int:
        """A call number that was never used."""
        self._last_call += 1
        return self._last_call

    def member(self, rank: int, size: int, group: str = "g", session: object = None, ttl: float = TTL) -> Member:
        """A member that has asked to join, by default in a session of its own."""
        return Member(self, rank, size, group, f"{group}{rank}" if session is None else session, ttl)

    def group(self, size: int, group: str = "g", ttl: float = TTL) -> list[Member]:
        """A formed group."""
        members = [self.member(rank, size, group, ttl=ttl) for rank in range(size)]
        assert all(type(member.join.event) is Answer for member in members)
        return members

    def lose(self, member: Member, reason: str = "its connection ended") -> None:
        """A member's session is over."""
        self.file(self.engine.end_session(member.session, reason, self.now))

    def confirm(self, ticket: Ticket) -> None:
        """The session of this answered call acknowledges its answer."""
        self.file(self.engine.confirm(ticket.session, ticket.call))

    def advance(self, seconds: float) -> None:
        """Time passes, and the timer is handled whenever it is due."""
        end = self.now + seconds
        while (due := self.engine.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.file(self.engine.handle_timer(self.now))
        self.now = end

    def describe(self, group: int = 0) -> dict[str, Any]:
        """The engine's own description of one group."""
        groups = self.engine.describe()["groups"]
        assert isinstance(groups, list)
        described: dict[str, Any] = groups[group]
        return described

    @property
    def is_empty(self) -> bool:
        """Whether the engine holds nothing at all."""
        engine = self.engine
        return len(engine._groups) == len(engine._replies) == 0 and engine.is_vacant and engine.next_deadline() is None

    @property
    def is_idle(self) -> bool:
        """Whether nothing but the members themselves is left in the groups."""
        for incarnation in self.engine._groups:
            rounds, mailboxes = incarnation.rounds, incarnation.mailboxes
            if len(rounds) or len(mailboxes) or rounds._owed or rounds.bytes or mailboxes.bytes:
                return False
        return not len(self.engine._replies)


class Ticket:
    """A call that was made, and what came of it."""

    def __init__(self, cluster: Cluster, session: object, call: int) -> None:
        self._cluster = cluster
        self.session = session
        self.call = call

    @property
    def waits(self) -> bool:
        """Whether no event has come."""
        return (self.session, self.call) not in self._cluster.events

    @property
    def event(self) -> Event:
        """The call's one and only event."""
        (event,) = self._cluster.events[self.session, self.call]
        return event

    @property
    def answer(self) -> bytes:
        """The body of its answer."""
        assert type(self.event) is Answer, self.error
        return b"".join(self.event.body)

    @property
    def value(self) -> Any:
        """The plain value that its answer holds."""
        return unpack_value((self.answer,))

    @property
    def error(self) -> AiopgError:
        """The error it failed with."""
        assert type(self.event) is Failed, self.event
        return unpack_error(self.event.body)

    @property
    def facts(self) -> Any:
        """Who had arrived and who was missing when it was withdrawn."""
        assert type(self.event) is Withdrawn, self.event
        return unpack_value(self.event.body)

    def parts(self, count: int) -> list[bytes]:
        """The parts that its answer holds."""
        return [bytes(part) for part in split_parts((self.answer,), count)]


class Member:
    """One seat and its verbs; each makes a call with a fresh number."""

    def __init__(self, cluster: Cluster, rank: int, size: int, group: str, session: object, ttl: float) -> None:
        self.cluster = cluster
        self.rank = rank
        self.size = size
        self.session = session
        self.seat = cluster.number()
        self.join = cluster.say(session, Join(cluster.number(), self.seat, group, rank, size, ttl, f"pid {rank}"))

    def _say(self, kind: Any, *fields: Any) -> Ticket:
        return self.cluster.say(self.session, kind(self.cluster.number(), self.seat, *fields))

    def put(self, dst: int, data: bytes, tag: Tag = 0) -> Ticket:
        return self._say(Put, dst, tag, (data,))

    def take(self, src: int, tag: Tag = 0) -> Ticket:
        return self._say(Take, src, tag)

    def take_back(self, put: Ticket, dst: int, tag: Tag = 0) -> Ticket:
        return self._say(TakeBack, dst, tag, put.call)

    def leave(self) -> Ticket:
        return self._say(Leave)

    def vacate(self) -> Ticket:
        return self._say(Vacate)

    def abort(self, reason: str = "enough") -> Ticket:
        return self._say(Abort, reason)

    def expire(self) -> Ticket:
        return self._say(Expire)

    def status(self) -> Ticket:
        return self.cluster.say(self.session, Status(self.cluster.number()))

    def trace(self, after: int = 0, most: int = 2000, group: str = "") -> Ticket:
        return self.cluster.say(self.session, Trace(self.cluster.number(), after, most, group))

    def inquire(self, about: Ticket) -> Ticket:
        return self.cluster.say(self.session, Inquire(self.cluster.number(), about.call))

    def cancel(self, ticket: Ticket) -> None:
        self.cluster.say(self.session, Cancel(ticket.call))

    def arrive(
        self,
        op: str,
        needs: int,
        number: int = 1,
        *,
        root: int = -1,
        parts: Sequence[bytes] = (),
        tag: Tag = 0,
        detail: str = "",
    ) -> Ticket:
        """Arrive at a collective."""
        body = () if not parts else tuple(parts) if len(parts) == 1 else join_parts(list(parts))
        return self._say(Arrive, tag, number, op, root, detail, needs, len(parts), body)

    def barrier(self, number: int = 1, *, last: bool = False, tag: Tag = 0) -> Ticket:
        return self.arrive("barrier", Needs.ALL_TOLD if last else Needs.ALL, number, tag=tag)

    def all_gather(self, data: bytes, number: int = 1) -> Ticket:
        return self.arrive("all_gather", Needs.ALL, number, parts=[data])

    def broadcast(self, root: int, data: bytes = b"", number: int = 1) -> Ticket:
        if self.rank == root:
            return self.arrive("broadcast", Needs.NOTHING, number, root=root, parts=[data])
        return self.arrive("broadcast", Needs.ROOT, number, root=root)

    def gather(self, dst: int, data: bytes, number: int = 1) -> Ticket:
        needs = Needs.ALL if self.rank == dst else Needs.NOTHING
        return self.arrive("gather", needs, number, root=dst, parts=[data])

    def scatter(self, root: int, parts: Sequence[bytes] = (), number: int = 1) -> Ticket:
        return self.arrive("scatter", Needs.ROOT, number, root=root, parts=parts)

    def all_to_all(self, parts: Sequence[bytes], number: int = 1) -> Ticket:
        return self.arrive("all_to_all", Needs.ALL, number, parts=parts)
