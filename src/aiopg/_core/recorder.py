"""The recorder: the last happenings of a store, always on, for people who want to see what went on in it.

Theory of operation. The state machines say what happens to a `Trail`, one for each incarnation of a group, and all
trails write into one ring: the newest happening takes the place of the oldest, and each has a number, so who reads sees
where he is behind. What happens to members is kept a little longer with its trail, for the lines that errors carry
(`Trail.lines`): a busy neighbour must not push it out.

Nothing of this is state. No answer but those to people depends on it, it is in no snapshot, and a replay of a journal
records nothing (`Recorder()` of size 0, which every engine has until a shell gives it a better one): so a replay makes
the same answers whatever was recorded. What the ring holds is bounded: happenings, and the length of each text in them.
Neither payloads nor keys are ever recorded.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from aiopg._core.messages import Tag
from aiopg._core.scopes import ANY_GROUP, Scope, allows

__all__ = [
    "BOUNDS",
    "HAPPENINGS_KEPT",
    "HAPPENINGS_READ",
    "KINDS",
    "LINES",
    "NOTHING",
    "About",
    "Excerpt",
    "Happening",
    "Recorder",
    "Trail",
]

HAPPENINGS_KEPT = 16384
"""Of a store. One takes about 200 bytes, all together 3 MiB; at worst (long tags, texts and names) 20 MiB."""

HAPPENINGS_READ = 2000
"""At once, at most: what is told in one answer must not keep everybody waiting while it is written down."""

KINDS = (
    "joined", "formed", "left", "lost", "aborted", "away", "back",
    "opened", "arrived", "done", "withdrawn", "failed", "over", "put", "taken", "expired",
)  # fmt: skip

BOUNDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Seconds that rounds take, for a histogram of them."""

TEXT_CHARACTERS = 200
"""Of a text that somebody gave, as many are recorded."""

LINES = 8
"""An error carries as many lines at most, each of at most `LINE_CHARACTERS`."""

LINE_CHARACTERS = 160

AWAITED_LINES = 3
NOTED_LINES = 3
"""Of these, so many are for ranks that are awaited, and for what happened to members, where there is more to say."""

SAID_SECONDS = 0.1
"""Lines are good for so long. Thousands of ranks have one deadline: they are not made anew for each of them."""


class Happening(NamedTuple):
    """Something that happened on a store."""

    number: int
    """From 1, in order. A number that is missing stands for a happening that is not kept any more."""
    at: float
    """The store's monotonic clock, in seconds."""
    kind: str
    """One of `KINDS`."""
    group: str
    incarnation: int
    rank: int
    """-1 where it is no rank's."""
    op: str
    """The collective; empty where it is none."""
    tag: Tag
    seq: int
    """Number of the collective; -1 where it is none."""
    text: str
    """What is said of it: who joined, why a rank was lost, "to 3" and "from 1" of messages, "root 2" of rounds that are
    opened and have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A part of what a store recorded."""

    happenings: list[Happening]
    """Oldest first. Those of groups that were not asked for, or may not be seen, leave gaps in the numbers."""
    next: int
    """What to ask on from; less than what was asked on from where the store was started anew."""
    now: float
    """The store's clock, that of `Happening.at`."""
    epoch: float | None
    """Add it to a time of that clock, and it is seconds since 1970; None if the store does not say."""
    oldest: int
    """The lowest number that is kept, of whatever group, 0 if none is: who asked with `after` of 0 or more has missed
    happenings, for good, where `oldest > after + 1`."""

    def fields(self) -> tuple[float | None, float, int, list[Happening], int]:
        """As it is sent."""
        return self.epoch, self.now, self.next, self.happenings, self.oldest

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Excerpt:
        """The one with these `fields`, as they arrive: the happenings in them are sequences."""
        epoch, now, following, told, oldest = fields
        happenings = [Happening(*one) for one in told]
        return cls(happenings=happenings, next=following, now=now, epoch=epoch, oldest=oldest)


About: TypeAlias = tuple[str, int, str, Tag, int]
"""What a happening is about: group, incarnation, op, tag, seq. All happenings of a round have one."""

