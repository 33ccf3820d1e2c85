"""The contract between a group and whatever store it talks to: verbs, not bytes.

A `StoreLink` is this process's link to a store. `StoreLink.join` takes a rank of a group and gives a `Member`, whose
verbs are what the group is made of; `StoreLink.keys` gives the verbs of a key space (`stores.keys`). Every verb keeps
these rules, on every store:

1. *Deadline.* It ends by `call.deadline`, with the result or with `call.timed_out(...)`, which names who arrived and
   who is missing as far as the store says so within `FACTS_SECONDS`.
2. *Cancel.* When it is cancelled or times out, the arrival or request is taken back. Nothing is lost: a message that
   was already on its way to a cancelled `take` is what the next `take` gets; a round that was decided before the
   withdrawal reached the store is what the next `round` with that number gets; a `put` that was taken by the receiver
   before it could be taken back is not put again by the next `put` of the same payload to the same mailbox.
   The group checks the size of a payload against `Capabilities.payload_bytes` before it calls a verb.
3. *Order.* What a verb sends is sent before its first await, so call order is order.
4. *Once.* It takes effect once, or raises.
5. *Patience.* After `WARN_SECONDS` of waiting, and every `WARN_AGAIN_SECONDS` after that, `call.warn(...)` is called.
6. *Payloads are opaque.* A store never looks into one.

`aiopg.testing.check_store` asks all this of a store. One may be without keys (`Capabilities.keys`), and without
`takeover`, `enlist` and `reform`, which then raise `NotImplementedError`; all else every store has.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from aiopg._core.frames import Body, Buffer
from aiopg._core.messages import Needs, Tag
from aiopg._core.parts import Parts
from aiopg._core.recorder import HAPPENINGS_READ, Excerpt, Happening
from aiopg.errors import GroupTimeoutError, describe_ranks
from aiopg.stores.keys import Keys
from aiopg.stores.timed import Places, Timed

__all__ = [
    "FACTS_SECONDS",
    "HAPPENINGS_READ",
    "LOSSES",
    "WARN_AGAIN_SECONDS",
    "WARN_SECONDS",
    "Body",
    "Buffer",
    "Call",
    "Capabilities",
    "Excerpt",
    "Happening",
    "Member",
    "Needs",
    "NumberUsedError",
    "Parts",
    "Place",
    "StoreLink",
    "Tag",
]

FACTS_SECONDS = 0.08
"""How long past a deadline a store may take to say who is missing (a call ends within 100 ms of its deadline)."""

WARN_SECONDS = 10.0
WARN_AGAIN_SECONDS = 30.0

LOSSES = ("connection", "restart", "host", "minority")
"""What a store can lose: a member's connection to it; its process, which comes back with what it had written; the host
of a process of it for good, where others take over; any of its hosts but a majority, all at once or one by one."""

RANKS_LISTED = 32
"""A warning lists as many ranks; where there are more it names runs of them. Ten thousand ranks all warn."""

logger = logging.getLogger("aiopg.group")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a kind of store can promise: its capability record."""

    engine: str
    """What keeps the state: "aiopg", "memory", "redis", "etcd"."""
    exactly_once: bool
    """Every accepted call takes effect once, connections breaking included."""
    survives: tuple[str, ...]
    """What groups go on after, of `LOSSES`; after any other loss their calls raise `StoreLostError`."""
    keys: bool
    """The key API."""
    payload_bytes: int
    """Largest payload."""
    death_seconds: float
    """When members whose process or host died are told to the others, at the latest: from the moment when the store
    hears nothing of them any more."""

    @property
    def survives_restart(self) -> bool:
        """Whether groups go on after the store's process died and came back."""
        return "restart" in self.survives

    def fields(self) -> dict[str, object]:
        """The record as plain values."""
        return {
            "engine": self.engine,
            "exactly_once": self.exactly_once,
            "survives": list(self.survives),
            "keys": self.keys,
            "payload_bytes": self.payload_bytes,
            "death_seconds": self.death_seconds,
        }


@dataclass(slots=True, eq=False)
class Call(Timed[GroupTimeoutError]):
    """One call of a group in progress: its address, its deadline, and how it complains."""

    op: str
    group: str
    rank: int
    tag: Tag
    seq: int
    loop: asyncio.AbstractEventLoop
    started: float
    deadline: float

    def _timeout(self, arrived: Places, missing: Places) -> GroupTimeoutError:
        return GroupTimeoutError(self.op, self.group, self.tag, self.seq, arrived, missing, self.elapsed)

    def warn(self, arrived: Places, missing: Places) -> None:
        """Log that the call waits for long, and for whom."""
        elapsed = self.elapsed
        logger.warning(
            "%s number %d (tag %r) of group %r waits at rank %d for %.0f s; missing: %s; arrived: %s",
            self.op,
            self.seq,
            self.tag,
            self.group,
            self.rank,
            elapsed,
            _for_people(missing),
            _for_people(arrived),
            extra={
                "op": self.op,
                "group": self.group,
                "rank": self.rank,
                "tag": self.tag,
                "seq": self.seq,
                "elapsed": elapsed,
                "arrived": arrived,
                "missing": missing,
            },
        )


def _for_people(ranks: Places) -> str:
    if ranks is None:
        return "unknown"
    return str(list(ranks)) if len(ranks) <= RANKS_LISTED else f"{len(ranks)} ranks: {describe_ranks(ranks)}"


class NumberUsedError(Exception):
    """A round's number was decided for a call that its caller gave up, and now another call came with it.

    The caller has moved on, and so have the other ranks: the call is to be made with the next number.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a member was given that asked for no rank."""

    member: Member
    rank: int
    world_size: int
    metadata: tuple[bytes, ...]
    """What each rank said of itself, by rank."""


