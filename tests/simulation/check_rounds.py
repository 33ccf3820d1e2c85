"""Collectives: right contents in rank order, one outcome for all, nobody counted who was not there.

The number of a call among the collectives of its rank and tag is counted from what its program saw: a call that ended
well or in an error that decides it has used its number, one that was taken back has not, and of some (cancelled, and
not made again) nobody can tell. So each call has a range of numbers, mostly one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiopg.errors import (
    CollectiveMismatchError,
    DataExpiredError,
    GroupAbortedError,
    GroupTimeoutError,
    PayloadTooLargeError,
    PeerLostError,
    StoreFullError,
)
from tests.simulation.history import Attempt, Call, Seat
from tests.simulation.view import SETTLE, View
from tests.simulation.workload import payload

__all__ = ["COLLECTIVES", "Numbered", "check_rounds", "number_calls"]

COLLECTIVES = frozenset(
    ("barrier", "all_gather", "broadcast", "gather", "scatter", "all_to_all", "all_reduce", "reduce")
)
_DECIDED = (CollectiveMismatchError, DataExpiredError, GroupAbortedError, PeerLostError)
_ALL = ("barrier", "all_gather", "all_to_all", "all_reduce")


@dataclass(eq=False, slots=True)
class Numbered:
    """A call with the numbers that it may have."""

    call: Call
    least: int
    most: int

    def meets(self, other: Numbered) -> bool:
        """Whether both may have the same number."""
        return self.least <= other.most and other.least <= self.most

    def has(self, number: int) -> bool:
        """Whether this is its number, for sure."""
        return self.least == self.most == number


Tagged: TypeAlias = tuple[Seat, int | str]


def number_calls(view: View) -> dict[Tagged, list[Numbered]]:
    """The collectives of each seat and tag, in order."""
    numbered: dict[Tagged, list[Numbered]] = defaultdict(list)
    last: dict[Tagged, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for call in view.history.calls:
        if call.op in COLLECTIVES and call.attempts:
            key = (call.seat, call.tag)
            least, most = last[key]
            numbered[key].append(Numbered(call, least + 1, most + 1))
            uses = _uses(call)
            last[key] = least + uses[0], most + uses[1]
    return numbered


def _uses(call: Call) -> tuple[int, int]:
    """How many numbers it used, at least and at most."""
    attempt = call.last
    error = attempt.error
    if attempt.outcome == "ok" or isinstance(error, _DECIDED):
        return 1, 1
    if isinstance(error, PayloadTooLargeError):
        return 0, 1  # before it was sent, or as what came of it
    if attempt.left_no_trace or isinstance(error, StoreFullError):
        return 0, 0
    return 0, 1


def may_count(attempt: Attempt) -> bool:
    """Whether the store may have counted this arrival."""
    return not (attempt.left_no_trace or isinstance(attempt.error, StoreFullError))


def check_rounds(view: View, numbered: dict[Tagged, list[Numbered]]) -> Iterator[str]:
    """What is wrong with the collectives of a run."""
    by_call = {one.call: one for calls in numbered.values() for one in calls}
    vectors: dict[tuple[str, int], tuple[int, ...]] = {}
    for one in by_call.values():
        for attempt in one.call.attempts:
            if attempt.outcome == "ok":
                yield from _check_contents(view, one, attempt, by_call, vectors)
                yield from _check_presence(view, one, attempt, numbered)
            elif attempt.timed_out:
                yield from _check_timeout(view, one, attempt, numbered)
            elif isinstance(attempt.error, CollectiveMismatchError):
                yield from _check_mismatch(view, one, attempt, attempt.error, numbered)


# ------------------------------------------------------------------------------------------------------ contents


def _check_contents(
    view: View, one: Numbered, attempt: Attempt, by_call: dict[Call, Numbered], vectors: dict[tuple[str, int], Any]
) -> Iterator[str]:
    call, seat = one.call, one.call.seat
    givers = _givers(view, call, attempt.value)
    if givers is None:
        yield f"wrong result {attempt.value!r:.100}: {attempt}"
        return
    for rank, number in givers.items():
        giver = view.call(number)
        known = by_call.get(giver) if giver is not None else None
        if giver is None or known is None or giver.seat not in view.peers(seat, rank) or giver.tag != call.tag:
            yield f"a part of rank {rank} from nowhere ({giver}): {attempt}"
        elif giver.signature != call.signature:
            yield f"a part from another collective ({giver}): {attempt}"
        elif not known.meets(one):
            yield f"a part of number {known.least}-{known.most} in {one.least}-{one.most} ({giver}): {attempt}"
        elif not any(a.started <= attempt.ended and may_count(a) for a in giver.attempts):
            yield f"a part that was taken back ({giver}): {attempt}"
    if call.op in ("all_gather", "all_reduce", "all_to_all", "gather", "reduce") and len(givers) == seat.world_size:
        vector = tuple(givers[rank] for rank in range(seat.world_size))
        if vector[seat.rank] != call.number:
            yield f"its own part is another one's: {attempt}"
        for number in vector:
            if vectors.setdefault((call.op, number), vector) != vector:
                yield f"two outcomes of one round, {vector} and {vectors[call.op, number]}: {attempt}"


def _givers(view: View, call: Call, value: Any) -> dict[int, int] | None:
    """The calls whose parts this result is made of, by rank; None if it is not made of parts as it should be."""
    seat = call.seat
    if call.op in ("broadcast", "scatter"):
        if call.op == "broadcast" and seat.rank == call.peer:
            return {call.peer: call.number} if value == payload(call) else None
        number = _number(view, value, -1 if call.op == "broadcast" else seat.rank)
        return None if number is None else {call.peer: number}
    if call.op == "barrier" or (call.op in ("gather", "reduce") and seat.rank != call.peer):
        return {} if value is None else None
    if not isinstance(value, list) or len(value) != seat.world_size:
        return None
    if call.op in ("all_reduce", "reduce"):
        return {rank: number - 1 for rank, number in enumerate(value)}
    numbers = {
        rank: _number(view, part, seat.rank if call.op == "all_to_all" else -1) for rank, part in enumerate(value)
    }
    return (
        {rank: number for rank, number in numbers.items() if number is not None}
        if None not in numbers.values()
        else None
    )


def _number(view: View, part: Any, rank: int) -> int | None:
    if not isinstance(part, list) or len(part) != 3 or (giver := view.call(part[0])) is None:
        return None
    return giver.number if part == payload(giver, rank) else None


# ------------------------------------------------------------------------------------------------------ presence


def _check_presence(
    view: View, one: Numbered, attempt: Attempt, numbered: dict[Tagged, list[Numbered]]
) -> Iterator[str]:
    """A barrier ended well: every rank was in it."""
    call, seat = one.call, one.call.seat
    if call.op != "barrier":
        return
    for rank in range(seat.world_size):
        if rank == seat.rank:
            continue
        candidates = [
            other
            for peer in view.peers(seat, rank)
            for other in numbered.get((peer, call.tag), ())
            if other.meets(one) and other.call.signature == call.signature
        ]
        if not any(a.started <= attempt.ended and may_count(a) for other in candidates for a in other.call.attempts):
            yield f"complete without rank {rank}: {attempt}"


# ------------------------------------------------------------------------------------------------------ timeouts


def _check_timeout(
    view: View, one: Numbered, attempt: Attempt, numbered: dict[Tagged, list[Numbered]]
) -> Iterator[str]:
    error = attempt.error
    assert isinstance(error, GroupTimeoutError)
    if error.op == "join" or error.missing is None or error.arrived is None:
        return  # where it says that nothing was done (`may_count`), the other rules hold it to that
    call, seat = one.call, one.call.seat
    if not one.least <= error.seq <= one.most:
        yield f"number {error.seq}, and not {one.least} to {one.most}: {attempt}"
    for rank in error.arrived:
        if rank != seat.rank and not _may_be_in(view, seat, rank, call.tag, error.seq, attempt.ended, numbered):
            yield f"rank {rank} had not arrived: {attempt}"
    for rank in error.missing:
        if rank != seat.rank and _was_in(view, seat, rank, call.tag, error.seq, attempt.started, numbered):
            yield f"rank {rank} had arrived: {attempt}"
    yield from _check_hung(view, one, attempt, numbered)
    since = attempt.deadline - SETTLE
    if attempt.started < since and view.is_well(seat.life, since, attempt.deadline):
        for rank in error.missing:
            peers = view.peers(seat, rank)
            if len(peers) == 1 and _is_known_gone(view, peers[0], since):
                yield f"rank {rank} was gone, and nobody said so: {attempt}"


def _is_known_gone(view: View, peer: Seat, at: float) -> bool:
    """Whether the store must have known by then that this member was gone."""
    if peer.closed < at and peer.close_error is None and peer.closing > peer.joined:
        left = next((c.last for c in peer.calls if c.op == "close"), None)
        return (
            left is not None and left.ended - left.started < 1.5 and view.is_well(peer.life, left.started, left.ended)
        )
    return view.is_known_lost(peer.life, at)


def _calls_of(
    view: View, seat: Seat, rank: int, tag: int | str, numbered: dict[Tagged, list[Numbered]]
) -> list[Numbered]:
    return [other for peer in view.peers(seat, rank) for other in numbered.get((peer, tag), ())]


def _may_be_in(
    view: View, seat: Seat, rank: int, tag: int | str, number: int, at: float, numbered: dict[Tagged, list[Numbered]]
) -> bool:
    return any(
        other.least <= number <= other.most and other.call.started <= at
        for other in _calls_of(view, seat, rank, tag, numbered)
    )


def _was_in(
    view: View, seat: Seat, rank: int, tag: int | str, number: int, at: float, numbered: dict[Tagged, list[Numbered]]
) -> bool:
    """Whether its call of this number had ended well by then."""
    return any(
        other.has(number) and any(a.outcome == "ok" and a.ended < at for a in other.call.attempts)
        for other in _calls_of(view, seat, rank, tag, numbered)
    )


def _check_hung(view: View, one: Numbered, attempt: Attempt, numbered: dict[Tagged, list[Numbered]]) -> Iterator[str]:
    """Nothing was in the way, and everybody needed was there for a while: it should not have timed out."""
    call, seat, since = one.call, one.call.seat, attempt.deadline - SETTLE
    if one.least != one.most or attempt.started > since:
        return
    if not view.is_well(seat.life, since, attempt.deadline):
        return
    if call.op in ("broadcast", "scatter"):
        needed = [call.peer]
    else:
        needed = [rank for rank in range(seat.world_size) if rank != seat.rank]
    for rank in needed:
        peers = view.peers(seat, rank)
        if len(peers) != 1 or not view.is_well(peers[0].life, since, attempt.deadline):
            return
        if not any(
            other.has(one.least) and any(_is_there(a, since, attempt.deadline) for a in other.call.attempts)
            for other in numbered.get((peers[0], call.tag), ())
        ):
            return
    yield f"everybody was there and yet it timed out: {attempt}"


def _is_there(attempt: Attempt, since: float, until: float) -> bool:
    """Whether this attempt was under way or done for all that time."""
    if attempt.started > since or (not may_count(attempt) and attempt.ended <= until):
        return False
    return attempt.outcome == "ok" or attempt.ended > until


# ---------------------------------------------------------------------------------------------------- mismatches


def _check_mismatch(
    view: View, one: Numbered, attempt: Attempt, error: CollectiveMismatchError, numbered: dict[Tagged, list[Numbered]]
) -> Iterator[str]:
    call, seat = one.call, one.call.seat
    if error.tag != call.tag or error.seq > one.most:
        yield f"a mismatch of another call: {attempt}"
    if len(set(error.calls.values())) < 2:
        yield f"a mismatch without a difference: {attempt}"
    for rank, said in error.calls.items():
        others = _calls_of(view, seat, rank, call.tag, numbered)
        called = [o.call for o in others if o.least <= error.seq <= o.most and o.call.started <= attempt.ended]
        if not any(_described(c) == said for c in called):
            yield f"rank {rank} called no {said} there: {attempt}"
    for rank in range(seat.world_size):
        for other in _calls_of(view, seat, rank, call.tag, numbered):
            whole = other.call.op in _ALL or (other.call.op in ("gather", "reduce") and rank == other.call.peer)
            if whole and other.has(error.seq) and other.call.last.outcome == "ok":
                yield f"a mismatch here, and a success there ({other.call.last}): {attempt}"


def _described(call: Call) -> str:
    said = [f"root={call.peer}"] if call.peer >= 0 else []
    said += [f"op={call.detail}"] if call.detail else []
    return f"{call.op}({', '.join(said)})"
