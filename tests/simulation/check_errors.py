"""Errors and ends: each call ended in time, and each error has a cause in the history."""

from __future__ import annotations

import math
from collections.abc import Iterator

from aiopg.errors import (
    AiopgError,
    CollectiveMismatchError,
    DataExpiredError,
    FencedError,
    GroupAbortedError,
    GroupClosedError,
    GroupTimeoutError,
    PayloadTooLargeError,
    PeerLostError,
    RankConflictError,
    StoreFullError,
    StoreLostError,
    WorldSizeMismatchError,
)
from tests.simulation.history import ACCURACY, Attempt, Seat
from tests.simulation.view import View

__all__ = ["check_ends", "check_errors", "unjustified"]

EPSILON = 1e-6


def check_ends(view: View) -> Iterator[str]:
    """Every call ended, by its deadline."""
    for call in view.history.calls:
        for attempt in call.attempts:
            if not attempt.outcome:
                yield f"it never ended: {attempt}"
            elif attempt.ended > attempt.deadline + ACCURACY + EPSILON:
                yield f"{attempt.ended - attempt.deadline:.3f} s after its deadline: {attempt}"
            elif attempt.timed_out and attempt.ended < attempt.deadline - EPSILON and call.op != "events":
                yield f"it timed out before its deadline: {attempt}"


def check_errors(view: View) -> Iterator[str]:
    """Every error has a cause."""
    for call in view.history.calls:
        for attempt in call.attempts:
            if attempt.error is not None and (why := unjustified(view, attempt)):
                yield f"{why}: {attempt}"


def unjustified(view: View, attempt: Attempt) -> str:
    """Why this error should not be; "" if it may."""
    error, seat = attempt.error, attempt.call.seat
    if not isinstance(error, AiopgError):
        return "an error of another kind"
    if isinstance(error, GroupTimeoutError):
        return _timeout(attempt, error)
    if isinstance(error, PeerLostError):
        return _peer_lost(view, attempt, error)
    if isinstance(error, StoreLostError):
        life = seat.life
        full = bool(view.history.lowered & {"output_bytes", "outbox_frames"})
        return "" if full or view.may_be_lost(life, attempt.ended) else "its store was there"
    if isinstance(error, GroupAbortedError):
        peers = view.peers(seat, error.origin)
        said = any(at <= attempt.ended and reason == error.reason for peer in peers for at, reason in peer.aborts)
        return "" if said else "nobody aborted so"
    if isinstance(error, FencedError):
        return "" if _rivals(view, seat, attempt.ended, takeover=True) else "nobody took it over"
    if isinstance(error, RankConflictError):
        return "" if call_may_join(attempt) and _rivals(view, seat, attempt.ended) else "nobody holds its rank"
    if isinstance(error, WorldSizeMismatchError):
        sizes = {s.world_size for s in view.history.seats if s.group == seat.group and s.asked <= attempt.ended}
        return "" if {error.world_size, error.expected} <= sizes else "nobody asked for that size"
    return _limits_and_ends(view, attempt, error)


def _limits_and_ends(view: View, attempt: Attempt, error: AiopgError) -> str:
    seat = attempt.call.seat
    if isinstance(error, GroupClosedError):
        return "" if seat.over <= attempt.ended or _never_joined(attempt) else "it was not closed"
    if isinstance(error, StoreFullError):
        return "" if error.limit in view.history.lowered else "that limit is far"
    if isinstance(error, PayloadTooLargeError):
        return "" if "payload_bytes" in view.history.lowered else "that limit is far"
    if isinstance(error, DataExpiredError):
        if attempt.call.op == "recv":
            return ""  # judged with its mailbox
        given = [
            c.started
            for p in view.history.seats
            if p.key == seat.key
            for c in p.calls
            if c.attempts and c.tag == attempt.call.tag
        ]
        return "" if min(given, default=math.inf) + seat.ttl <= attempt.ended + EPSILON else "it did not wait so long"
    if isinstance(error, CollectiveMismatchError):
        return ""  # judged with its round
    return "an error that should not come here"


def call_may_join(attempt: Attempt) -> bool:
    """Whether this attempt may have been the one that joins."""
    return attempt.call.seat.joined == math.inf or attempt.started <= attempt.call.seat.joined


def _never_joined(attempt: Attempt) -> bool:
    return attempt.call.op == "abort" and call_may_join(attempt)


def _timeout(attempt: Attempt, error: GroupTimeoutError) -> str:
    call = attempt.call
    if error.op not in (call.op, "join"):
        return "the timeout of another call"
    if call.op == "recv" and error.op == "recv" and error.missing not in ((call.peer,), None):
        return "the missing one of a recv is its source"
    return ""


def _peer_lost(view: View, attempt: Attempt, error: PeerLostError) -> str:
    seat, call = attempt.call.seat, attempt.call
    if call.op in ("send", "recv") and tuple(error.ranks) != (call.peer,):
        return "another peer than its own"
    for rank in error.ranks:
        if rank == seat.rank:
            return "it is there itself"
        if not _may_be_gone(view, seat, rank, attempt.ended):
            return f"rank {rank} was there"
    return ""


def _may_be_gone(view: View, seat: Seat, rank: int, at: float) -> bool:
    full = bool(view.history.lowered & {"output_bytes", "outbox_frames"})
    peers = [peer for peer in view.history.seats if (peer.group, peer.rank) == (seat.group, rank)]
    for peer in peers:
        known = peer.key == seat.key
        if peer.joined <= at and not known:
            continue
        if peer.asked <= at and (peer.over <= at or view.may_be_lost(peer.life, at) or full):
            return True
        if _rivals(view, peer, at, takeover=True):
            return True
        if not known and any(a.ended <= at for c in peer.calls if c.op != "close" for a in c.attempts):
            return True  # it took a join back, too late
    return False


def _rivals(view: View, seat: Seat, at: float, takeover: bool = False) -> bool:
    """Whether another process had asked for the same rank by then."""
    return any(
        other is not seat
        and (other.group, other.rank) == (seat.group, seat.rank)
        and other.asked <= at
        and (other.takeover or not takeover)
        for other in view.history.seats
    )
