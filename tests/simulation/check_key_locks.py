"""Locks and meetings: one holder at a time, in the store's own order; nobody goes on before enough have come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.simulation.key_history import Use
from tests.simulation.view import SETTLE, View

__all__ = ["check_fences", "check_locks", "check_meetings"]


def check_locks(view: View, uses: list[Use]) -> Iterator[str]:
    """No two holders at a time; what nobody holds is to be had."""
    unlocks: dict[int, Use] = {use.given: use for use in uses if use.op == "unlock"}
    granted = sorted((use for use in uses if use.op == "lock" and use.ok), key=lambda use: int(use.value))
    for place, holder in enumerate(granted):
        unlock = unlocks.get(holder.value)
        for later in granted[place + 1 :]:
            if unlock is not None and unlock.ok and later.ended < unlock.started:
                yield f"two holders at a time, {holder} till {unlock}: {later}"
            began_to_go = unlock is not None and unlock.started <= later.ended
            if not began_to_go and not view.may_be_out(holder.seat, later.ended):
                yield f"two holders at a time, {holder}: {later}"
    for use in uses:
        if use.op == "lock" and use.timed_out:
            yield from _check_starved(view, use, uses, unlocks)


def _check_starved(view: View, use: Use, uses: list[Use], unlocks: dict[int, Use]) -> Iterator[str]:
    since = use.deadline - SETTLE
    well = use.seat is view.history.keys.auditor or view.is_well(use.seat.life, since, use.deadline)
    if use.started > since or view.history.lowered & {"output_bytes", "outbox_frames"} or not well:
        return
    others = [other for other in uses if other.op == "lock" and other is not use and other.started <= use.deadline]
    if not any(_may_hold(view, other, since, unlocks) for other in others):
        yield f"nobody held the lock, and yet it timed out: {use}"


def _may_hold(view: View, other: Use, since: float, unlocks: dict[int, Use]) -> bool:
    """Whether this may have held the lock at some time from `since` on."""
    if other.was_refused or view.is_out(other.seat, since):
        return False
    if other.ok:
        unlock = unlocks.get(other.value)
        return unlock is None or not unlock.ok or unlock.ended > since
    # Nobody waited for it any more: it is taken back, or let go when it was granted.
    return other.ended > since - SETTLE or not view.is_well(other.seat.life, since - SETTLE, since)


def check_fences(view: View) -> Iterator[str]:
    """The numbers that come with locks only grow, from life to life of a group too, and each is for one holder."""
    families: dict[tuple[str, int], list[Use]] = defaultdict(list)
    for use in view.history.keys.uses:
        if use.op == "lock" and use.ok:
            families[use.seat.group, use.seat.epoch].append(use)
    for granted in families.values():
        numbers = [use.value for use in granted]
        if len(set(numbers)) < len(numbers):
            yield f"two holders with one number: {sorted(numbers)}"
        for use in granted:
            for later in granted:
                if use.ended < later.started and later.value < use.value:
                    yield f"a fencing number that is smaller than an earlier one ({use}): {later}"


def check_meetings(view: View, uses: list[Use]) -> Iterator[str]:
    """Whoever goes on was there together with enough others; where enough wait, they go on."""
    for use in uses:
        together = [other for other in uses if not other.was_refused and _overlap(use, other)]
        if use.ok and len(together) < use.given:
            yield f"a meeting of fewer than were to come: {use}"
        if use.timed_out:
            yield from _check_waiting(view, use, uses)
    ok = sum(use.ok for use in uses)
    possible = sum(not use.was_refused for use in uses)
    if ok and possible < -(-ok // uses[0].given) * uses[0].given:
        yield f"{ok} went on of {possible} that can have come: {uses[0]}"


def _overlap(one: Use, other: Use) -> bool:
    # One that was given up without a word may still have been there a moment later.
    return other.started <= one.ended and (other.ended >= one.started or other.is_open)


def _check_waiting(view: View, use: Use, uses: list[Use]) -> Iterator[str]:
    since = use.deadline - SETTLE
    waiting = [
        other
        for other in uses
        if other.started <= since
        and other.ended >= use.deadline
        and other.timed_out
        and view.is_well(other.seat.life, since, use.deadline)
    ]
    if use in waiting and len(waiting) >= use.given and not view.history.lowered:
        yield f"{len(waiting)} were at the meeting, and yet it timed out: {use}"
