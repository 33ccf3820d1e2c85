"""What happened in a store as Chrome trace events: JSON that Perfetto (ui.perfetto.dev) and chrome://tracing open.

Each incarnation of a group is a process there, and each rank a thread of it, a row. A collective call is a slice on its
rank's row, from its arrival to the moment in which the round was complete, so long slices wait and the rank with the
short one is the one that they waited for. The same is said a second time: an arrow runs from the last arrival to the
others' releases, and on the row of the rank that was awaited alone lies a slice that says so. Who is lost, leaves or
aborts is a mark on the row. What a rank does in two calls at once is in two rows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiopg.observe.plain import plain
from aiopg.stores.base import Happening, Tag

__all__ = ["chrome_trace"]

MOMENT = 1e-6
"""Seconds for which what takes no time is shown, and for which a call lasts beyond the end of its round: where an arrow
begins or ends there must be a slice."""

LATE_SECONDS = 0.001
"""A rank for which the others wait for less is not shown as awaited."""

ARROWS = 64
"""From one round at most, to those who waited longest; and as many ranks are shown as awaited by it."""

_FROM_ROOT, _TO_ROOT = ("broadcast", "scatter"), ("gather", "reduce")
"""Collectives in which all wait for the root alone, and in which the root alone waits."""

Event: TypeAlias = dict[str, object]
_Life: TypeAlias = tuple[str, int]


def chrome_trace(
    happenings: Iterable[Happening],
    *,
    now: float,
    epoch: float | None = None,
    status: Mapping[str, Any] | None = None,
) -> dict[str, object]:
    """The trace as an object that `json.dumps` takes.

    Args:
        happenings: oldest first, as `StoreLink.trace` tells them.
        now: the store's clock then: calls that wait are shown until this moment.
        epoch: what the store's wall clock is ahead of it; the trace says when it began.
        status: the store's status of that moment: which ranks there are, also where they were not heard of lately.
    """
    drawing = _Drawing(_sizes(status))
    started = now
    for happening in happenings:
        started = min(started, happening.at)
        drawing.add(happening)
    drawing.finish(now)
    other: Event = {"store_clock": started}
    if epoch is not None:
        other["began"] = started + epoch
    return {"traceEvents": drawing.events(started), "displayTimeUnit": "ms", "otherData": other}


def _sizes(status: Mapping[str, Any] | None) -> dict[_Life, int]:
    groups = status["groups"] if status is not None else ()
    return {(group["name"], group["incarnation"]): group["world_size"] for group in groups}


@dataclass(slots=True)
class _Slice:
    life: _Life
    rank: int
    name: str
    category: str
    start: float
    end: float
    about: Event
    row: int = 0


@dataclass(slots=True)
class _Round:
    """A round of which not all is known yet."""

    life: _Life
    op: str
    tag: Tag
    seq: int
    opened: float
    came: dict[int, float] = field(default_factory=dict)
    root: int = -1
    drawn: dict[int, _Slice] = field(default_factory=dict)
    """The slices of those for whom it is over."""
    why: str = ""
    """Why it failed, if it did: so it does for those who come later."""

    @property
    def name(self) -> str:
        return f"{self.op} {self.seq}"

    @property
    def waiting(self) -> list[int]:
        """Ranks for which it is not over, in the order of their arrivals."""
        return [rank for rank in self.came if rank not in self.drawn]


def _other(it: Happening) -> int:
    """The other rank of a message: that of "to 3"."""
    rank = it.text.partition(" ")[2]
    return int(rank) if rank.isdecimal() else -1


class _Drawing:
    """Takes happenings, and makes slices, marks and arrows of them."""

    def __init__(self, sizes: dict[_Life, int]) -> None:
        self._sizes = sizes
        self._slices: list[_Slice] = []
        self._marks: list[tuple[_Life, int, float, str, str]] = []
        self._arrows: list[tuple[_Slice, _Slice, float, float]] = []
        self._rounds: dict[tuple[_Life, Tag, int], _Round] = {}
        self._messages: dict[tuple[_Life, int, int, Tag], deque[_Slice]] = {}
        self._ranks: dict[_Life, set[int]] = {}

    def add(self, it: Happening) -> None:
        """One more."""
        life = (it.group, it.incarnation)
        ranks = self._ranks.setdefault(life, set())
        if it.rank >= 0:
            ranks.add(it.rank)
        if it.kind == "formed" and it.text.isdecimal():
            self._sizes.setdefault(life, int(it.text))
        if it.kind in ("put", "taken"):
            self._message(life, it)
        elif it.kind in ("withdrawn", "expired") and not it.op:
            self._not_taken(life, it)
        elif it.op:
            self._of_a_round(life, it)
        else:
            self._marks.append((life, it.rank, it.at, it.kind, it.text))
        if it.kind == "aborted":
            for key in [key for key in self._rounds if key[0] == life]:
                self._end_for(self._rounds.pop(key), it.at, "aborted")

    def _of_a_round(self, life: _Life, it: Happening) -> None:
        key = (life, it.tag, it.seq)
        round = self._rounds.get(key)
        if round is None or it.kind == "opened":
            if it.kind not in ("opened", "arrived"):
                return  # it began before all that is known
            round = self._rounds[key] = _Round(life, it.op, it.tag, it.seq, it.at)
            if it.text.startswith("root "):
                round.root = int(it.text[5:])
        if it.kind == "arrived":
            self._arrived(round, it.rank, it.at)
        elif it.kind == "done":
            self._released(round, it.rank, it.at)
            del self._rounds[key]
        elif it.kind == "withdrawn" and it.rank in round.came and it.rank not in round.drawn:
            round.drawn[it.rank] = self._call(round, it.rank, round.came[it.rank], it.at, "given up")
            if len(round.drawn) == len(round.came):
                self._awaited_in_vain(round, it.at)
                del self._rounds[key]
        elif it.kind in ("failed", "expired"):
            round.why = plain(it.text) or it.kind
            self._end_for(round, it.at, it.kind, why=round.why)
            self._marks.append((life, it.rank, it.at, it.kind, f"{round.name}: {it.text}"))
        elif it.kind == "over":
            self._end_for(round, it.at, "done as far as it could be")
            del self._rounds[key]

    def _arrived(self, round: _Round, rank: int, at: float) -> None:
        round.came.pop(rank, None)  # it may have given up before, and now is the last one
        round.drawn.pop(rank, None)
        round.came[rank] = at
        if round.why:
            self._end_for(round, at, "failed", why=round.why)
        elif rank == round.root and round.op in _FROM_ROOT:
            self._released(round, rank, at)
        elif round.op in (_FROM_ROOT if round.root in round.came else _TO_ROOT) and rank != round.root:
            round.drawn[rank] = self._call(round, rank, at, at + MOMENT, "done")

    def _released(self, round: _Round, by: int, at: float) -> None:
        """All who are in it go on: the rank on which they waited came."""
        others = [rank for rank in round.waiting if rank != by]
        for rank in round.waiting:
            round.drawn[rank] = self._call(round, rank, round.came[rank], at + MOMENT, "done", last_rank=by)
        if by not in round.drawn or round.came[by] != at:
            return
        self._arrows += [(round.drawn[by], round.drawn[rank], at, at) for rank in others[:ARROWS]]
        if others and at - round.came[others[-1]] >= LATE_SECONDS:
            self._awaited(round, by, round.came[others[-1]], at)

    def _end_for(self, round: _Round, at: float, outcome: str, **more: object) -> None:
        """All who are in it wait no more."""
        for rank in round.waiting:
            round.drawn[rank] = self._call(round, rank, round.came[rank], at + MOMENT, outcome, **more)

    def _awaited_in_vain(self, round: _Round, until: float) -> None:
        """Nobody waits for the others any more, or it is still so."""
        ranks = self._ranks[round.life] | set(range(self._sizes.get(round.life, 0)))
        if round.op in _FROM_ROOT and round.root >= 0:
            ranks = {round.root}
        for rank in sorted(ranks.difference(round.came))[:ARROWS]:
            self._awaited(round, rank, max(round.came.values(), default=round.opened), until)

    def _awaited(self, round: _Round, rank: int, start: float, end: float) -> None:
        about: Event = {"tag": plain(round.tag), "number": round.seq}
        name = f"awaited: {round.name}"
        self._slices.append(_Slice(round.life, rank, name, "awaited", start, end, about))

    def _call(self, round: _Round, rank: int, start: float, end: float, outcome: str, **more: object) -> _Slice:
        about: Event = {"tag": plain(round.tag), "number": round.seq, "outcome": outcome, **more}
        slice = _Slice(round.life, rank, round.name, "collective", start, max(end, start + MOMENT), about)
        self._slices.append(slice)
        return slice

    def _not_taken(self, life: _Life, it: Happening) -> None:
        """A message was taken back, the last one mostly; or those of a mailbox expired, the first ones."""
        sent = self._messages.get((life, it.rank, _other(it), it.tag))
        if sent:
            (sent.pop if it.kind == "withdrawn" else sent.popleft)()
        self._marks.append((life, it.rank, it.at, it.kind, it.text))

    def _message(self, life: _Life, it: Happening) -> None:
        name = f"send {it.text}" if it.kind == "put" else f"recv {it.text}"
        slice = _Slice(life, it.rank, name, "message", it.at, it.at + MOMENT, {"tag": plain(it.tag)})
        self._slices.append(slice)
        if it.kind == "put":
            self._messages.setdefault((life, it.rank, _other(it), it.tag), deque()).append(slice)
        elif sent := self._messages.get((life, _other(it), it.rank, it.tag)):
            put = sent.popleft()
            self._arrows.append((put, slice, put.start, slice.start))

    def finish(self, now: float) -> None:
        """What is under way is shown until now."""
        for round in self._rounds.values():
            for rank in round.waiting:
                self._call(round, rank, round.came[rank], now, "waits")
            if round.waiting:
                self._awaited_in_vain(round, now)

    # ------------------------------------------------------------------------------------------------ as events

    def events(self, started: float) -> list[Event]:
        """All of it, sorted by time, behind what names the rows; times in microseconds from `started` on."""

        def micros(at: float) -> float:
            return round(max(at - started, 0.0) * 1e6, 3)

        rows = _Rows()
        drawn: list[Event] = []
        for slice in sorted(self._slices, key=lambda slice: (slice.start, -slice.end)):
            slice.row = rows.free(slice)
            start = micros(slice.start)
            drawn.append(
                {
                    "ph": "X", "pid": rows.process(slice.life), "tid": slice.row, "name": slice.name,
                    "cat": slice.category, "ts": start, "dur": max(round(micros(slice.end) - start, 3), 0.001),
                    "args": slice.about,
                }
            )  # fmt: skip
        for life, rank, at, kind, text in self._marks:
            drawn.append(
                {
                    "ph": "i", "s": "p" if rank < 0 else "t", "pid": rows.process(life), "tid": rows.first(life, rank),
                    "name": kind if rank < 0 else f"{kind}: rank {rank}", "cat": "member", "ts": micros(at),
                    "args": {"text": plain(text)},
                }
            )  # fmt: skip
        for number, (source, target, left, came) in enumerate(self._arrows, 1):
            arrow: Event = {"cat": "waits", "name": "released" if source.category == "collective" else "message"}
            for end, slice, at in (("s", source, left), ("f", target, came)):
                place: Event = {"pid": rows.process(slice.life), "tid": slice.row, "ts": micros(at), "id": number}
                drawn.append({"ph": end, **arrow, **place, **({"bp": "e"} if end == "f" else {})})
        order = {"X": 0, "i": 1, "s": 2, "f": 3}
        drawn.sort(key=lambda event: (event["ts"], order[str(event["ph"])]))
        return [*rows.named(), *drawn]


class _Rows:
    """Which incarnation is which process, and which row a slice is in."""

    def __init__(self) -> None:
        self._processes: dict[_Life, int] = {}
        self._rows: dict[tuple[_Life, int], list[int]] = {}
        self._until: dict[int, float] = {}  # by row, when it is free

    def process(self, life: _Life) -> int:
        return self._processes.setdefault(life, len(self._processes) + 1)

    def first(self, life: _Life, rank: int) -> int:
        """The rank's own row."""
        return self._of(life, rank)[0]

    def free(self, slice: _Slice) -> int:
        """The first row of the rank in which nothing is in the way: slices in one row do not overlap."""
        rows = self._of(slice.life, slice.rank)
        for row in rows:
            if self._until[row] <= slice.start:
                break
        else:
            row = self._another(rows)
        self._until[row] = slice.end
        return row

    def _of(self, life: _Life, rank: int) -> list[int]:
        self.process(life)
        rows = self._rows.get((life, rank))
        if rows is None:
            rows = self._rows[life, rank] = []
            self._another(rows)
        return rows

    def _another(self, rows: list[int]) -> int:
        row = len(self._until) + 1
        rows.append(row)
        self._until[row] = -math.inf
        return row

    def named(self) -> Iterator[Event]:
        """The events that say what the processes and rows are called, and in which order they are shown."""
        for life, pid in self._processes.items():
            name = f"group {plain(life[0])}, incarnation {life[1]}"
            yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}}
            yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": pid}}
        for place, ((life, rank), rows) in enumerate(sorted(self._rows.items())):
            for more, row in enumerate(rows):
                name = f"rank {rank}" if rank >= 0 else "all"
                name += f", call {more + 1} at a time" if more else ""
                about: Event = {"ph": "M", "pid": self._processes[life], "tid": row}
                yield {**about, "name": "thread_name", "args": {"name": name}}
                yield {**about, "name": "thread_sort_index", "args": {"sort_index": place * 100 + more}}
