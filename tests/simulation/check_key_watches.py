"""Watches: every change of a key once, in the order of revisions, from the beginning of the watch to its end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import TypeAlias

from aiopg.keys import KeyEvent
from tests.simulation.key_history import Space, Use, Watching
from tests.simulation.view import SETTLE, View

__all__ = ["check_watches"]

EPSILON = 1e-6

Known: TypeAlias = dict[int, tuple[str, str, bytes | None]]
"""What changed, by revision: kind, key, value."""


def check_watches(view: View) -> Iterator[str]:
    """What is wrong with the changes that were told."""
    by_space: dict[Space, list[Use]] = defaultdict(list)
    for use in view.history.keys.uses:
        by_space[use.space].append(use)
    watches: dict[Space, list[Watching]] = defaultdict(list)
    for watching in view.history.keys.watches:
        watches[watching.seat.key].append(watching)
    for space, uses in by_space.items():
        known: Known = {}
        yield from _gather(known, uses, watches[space])
        for watching in watches[space]:
            yield from _check_watch(view, watching, known, uses)
        yield from _check_kinds(view, known, uses, watches[space])


def _gather(known: Known, uses: list[Use], watches: list[Watching]) -> Iterator[str]:
    """All that anybody was told of revisions; it is one story."""
    sets = sorted((use for use in uses if use.op == "set" and use.ok), key=lambda use: int(use.value))
    for use in sets:
        if use.value in known:
            yield f"two changes with one revision: {known[use.value]}; {use}"
        known[use.value] = ("set", use.key, use.given)
    for place, use in enumerate(sets):
        for later in sets[place + 1 :]:
            if later.ended < use.started:
                yield f"a revision that is smaller than an earlier one ({later}): {use}"
    for watching in watches:
        for _, event in watching.told:
            told = (event.kind, event.key, event.value)
            if known.setdefault(event.revision, told) != told:
                yield f"two stories of revision {event.revision}, {known[event.revision]}: {event} of {watching}"


def _check_watch(view: View, watching: Watching, known: Known, uses: list[Use]) -> Iterator[str]:
    revisions = [event.revision for _, event in watching.told]
    for before, event in zip(revisions, watching.told[1:], strict=False):
        if event[1].revision <= before:
            yield f"a change came twice, or after a later one: {event[1]} of {watching}"
            return
    for _, change in watching.told:
        if not change.key.startswith(watching.prefix):
            yield f"a change that was not asked for: {change} of {watching}"
    first = _begins_behind(watching, uses, revisions)
    last = max(revisions, default=0)
    if not watching.has_gap:
        last = max(last, _must_have_heard(view, watching, uses))
    told = set(revisions)
    for revision, (_, key, _) in sorted(known.items()):
        if first < revision <= last and key.startswith(watching.prefix) and revision not in told:
            yield f"a change was skipped, {revision} {known[revision]}: {watching}, told of {revisions}"
            return
    if watching.prefix == "" and watching.told and revisions != list(range(int(first) + 1, revisions[-1] + 1)):
        yield f"changes of all keys with a hole, behind {first}: {watching}, told of {revisions}"


def _begins_behind(watching: Watching, uses: list[Use], revisions: list[int]) -> float:
    """The revision behind which it is to be told everything."""
    if watching.after is not None:
        return watching.after
    # The store hears of it before all that its own user asks for later.
    own = [
        use.value - 1
        for use in uses
        if use.op == "set" and use.ok and use.seat is watching.seat and use.started > watching.started
    ]
    told = [revisions[0] - 1] if revisions else []
    return min([*own, *told], default=math.inf)


def _must_have_heard(view: View, watching: Watching, uses: list[Use]) -> int:
    """The last revision that it was surely to be told of when its last step waited in vain."""
    since, until = watching.quiet
    if until - since < SETTLE or not view.is_well(watching.seat.life, until - SETTLE, until) or view.history.lowered:
        return 0
    return max(
        (use.value for use in uses if use.op == "set" and use.ok and use.ended < until - SETTLE),
        default=0,
    )


def _check_kinds(view: View, known: Known, uses: list[Use], watches: list[Watching]) -> Iterator[str]:
    """A key goes for the reason that is told."""
    sets = {use.given: use for use in uses if use.op == "set"}
    heard: dict[int, tuple[float, KeyEvent]] = {}
    for watching in watches:
        for at, event in watching.told:
            if event.revision not in heard or at < heard[event.revision][0]:
                heard[event.revision] = at, event
    for revision, (at, event) in sorted(heard.items()):
        before = next((known[r] for r in range(revision - 1, 0, -1) if r in known and known[r][1] == event.key), None)
        if before is None or not event.key.startswith("board/"):
            continue
        if event.kind != "set" and before[0] != "set":
            yield f"a key that was gone is gone again: {before}; {event}"
            continue
        given = sets.get(before[2] or b"")
        if event.kind == "set" or given is None or not _is_whole(known, revision, event.key):
            continue
        yield from _check_kind(view, given, at, event, uses)


def _is_whole(known: Known, revision: int, key: str) -> bool:
    """Whether all revisions since the key's last known change are known, so that this was its last one."""
    for before in range(revision - 1, 0, -1):
        if before not in known:
            return False
        if known[before][1] == key:
            return True
    return False


def _check_kind(view: View, given: Use, at: float, event: KeyEvent, uses: list[Use]) -> Iterator[str]:
    if event.kind == "expired":
        if given.ttl is None or given.started + given.ttl > at + EPSILON:
            yield f"a key expired before its time ({given}): {event} at {at:.4f}"
    elif event.kind == "ended":
        if not given.session or not view.may_be_out(given.seat, at):
            yield f"a key ended whose session had not ({given}): {event} at {at:.4f}"
    elif not any(use.op == "delete" and use.key == event.key and use.started <= at for use in uses):
        yield f"a key was deleted by nobody: {event}"
