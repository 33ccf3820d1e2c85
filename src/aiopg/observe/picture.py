"""What a store looks like at one moment: plain records, for whatever shows them.

Names, holders and reasons in them are what strangers said: who shows them on a terminal passes them through
`observe.plain`, who writes HTML escapes them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from aiopg._core.recorder import BOUNDS

__all__ = ["BOUNDS", "STATES", "Finished", "GroupView", "Histogram", "Picture", "RankState", "RankView", "RoundView"]

RankState: TypeAlias = Literal["joined", "away", "absent", "lost", "left"]
"""Is there; no connection carries it now, and it may come back; never came, or took its join back; was lost; said
goodbye."""

STATES: tuple[RankState, ...] = get_args(RankState)
"""In the order in which they are told."""


class Finished(NamedTuple):
    """A round that ended. Times are the store's monotonic seconds."""

    group: str
    incarnation: int
    op: str
    tag: int | str
    seq: int
    opened: float
    done: float
    last_rank: int
    failed: str
    """The error that it came to; empty where it was done."""


class Histogram:
    """Counts of durations, by the upper bounds (seconds) that the recorder has. It stays as small as it is."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """How many were at most each of `BOUNDS` and over the one before; the last one: over all of them."""
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def copy(self) -> Histogram:
        """The same, which no longer changes with this one."""
        same = Histogram()
        same.counts, same.sum = list(self.counts), self.sum
        return same

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """A duration that at least this share (0 to 1) was at most: a bound, infinity beyond them; None of none."""
        due = share * self.count
        seen = 0
        for bound, number in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            seen += number
            if seen and seen >= due:
                return bound
        return None

    def fields(self) -> dict[str, object]:
        """Plain values."""
        return {"bounds": list(BOUNDS), "counts": list(self.counts), "sum": self.sum}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankView:
    """One rank of a group."""

    rank: int
    state: RankState
    holder: str = ""
    """Who it is, or was: "pid 4711 on host-a"."""
    since: float | None = None
    """Seconds since it joined; None where that is not known."""
    reason: str = ""
    """Why it is gone."""
    awaited: bool = False
    """Whether a round waits for it."""
    silent: float | None = None
    """Seconds since its last call, as the store last said; None where it made none, or the store does not tell."""

    def fields(self) -> dict[str, object]:
        """Plain values."""
        return {
            "rank": self.rank, "state": self.state, "holder": self.holder, "since": self.since, "reason": self.reason,
            "awaited": self.awaited, "silent": self.silent,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundView:
    """A collective call under way; or the joining of a group that forms, as op "join" with tag 0 and number 0."""

    op: str
    call: str
    """The op, with what must agree between the ranks: "broadcast(root=0)"."""
    tag: int | str
    number: int
    arrived: Sequence[int]
    """Ranks that are there, in order; of very large groups not all."""
    missing: Sequence[int]
    """Ranks that are not, in order; of very large groups not all."""
    missing_count: int
    """How many."""
    gone: Sequence[int]
    """Those of the missing that are not there to come: absent, away, left or lost."""
    age: float
    """Seconds since the first arrival, as far as that is known: it may be more."""
    bytes: int = 0
    failed: str = ""
    """The error that those who came had: nobody waits any more, and those who come will have it too."""

    def fields(self) -> dict[str, object]:
        """Plain values."""
        return {
            "op": self.op, "call": self.call, "tag": self.tag, "number": self.number, "arrived": list(self.arrived),
            "missing": list(self.missing), "missing_count": self.missing_count, "gone": list(self.gone),
            "age": self.age, "bytes": self.bytes, "failed": self.failed,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """One life of a group."""

    name: str
    incarnation: int
    world_size: int
    state: str
    """ "forming", "live" or "aborted"."""
    ranks: Sequence[RankView]
    """Every rank, in order."""
    rounds: Sequence[RoundView]
    """Those under way, oldest first."""
    mailboxes: int = 0
    messages: int = 0
    """That wait to be received."""
    bytes: int = 0
    keys: Mapping[str, object] = field(default_factory=dict)
    rounds_per_second: float | None = None
    """Over the last ten seconds; None before the second status, and where the store does not count."""
    messages_per_second: float | None = None
    latency: Histogram = field(default_factory=Histogram)
    """From the first arrival to the last one, of the rounds that were seen from beginning to end."""
    slowest: Sequence[tuple[int, float]] = ()
    """Ranks and how late they came on average, in seconds behind the first one, in the last rounds; worst first."""

    @property
    def members(self) -> int:
        """How many ranks have their seat: those that are joined, or away."""
        return sum(rank.state in ("joined", "away") for rank in self.ranks)

    def fields(self) -> dict[str, object]:
        """Plain values."""
        return {
            "name": self.name,
            "incarnation": self.incarnation,
            "world_size": self.world_size,
            "state": self.state,
            "ranks": [rank.fields() for rank in self.ranks],
            "rounds": [round.fields() for round in self.rounds],
            "mailboxes": self.mailboxes,
            "messages": self.messages,
            "bytes": self.bytes,
            "keys": dict(self.keys),
            "rounds_per_second": self.rounds_per_second,
            "messages_per_second": self.messages_per_second,
            "latency": self.latency.fields(),
            "slowest": [{"rank": rank, "late": late} for rank, late in self.slowest],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A store and its groups."""

    store: Mapping[str, Any]
    """What the store says of itself, without its groups: pid, version, bytes, limits, lobbies and the like."""
    groups: Sequence[GroupView]

    @property
    def hopeless(self) -> list[tuple[GroupView, RoundView]]:
        """The rounds that wait for ranks which are absent, away, left or lost."""
        return [(group, round) for group in self.groups for round in group.rounds if round.gone and not round.failed]

    def fields(self) -> dict[str, object]:
        """Plain values."""
        return {"store": dict(self.store), "groups": [group.fields() for group in self.groups]}