class StoreLink(ABC):
    """This process's link to a store. One link serves any number of groups; it belongs to one event loop."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the store is; `open_link(url)` on another process reaches the same one."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can promise."""

    @abstractmethod
    async def join(self, call: Call, world_size: int, *, ttl: float, takeover: bool = False) -> Member:
        """Take `call.rank` of `call.group` and wait until all `world_size` ranks have.

        Args:
            call: names the group and rank, and the deadline.
            world_size: ranks of the group.
            ttl: seconds after which what this member sent and nobody took expires.
            takeover: whether to put out a live member that holds the rank; its calls raise `FencedError`, and this
                member joins the next incarnation.

        Raises:
            GroupTimeoutError: some ranks had not joined by the deadline; this one's join was taken back.
            RankConflictError, WorldSizeMismatchError: at once.
            StoreLostError: the link ended.
        """

    @abstractmethod
    async def enlist(
        self, call: Call, min_size: int, max_size: int, *, patience: float, ttl: float, metadata: bytes
    ) -> Place:
        """Take whatever rank of `call.group` there will be, and wait until the group has formed.

        Args:
            call: names the group and the deadline.
            min_size, max_size: it forms at once when `max_size` have come, else `patience` seconds after the last one
                of at least `min_size`; while a group of that name is live, when that forms anew or has ended.
            ttl: as for `join`.
            metadata: what this member says of itself.

        Raises: GroupTimeoutError, PayloadTooLargeError, StoreFullError, StoreLostError, UsageError (others came with
        other sizes).
        """

    @abstractmethod
    def keys(self, member: Member | None = None) -> Keys:
        """The keys of the store itself, or those of the incarnation that this member of it sits in.

        Raises: NotImplementedError (`Capabilities.keys` says that there are none).
        """

    @abstractmethod
    async def status(self) -> dict[str, object]:
        """State of the store: its groups, members, open rounds and bytes. Plain values.

        Of each group the 64 oldest open rounds are told, and up to 1,024 of the ranks that arrived or are missing.
        """

    async def trace(self, after: int = 0, most: int = HAPPENINGS_READ, group: str = "") -> Excerpt:
        """What happened on the store, to its groups: the newest that it still knows, oldest first.

        Args:
            after: only happenings with a higher number: the `next` of the last excerpt. A negative one: as many of the
                newest.
            most: as many at most, and never more than 2,000.
            group: only those of this group; empty: of all that this member may see.

        Raises:
            NotImplementedError: this store keeps no trace.
            AuthenticationError: this member's token is not for that group.
            StoreLostError: the link ended.
        """
        raise NotImplementedError("this store keeps no trace")

    @abstractmethod
    async def close(self) -> None:
        """End the link; members that have not left are lost to their groups. Twice is fine.

        Calls of it that wait raise `GroupClosedError`, and so do later ones.
        """


class Member(ABC):
    """One rank's seat in one incarnation of a group."""

    incarnation: int
    """Number of this life of the group name."""

    @abstractmethod
    async def put(self, call: Call, dst: int, payload: Body) -> None:
        """Append a message to the mailbox (me, dst, call.tag).

        Raises: PeerLostError, GroupAbortedError, StoreFullError, StoreLostError, GroupTimeoutError.
        """

    @abstractmethod
    async def take(self, call: Call, src: int) -> Buffer:
        """Take the head of the mailbox (src, me, call.tag).

        Raises: PeerLostError (only when nothing is left from `src`), GroupAbortedError, DataExpiredError,
        StoreLostError, GroupTimeoutError.
        """

    @abstractmethod
    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        """Arrive at round (call.tag, call.seq) and get what is needed of it.

        Args:
            call: names the operation, tag and number.
            root: root of the collective, -1 where it has none.
            detail: what else must agree between ranks.
            parts: nothing, one part, or one part for each rank in rank order.
            needs: one of `Needs`.

        Returns: nothing for `Needs.NOTHING`; the root's part for `Needs.ROOT`; every rank's part in rank order
        (`Parts` where they came behind one another), or nothing if nobody gave anything, for the others.

        Raises: CollectiveMismatchError, PeerLostError, GroupAbortedError, DataExpiredError, StoreFullError,
        StoreLostError, GroupTimeoutError; PayloadTooLargeError if all parts together are too large to be read; and
        NumberUsedError.
        """

    @abstractmethod
    def give_back(self, src: int, tag: Tag, payload: Buffer) -> None:
        """What `take` returned was not handed to the caller after all: it is the head of its mailbox again."""

    @abstractmethod
    def keep(self, call: Call, root: int, detail: str, parts: list[Buffer], result: Sequence[Buffer]) -> None:
        """What `round` returned was not handed to the caller after all: the next `round` with that number gets it.

        The other arguments are those that `round` had.
        """

    @abstractmethod
    async def expire(self, call: Call) -> int:
        """Drop what is past its time in this incarnation now; how many payloads went."""

    @abstractmethod
    async def abort(self, call: Call, reason: str) -> None:
        """Fail every call of the group at every member, now and later."""

    @abstractmethod
    async def happenings(self, call: Call, after: int) -> list[tuple[str, int, str]]:
        """What happened to the members of this incarnation after its first `after` happenings; waits for some.

        Each is (what, rank, text): "joined", "left", "lost", "aborted", or "waiting" with rank -1.
        """

    @abstractmethod
    async def reform(self, call: Call, *, ttl: float, metadata: bytes) -> Place:
        """Take a place in the next incarnation, and wait until every member of this one that is left has asked for it.

        This seat stays until it is left. Raises: as `StoreLink.enlist`, GroupClosedError, FencedError.
        """

    @abstractmethod
    async def leave(self, call: Call) -> None:
        """Give the seat up; calls of this member that wait raise `GroupClosedError`."""
