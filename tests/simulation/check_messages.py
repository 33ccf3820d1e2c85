"""Messages: once, in order, whole, from where they say they are; no gap but where something expired."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeAlias

from aiopg.errors import DataExpiredError, GroupClosedError, GroupTimeoutError, PeerLostError, StoreLostError
from tests.simulation.history import Attempt, Call, Seat
from tests.simulation.view import SETTLE, View
from tests.simulation.workload import payload

__all__ = ["check_messages"]

Mailbox: TypeAlias = tuple[tuple[str, int, int], int, int, int | str]
"""Life of the group, from, to, tag."""

_MAYBE = ("cancelled", "died", "")


def check_messages(view: View) -> Iterator[str]:
    """What is wrong with the messages of a run."""
    sends: dict[Mailbox, list[Call]] = defaultdict(list)
    receives: dict[Mailbox, list[Attempt]] = defaultdict(list)
    for call in view.history.calls:
        seat = call.seat
        if not call.attempts or seat.incarnation < 0:
            continue
        if call.op == "send":
            sends[seat.key, seat.rank, call.peer, call.tag].append(call)
        elif call.op == "recv":
            receives[seat.key, call.peer, seat.rank, call.tag] += call.attempts
    for mailbox, attempts in receives.items():
        attempts.sort(key=lambda attempt: attempt.order if attempt.order >= 0 else 1 << 60)
        yield from _check_mailbox(view, mailbox, sends.get(mailbox, []), attempts)


def _check_mailbox(view: View, mailbox: Mailbox, sends: list[Call], attempts: list[Attempt]) -> Iterator[str]:
    places = {call.number: place for place, call in enumerate(sends)}
    got: set[int] = set()
    last = -1
    tombstones: list[Attempt] = []
    for attempt in attempts:
        if isinstance(attempt.error, DataExpiredError):
            tombstones.append(attempt)
        if attempt.outcome != "ok":
            continue
        sent = _sent(view, attempt.value, sends, places)
        if sent is None:
            yield f"a foreign message {attempt.value!r:.60}: {attempt}"
            continue
        place = places[sent.number]
        if place in got:
            yield f"a message came twice: {attempt}"
            continue
        if place < last:
            yield f"a message came after a later one: {attempt}"
        if sent.started > attempt.ended:
            yield f"a message came before it was sent: {attempt}"
        if not may_have_gone(sent):
            yield f"a message came that was refused ({sent.last}): {attempt}"
        yield from _check_gap(sends[last + 1 : place], tombstones, attempt)
        got.add(place)
        last = max(place, last)
        tombstones = []
    seats = {attempt.call.seat: None for attempt in attempts}
    if len(seats) == 1:
        yield from _check_end(view, next(iter(seats)), attempts, sends, got, last, tombstones)


def _sent(view: View, value: Any, sends: list[Call], places: dict[int, int]) -> Call | None:
    if not isinstance(value, list) or len(value) != 3 or value[0] not in places:
        return None
    sent = view.call(value[0])
    return sent if sent is not None and value == payload(sent) else None


def may_have_gone(call: Call) -> bool:
    """Whether a send may have reached its mailbox."""
    return any(
        attempt.outcome in ("ok", *_MAYBE)
        or isinstance(attempt.error, GroupTimeoutError | StoreLostError | GroupClosedError)
        for attempt in call.attempts
    )


def _check_gap(skipped: list[Call], tombstones: list[Attempt], before: Attempt) -> Iterator[str]:
    sure = [call for call in skipped if call.last.outcome == "ok"]
    maybe = [call for call in skipped if may_have_gone(call)]
    if len(sure) > len(tombstones):
        yield f"{len(sure)} accepted messages are missing, {len(tombstones)} expired, before {before}: {sure[0]}"
    if len(tombstones) > len(maybe):
        yield f"{len(tombstones)} messages expired where {len(maybe)} can have been, before {before}"
    yield from _check_expired(maybe, tombstones)


def _check_expired(calls: list[Call], tombstones: list[Attempt]) -> Iterator[str]:
    for tombstone in tombstones:
        if not any(call.started + call.seat.ttl <= tombstone.ended + 1e-6 for call in calls):
            yield f"expired before its time: {tombstone}"


def _check_end(
    view: View,
    seat: Seat,
    attempts: list[Attempt],
    sends: list[Call],
    got: set[int],
    last: int,
    tombstones: list[Attempt],
) -> Iterator[str]:
    """Nothing that was accepted is missing when the receiver has heard that there is nothing more."""
    rest = [call for place, call in enumerate(sends) if place > last and place not in got]
    yield from _check_expired([call for call in rest if may_have_gone(call)], tombstones)
    end = attempts[-1]
    for attempt in attempts:
        if attempt.timed_out and attempt is not end:
            yield from _check_starved(view, seat, attempt, attempts, sends)
    if end.call.detail != "drain":
        return
    if isinstance(end.error, PeerLostError):
        sure = [call for call in rest if call.last.outcome == "ok" and call.last.ended <= end.started]
        if len(sure) > len(tombstones):
            yield f"accepted and lost: {sure[0].last}; told instead: {end}"
    elif end.timed_out:
        yield from _check_starved(view, seat, end, attempts, sends)


def _check_starved(
    view: View, seat: Seat, waited: Attempt, attempts: list[Attempt], sends: list[Call]
) -> Iterator[str]:
    """A receiver whose connection was well for a while timed out, and a message was there for it."""
    since = waited.deadline - SETTLE
    if waited.started > since or not view.is_well(seat.life, since, waited.deadline):
        return
    accepted = [call for call in sends if call.last.outcome == "ok" and call.last.ended < since]
    others = [a for a in attempts if a is not waited and a.started <= waited.ended]
    taken = sum(a.outcome == "ok" or isinstance(a.error, DataExpiredError) for a in others)
    # Those that wait beside this one may be owed what is there.
    taken += sum(not (a.outcome == "ok" or a.error) or a.ended > since for a in others if a.outcome != "ok")
    if len(accepted) > taken:
        yield f"{len(accepted)} were sent and {taken} received, and yet it timed out: {waited}"
