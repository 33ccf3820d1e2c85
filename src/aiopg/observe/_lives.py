"""One life of a group, as `observe.view` keeps it between two pictures."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from aiopg._core.rounds import RANKS_SHOWN, ROUNDS_SHOWN
from aiopg.observe.picture import Finished, GroupView, Histogram, RankState, RankView, RoundView

__all__ = ["LATENESS_ROUNDS", "RECENT_SECONDS", "ROUNDS_MOST", "Life", "Open"]

RECENT_SECONDS = 10.0
"""Rates are those of so many last seconds; and a status is not older than that when it comes."""

ROUNDS_MOST = 256
"""Rounds of a group under way, and such that just ended, that a view keeps."""

LATENESS_ROUNDS = 32
LATENESS_CELLS = 65536
"""Rounds of a group whose arrivals are remembered, for who is slow; of large groups fewer, that it is no more than so
many arrivals of four bytes."""

SLOWEST = 8
"""Ranks that a picture names as late."""

_STATES: Mapping[str, RankState] = {
    "joined": "joined", "back": "joined", "away": "away", "left": "left", "lost": "lost",
}  # fmt: skip


class Open:
    """A round under way."""

    __slots__ = ("arrived", "bytes", "call", "failed", "is_whole", "op", "opened")

    def __init__(self, op: str, call: str, opened: float, is_whole: bool) -> None:
        self.op = op
        self.call = call
        self.opened = opened
        self.is_whole = is_whole
        """Whether all of it was heard, from its first arrival on."""
        self.arrived: dict[int, float] = {}
        """When, by rank."""
        self.bytes = 0
        self.failed = ""
        """The error that those who came had, and those who come will have."""


class Life:
    """An incarnation: what its store told last, and what happened since."""

    def __init__(self, name: str, incarnation: int) -> None:
        self.name = name
        self.incarnation = incarnation
        self.told: Mapping[str, Any] = {}
        """What the store last said of it."""
        self.seen = -math.inf
        """When it was last in what the store said, or something happened in it."""
        self.seen_at = -math.inf
        """When it was last in what the store said."""
        self.ranks: dict[int, RankState] = {}
        """Those that are or were there."""
        self.joined: dict[int, float] = {}
        """When, by rank."""
        self.reasons: dict[int, str] = {}
        self.is_aborted = False
        self.open: dict[tuple[int | str, int], Open] = {}
        """By tag and number, oldest first."""
        self.over: dict[tuple[int | str, int], float] = {}
        """Rounds that ended of late, and when: a status that is older may name them."""
        self.latency = Histogram()
        self.late: deque[array[float]] = deque(maxlen=LATENESS_ROUNDS)
        """Of the last rounds: how late each rank came, in seconds; -1 where it was not heard."""
        self.counted: deque[tuple[float, int, int]] = deque()
        """When, and how many rounds were done and messages put by then, as the store said of late."""

    @property
    def world_size(self) -> int:
        """How many ranks it has, 0 while the store has not said so."""
        size: int = self.told.get("world_size", 0)
        return size

    # ------------------------------------------------------------------------------------------------- hearing

    def member(self, kind: str, rank: int, at: float, text: str) -> None:
        """Something happened to a member."""
        if kind == "aborted":
            self.is_aborted = True
            return
        state = self.ranks[rank] = _STATES[kind]
        if kind == "joined":
            self.joined[rank] = at
        if state in ("left", "lost"):
            self.reasons[rank] = text
        else:
            self.reasons.pop(rank, None)

    def opened(self, op: str, tag: int | str, seq: int, at: float, root: str) -> None:
        """The first rank comes to a round; its arrival is told behind this. `root`: "root 2", or nothing."""
        self.over.pop((tag, seq), None)  # the number of a round that was taken back is used again
        known = self.open.get((tag, seq))
        if known is None or not known.is_whole:
            round = self._open(op, tag, seq, at, is_whole=True)
            if root:
                round.call = f"{op}({root.replace(' ', '=')})"

    def arrived(self, op: str, tag: int | str, seq: int, rank: int, at: float) -> None:
        """A rank comes to a round."""
        round = self.open.get((tag, seq))
        if round is None:
            round = self._open(op, tag, seq, at, is_whole=False)
        round.arrived[rank] = at

    def withdrawn(self, tag: int | str, seq: int, rank: int) -> None:
        """A rank takes its arrival back."""
        round = self.open.get((tag, seq))
        if round is not None:
            round.arrived.pop(rank, None)
            if not round.arrived:
                del self.open[tag, seq]

    def done(self, tag: int | str, seq: int, rank: int, at: float) -> Finished | None:
        """The last rank came to a round; None if it was not heard from its beginning."""
        round = self.over_with(tag, seq, at)
        if round is None or not round.is_whole or round.failed:
            return None
        self.latency.add(max(0.0, at - round.opened))
        self._note_lateness(round)
        return self._finished(round, tag, seq, rank, at)

    def failed(self, tag: int | str, seq: int, rank: int, at: float, why: str) -> Finished | None:
        """Who waited in a round had this error; None if it was told before, or nothing is known of the round."""
        round = self.open.get((tag, seq))
        if round is None or round.failed:
            return None
        round.failed = why or "it failed"
        return self._finished(round, tag, seq, rank, at) if round.is_whole else None

    def over_with(self, tag: int | str, seq: int, at: float) -> Open | None:
        """The store has forgotten a round."""
        self.over[tag, seq] = at
        return self.open.pop((tag, seq), None)

    def _finished(self, round: Open, tag: int | str, seq: int, rank: int, at: float) -> Finished:
        return Finished(self.name, self.incarnation, round.op, tag, seq, round.opened, at, rank, round.failed)

    def _open(self, op: str, tag: int | str, seq: int, at: float, *, is_whole: bool) -> Open:
        round = self.open[tag, seq] = Open(op, f"{op}()", at, is_whole)
        if len(self.open) > ROUNDS_MOST:
            del self.open[next(iter(self.open))]
        return round

    def _note_lateness(self, round: Open) -> None:
        size = self.world_size
        if size < 2 or size > LATENESS_CELLS:
            return
        late = array("f", [-1.0]) * size
        opened = round.opened
        for rank, at in round.arrived.items():
            if 0 <= rank < size:
                late[rank] = at - opened
        if len(self.late) * size > LATENESS_CELLS:
            self.late.popleft()
        self.late.append(late)

    def forget(self, oldest: float) -> None:
        """No status that is older than this will come."""
        if self.over:
            self.over = {key: at for key, at in self.over.items() if at >= oldest}
            while len(self.over) > ROUNDS_MOST:
                del self.over[next(iter(self.over))]

    # -------------------------------------------------------------------------------------------------- seeing

    def take(self, told: Mapping[str, Any], at: float) -> None:
        """What the store says of it."""
        self.told, self.seen, self.seen_at = told, max(self.seen, at), at
        members, gone = _mapping(told, "members"), _mapping(told, "gone")
        left, away = set(told.get("left", ())), set(told.get("away", ()))
        self.ranks = {rank: "left" if rank in left else "lost" for rank in gone}
        self.ranks |= {rank: "away" if rank in away else "joined" for rank in members}
        self.reasons = dict(gone)
        self.is_aborted = told.get("state") == "aborted"
        for rank, seconds in _mapping(told, "since").items():
            self.joined.setdefault(rank, at - seconds)
        self.joined = {rank: since for rank, since in self.joined.items() if rank in self.ranks}
        if "done" in told:
            self.counted.append((at, told["done"]["rounds"], told["done"]["messages"]))
            while len(self.counted) > 2 and self.counted[1][0] <= at - RECENT_SECONDS:
                self.counted.popleft()
        self._take_rounds(at)

    def _take_rounds(self, at: float) -> None:
        """The rounds that the store says are under way, but those of which is known that they are over meanwhile."""
        rounds = self.told.get("rounds", ())
        known = {(round["tag"], round["number"]): round for round in rounds}
        is_all = len(known) < ROUNDS_SHOWN
        for key in [key for key, round in self.open.items() if is_all and key not in known and round.opened < at]:
            del self.open[key]
        for key, round in known.items():
            if key in self.over:
                continue
            since = at - round.get("since", 0.0)
            mine = self.open.get(key)
            if mine is None:
                mine = self._open(round["call"].partition("(")[0], *key, since, is_whole=False)
            mine.call, mine.bytes = round["call"], round["bytes"]
            if not mine.is_whole:
                mine.opened = min(mine.opened, since)
                mine.arrived = dict.fromkeys(self._arrived(round), at)

    def _arrived(self, round: Mapping[str, Any]) -> Iterable[int]:
        """Who is there, of a round that the store tells of: of both lists it gives the beginnings."""
        if len(round["arrived"]) < RANKS_SHOWN or len(round["missing"]) >= RANKS_SHOWN:
            arrived: Iterable[int] = round["arrived"]
            return arrived
        missing = set(round["missing"])
        return (rank for rank in range(self.world_size) if rank not in missing)

    # ------------------------------------------------------------------------------------------------- picture

    def view(self, now: float) -> GroupView:
        """How it looks."""
        size = self.world_size
        rounds = [self._round(tag, number, round, now) for (tag, number), round in self.open.items()]
        state = self._state()
        if state == "forming":
            rounds.insert(0, self._joining(now))
        awaited = {rank for round in rounds if not round.failed for rank in round.missing}
        holders = _mapping(self.told, "members")
        told, rates = self.told, self._rates()
        silent = _mapping(told, "silent")
        return GroupView(
            name=self.name,
            incarnation=self.incarnation,
            world_size=size,
            state=state,
            ranks=[
                RankView(
                    rank=rank,
                    state=self.ranks.get(rank, "absent"),
                    holder=holders.get(rank, ""),
                    since=max(0.0, now - self.joined[rank]) if rank in self.joined else None,
                    reason=self.reasons.get(rank, ""),
                    awaited=rank in awaited,
                    silent=silent[rank] + now - self.seen_at if rank in silent else None,
                )
                for rank in range(size)
            ],
            rounds=rounds,
            mailboxes=told.get("mailboxes", 0),
            messages=told.get("messages", 0),
            bytes=told.get("bytes", 0),
            keys=told.get("keys", {}),
            rounds_per_second=rates[0],
            messages_per_second=rates[1],
            latency=self.latency.copy(),
            slowest=self._slowest(),
        )

    def _rates(self) -> tuple[float | None, float | None]:
        """Rounds and messages a second, between the first and the last of the late statuses."""
        if len(self.counted) < 2:
            return None, None
        (began, rounds, messages), (ended, more_rounds, more_messages) = self.counted[0], self.counted[-1]
        seconds = ended - began
        return ((more_rounds - rounds) / seconds, (more_messages - messages) / seconds) if seconds > 0 else (None, None)

    def _state(self) -> str:
        if self.is_aborted:
            return "aborted"
        return str(self.told.get("state", "forming"))

    def _round(self, tag: int | str, number: int, round: Open, now: float) -> RoundView:
        world = range(self.world_size)
        return self._round_view(
            op=round.op,
            call=round.call,
            tag=tag,
            number=number,
            arrived=sorted(round.arrived),
            missing=[rank for rank in world if rank not in round.arrived],
            age=max(0.0, now - round.opened),
            bytes=round.bytes,
            failed=round.failed,
        )

    def _joining(self, now: float) -> RoundView:
        there = sorted(rank for rank, state in self.ranks.items() if state in ("joined", "away"))
        since = min((self.joined[rank] for rank in there if rank in self.joined), default=now)
        missing = [rank for rank in range(self.world_size) if self.ranks.get(rank) not in ("joined", "away")]
        return self._round_view(
            op="join", call="join()", tag=0, number=0, arrived=there, missing=missing, age=max(0.0, now - since)
        )

    def _round_view(self, *, arrived: Sequence[int], missing: Sequence[int], **rest: Any) -> RoundView:
        return RoundView(
            arrived=arrived[:RANKS_SHOWN],
            missing=missing[:RANKS_SHOWN],
            missing_count=len(missing),
            gone=[rank for rank in missing if self.ranks.get(rank) != "joined"][:RANKS_SHOWN],
            **rest,
        )

    def _slowest(self) -> list[tuple[int, float]]:
        """The ranks that came latest on average; none where all come together."""
        sums = [0.0] * self.world_size
        counts = [0] * self.world_size
        for late in self.late:
            for rank, seconds in enumerate(islice(late, len(sums))):
                if seconds >= 0:
                    sums[rank] += seconds
                    counts[rank] += 1
        means = [(rank, sums[rank] / counts[rank]) for rank in range(len(sums)) if counts[rank]]
        means.sort(key=lambda one: (-one[1], one[0]))
        return [one for one in means[:SLOWEST] if one[1] > 0]


def _mapping(told: Mapping[str, Any], name: str) -> Mapping[int, Any]:
    """By rank; empty where a store says nothing of it, or its language has one empty value for maps and lists."""
    value: Mapping[int, Any] | None = told.get(name)
    return value if value and isinstance(value, Mapping) else {}
