"""What many seeds must reach together: counted run by run, and nothing of it may be missing at the end.

Of the errors of `aiopg.errors` these come out of calls on a group or on keys, and are to be reached: `ERRORS`. The
others are no business of a simulator, and for each `ELSEWHERE` says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from aiopg.errors import AiopgError, GroupTimeoutError, StoreLostError
from tests.simulation.history import Attempt, Call, History, Seat
from tests.simulation.plan import COLLECTIVES, FAULTS, JOURNAL_FAULTS
from tests.simulation.probes import PLACES

__all__ = ["ELSEWHERE", "ERRORS", "REQUIRED", "count"]

ERRORS = (
    "CollectiveMismatchError",
    "DataExpiredError",
    "FencedError",
    "GroupAbortedError",
    "GroupClosedError",
    "GroupTimeoutError",
    "KeyTimeoutError",
    "PayloadTooLargeError",
    "PeerLostError",
    "QueueEmptyError",
    "RankConflictError",
    "StoreFullError",
    "StoreLostError",
    "WatchGapError",
    "WorldSizeMismatchError",
)

ELSEWHERE = {
    "AiopgError": "a base class",
    "PeerError": "a base class",
    "StoreError": "a base class",
    "UsageError": "bad arguments; programs here make none, and no fault makes them",
    "CodecError": "raised by the codec before anything of the call is done",
    "KeyOperationError": "keys here are used for one thing each, and no lock is lost behind its holder's back",
    "WrongThreadError": "of the blocking face, which needs threads",
    "ForkError": "needs processes that fork",
    "AuthenticationError": "needs a token, which no store here asks for",
    "AddressInUseError": "raised where a store is hosted, not by a call",
    "StoreUnreachableError": "raised where a store is looked for, not by a call",
    "JournalCorruptError": "raised where a store is started; what a disk here lost is a torn tail, never damage",
    "ProtocolError": "both ends are aiopg, so it would be a bug: the checker takes it for one",
}

TRANSITIONS = (
    "a rank came again in another process",
    "a group lived again on one store",
    "a message of a dead sender was received",
    "a timeout said who was missing",
    "a timeout could not say who was missing",
    "a store was lost, and it had not crashed",
    "a member heard of others by events",
    "a program failed out of its block",
    "a journal recovered",
    "a torn tail cut",
    "a snapshot loaded",
    "a crash while a snapshot was made",
)

OPS = (
    "set", "get", "wait", "check", "add", "append", "compare_set", "delete",
    "push", "pop", "pop now", "lock", "unlock", "meet", "watch",
)  # fmt: skip
"""What is done with keys."""

REQUIRED = (
    *PLACES,
    *TRANSITIONS,
    *(f"fault: {name}" for name in {**FAULTS, **JOURNAL_FAULTS}),
    *(f"error: {name}" for name in ERRORS),
    *(f"call: {name}" for name in (*COLLECTIVES, "send", "recv", "join", "abort", "expire_data", "events", "close")),
    *(f"made again: {name}" for name in (*COLLECTIVES, "send", "recv", "join")),
    *(f"use: {name}" for name in OPS),
    *(f"claimed of a use: {name}" for name in ("not applied", "unknown")),
    *(f"outcome: {name}" for name in ("ok", "error", "cancelled", "died")),
    *(f"claimed: {name}" for name in ("not applied", "applied", "unknown")),
)


def count(history: History, counts: Counter[str]) -> None:
    """Count what a run came to."""
    for call in history.calls:
        counts[f"call: {call.op}"] += 1
        for attempt in call.attempts:
            counts["attempts"] += 1
            counts[f"outcome: {attempt.outcome}"] += 1
            counts.update(_errors(history, attempt))
        if len(call.attempts) > 1 and call.last.outcome == "ok":
            counts[f"made again: {call.op}"] += 1
        counts["a message of a dead sender was received"] += _is_from_the_dead(history, call)
    counts.update(_lives(history))
    _count_uses(history, counts)


def _errors(history: History, attempt: Attempt) -> Iterator[str]:
    error = attempt.error
    if error is None:
        return
    yield f"error: {type(error).__name__}"
    if isinstance(error, AiopgError):
        yield f"claimed: {error.outcome.value}"
    if isinstance(error, GroupTimeoutError):
        known = error.missing is not None
        yield "a timeout said who was missing" if known else "a timeout could not say who was missing"
    if isinstance(error, StoreLostError) and not history.crashes and not history.restarts:
        yield "a store was lost, and it had not crashed"


def _is_from_the_dead(history: History, call: Call) -> bool:
    if call.op != "recv" or not call.attempts or call.last.outcome != "ok":
        return False
    sent = history.numbered(call.last.value[0])
    return sent is not None and sent.seat.life.died < call.started


def _lives(history: History) -> Iterator[str]:
    held: dict[tuple[str, int], Seat] = {}
    lived: dict[tuple[str, int], int] = {}
    for seat in history.seats:
        if any(seat.heard):
            yield "a member heard of others by events"
        if any("ProgramFailed" in reason for _, reason in seat.aborts):
            yield "a program failed out of its block"
        if seat.incarnation < 0:
            continue
        before = held.setdefault((seat.group, seat.rank), seat)
        if before.life is not seat.life:
            yield "a rank came again in another process"
        if lived.setdefault((seat.group, seat.epoch), seat.incarnation) != seat.incarnation:
            yield "a group lived again on one store"


def _count_uses(history: History, counts: Counter[str]) -> None:
    for use in history.keys.uses:
        counts["uses"] += 1
        counts[f"use: {use.op}"] += use.ok
        if use.error is not None:
            counts[f"error: {type(use.error).__name__}"] += 1
        if isinstance(use.error, AiopgError):
            counts[f"claimed of a use: {use.error.outcome.value}"] += 1