NOTHING: About = ("", 0, "", 0, -1)

_Kept: TypeAlias = tuple[int, float, str, int, About, str | int]
"""A happening as it is kept: number, at, kind, rank, about, text (a number: the other rank, or the root)."""


class Recorder:
    """The ring of one store."""

    def __init__(self, size: int = 0, now: float = -math.inf, wall: Callable[[], float] | None = None) -> None:
        """`size`: as many happenings are kept; 0: none, and nothing is told of them. `wall`: the shell's wall clock."""
        self.ring: deque[_Kept] = deque(maxlen=size)
        self.numbers = itertools.count(1)
        self.now = now
        """The time of the input that is acted on."""
        self.began = now
        self.is_on = size > 0
        self._wall = wall
        self.totals = {kind: 0 for kind in KINDS if kind not in ("opened", "arrived")}
        """How many happenings of each kind there were; those two are too frequent to be counted."""
        self.took = [0] * (len(BOUNDS) + 1)
        """How many rounds took how long from their first arrival to the last: up to each of `BOUNDS`, and longer."""
        self.seconds = 0.0
        """All those rounds together."""

    @property
    def epoch(self) -> float | None:
        """Seconds that the wall clock is ahead of the store's; None if nobody told."""
        return None if self._wall is None else self._wall() - self.now

    def excerpt(self, after: int, most: int, group: str = "", scope: Scope = ANY_GROUP) -> Excerpt:
        """Happenings with numbers over `after`; a negative one stands for as many of the newest.

        Those of one `group`, or of all if it is empty, and of the groups in `scope`; at most `most`, and
        `HAPPENINGS_READ`.
        """
        following, happenings = self._read(after, most, group, scope)
        oldest = self.ring[0][0] if self.ring else 0
        return Excerpt(happenings=happenings, next=following, now=self.now, epoch=self.epoch, oldest=oldest)

    def _read(self, after: int, most: int, group: str, scope: Scope) -> tuple[int, list[Happening]]:
        ring, most = self.ring, max(min(most, HAPPENINGS_READ), 0)
        if not ring:
            return 0, []
        first, newest = ring[0][0], ring[-1][0]
        if after < 0:
            after += newest
        if after >= newest:
            return newest, []
        told: list[Happening] = []
        shown: dict[str, bool] = {}  # a token may be for many groups, and none of the thousands of these happenings
        after = max(after, first - 1)
        for happening in itertools.islice(ring, after + 1 - first, None):
            if len(told) == most:
                break
            after = happening[0]
            name = happening[4][0]
            if (is_shown := shown.get(name)) is None:
                is_shown = shown[name] = (not group or name == group) and allows(scope, name)
            if is_shown:
                told.append(_as_read(happening))
        return after, told


_RANK_OF = {"put": "to", "withdrawn": "to", "expired": "to", "taken": "from", "opened": "root"}


def _as_read(happening: _Kept) -> Happening:
    number, at, kind, rank, (group, incarnation, op, tag, seq), text = happening
    if type(text) is int:  # a rank, which is made a text when somebody reads it
        text = f"{_RANK_OF[kind]} {text}"
    return Happening(number, at, kind, group, incarnation, rank, op, tag, seq, str(text))


class Sitting(Protocol):
    """What a trail knows of the holder of a rank."""

    joined: float
    heard: float


class Trail:
    """The recorder as one incarnation writes into it."""

    __slots__ = (
        "_key", "_noted", "_said", "_said_at", "_seats",
        "about", "append", "failures", "group", "incarnation", "messages", "numbers", "recorder", "rounds",
    )  # fmt: skip

    def __init__(self, recorder: Recorder, group: str, incarnation: int, seats: Mapping[int, Sitting]) -> None:
        """`seats`: those of the incarnation, as they come and go."""
        self.recorder = recorder
        self.group = group
        self.incarnation = incarnation
        self.rounds = self.messages = self.failures = 0
        """Rounds that were done, messages that were put, rounds that failed (once for each rank or cause)."""
        self.about: About = (group, incarnation, "", 0, -1)
        self.append = recorder.ring.append
        self.numbers = recorder.numbers
        """With these two, `Rounds.arrive` does what `add` does: a call more for each arrival would be felt."""
        self._seats = seats
        self._noted: deque[tuple[float, str]] = deque(maxlen=LINES)
        self._key: object = None
        self._said: tuple[str, ...] = ()
        self._said_at = -math.inf

    def of(self, op: str, tag: Tag, seq: int) -> About:
        """What the happenings of a round are about."""
        return self.group, self.incarnation, op, tag, seq

    def add(self, kind: str, rank: int, about: About, text: str = "") -> None:
        """Something happened."""
        self.recorder.totals[kind] += 1
        self.append((next(self.numbers), self.recorder.now, kind, rank, about, text))

    def message(self, kind: str, rank: int, tag: Tag, other: int) -> None:
        """Something happened to a message to or from `other`."""
        self.recorder.totals[kind] += 1
        about = (self.group, self.incarnation, "", tag, -1)
        self.append((next(self.numbers), self.recorder.now, kind, rank, about, other))

    def member(self, kind: str, rank: int, text: str = "") -> None:
        """Something happened to a member."""
        text = text[:TEXT_CHARACTERS]
        self.add(kind, rank, self.about, text)
        if kind in _OF_MEMBERS:
            self._key = None
            self._noted.append((self.recorder.now, _OF_MEMBERS[kind].format(rank=rank, text=text)))

    def done(self, rank: int, about: About, opened_at: float) -> None:
        """A round is complete: `rank` was the last one to come."""
        recorder = self.recorder
        self.rounds += 1
        self.add("done", rank, about)
        seconds = recorder.now - opened_at
        if seconds >= 0:  # it is NaN for one that was opened before the store was started again
            recorder.took[bisect_left(BOUNDS, seconds)] += 1
            recorder.seconds += seconds

    def failed(self, rank: int, about: About, error: Exception) -> None:
        """A round failed: for `rank`, or by it."""
        self.failures += 1
        self.add("failed", rank, about, str(error)[:TEXT_CHARACTERS])

    def lines(
        self, key: object, missing: Sequence[int] = (), came: Callable[[], Iterable[tuple[float, str]]] = tuple
    ) -> tuple[str, ...]:
        """The last happenings that matter to a call that failed, for people: oldest first, at most `LINES`.

        Args:
            key: what `came` tells of, among the calls of this incarnation.
            missing: ranks that it awaits.
            came: who came to it, and when, the last one first; nobody where it is not about who came.
        """
        recorder = self.recorder
        if not recorder.is_on:
            return ()
        now, awaited = recorder.now, missing[:AWAITED_LINES]
        key = key, *awaited
        if key == self._key and now - self._said_at < SAID_SECONDS:
            return self._said
        told = [self._last_of(rank) for rank in awaited if rank in self._seats]
        noted = list(self._noted)
        told += noted[-NOTED_LINES:]
        told += reversed(list(itertools.islice(came(), LINES - len(told))))
        told += noted[:-NOTED_LINES][len(told) - LINES :] if len(told) < LINES else []
        told = sorted((item for item in told if not math.isnan(item[0])), key=_at)
        self._key, self._said_at = key, now
        self._said = tuple(f"{max(now - at, 0):.1f} s ago: {_in_a_line(text)}" for at, text in told)
        return self._said

    def _last_of(self, rank: int) -> tuple[float, str]:
        seat = self._seats[rank]
        if math.isnan(seat.heard):
            return seat.joined, f"rank {rank}, which is awaited, joined, and has made no call since"
        return seat.heard, f"rank {rank}, which is awaited, made its last call"


_OF_MEMBERS = {
    "left": "rank {rank} left: {text}",
    "lost": "rank {rank} was lost: {text}",
    "aborted": "rank {rank} aborted the group: {text}",
    "away": "the connection of rank {rank} broke",
    "back": "rank {rank} was connected again",
}


def _at(told: tuple[float, str]) -> float:
    return told[0]


def _in_a_line(text: str) -> str:
    """A text in which nothing ends the line, or does anything else to a terminal."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 3] + "..."
