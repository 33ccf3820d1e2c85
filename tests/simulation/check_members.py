"""Members: one for each rank in each life of a group, one story of them for all, none that goes on when it is out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from aiopg.errors import GroupTimeoutError
from tests.simulation.check_rounds import COLLECTIVES
from tests.simulation.history import Attempt, Seat
from tests.simulation.view import SETTLE, View

__all__ = ["check_fences", "check_members"]


def check_members(view: View) -> Iterator[str]:
    """No two members of one rank in one life, but where a join was taken back; what is heard of them is one story."""
    for ranks in view.groups.values():
        for seats in ranks.values():
            for earlier, later in pairwise(seats):
                if any(c.op not in ("join", "close", "events") and _worked(c.attempts) for c in earlier.calls):
                    yield f"two members of one rank in one life: {earlier} and {later}"
        stories = [story for seats in ranks.values() for seat in seats for story in seat.heard]
        longest = max(stories, key=len, default=[])
        for story in stories:
            if story != longest[: len(story)]:
                yield f"two stories of one group: {story} and {longest}"
        size = next((seat.world_size for seats in ranks.values() for seat in seats), 0)
        joined = sorted(rank for what, rank, _ in longest[:size] if what == "joined")
        if len(longest) >= size and joined != list(range(size)):
            yield f"a story that does not begin with all joining: {longest}"


def check_fences(view: View) -> Iterator[str]:
    """When a rank was taken over, its holder does nothing more: what it begins from then on does not end well."""
    for rival in view.history.seats:
        out = _took_over_at(view, rival) if rival.takeover else math.inf
        if out == math.inf:
            continue
        for seat in view.history.seats:
            if seat.joined < rival.asked and (seat.group, seat.rank, seat.epoch) == (
                rival.group,
                rival.rank,
                rival.epoch,
            ):
                yield from _check_out(seat, out, rival)


def _check_out(seat: Seat, out: float, rival: Seat) -> Iterator[str]:
    for call in seat.calls:
        # A call that was begun before, and is made again, may come to what it came to then. A message that is received
        # may have been on its way.
        if call.op in ("send", *COLLECTIVES) and call.attempts and call.started > out and _worked(call.attempts):
            yield f"it went on after {rival} took its rank over: {call.last}"


def _took_over_at(view: View, rival: Seat) -> float:
    """By when the store had surely put out whoever held this seat's rank before; `math.inf`: nobody knows."""
    joins = [attempt for call in rival.calls if call.op == "join" for attempt in call.attempts]
    return min((_applied_at(view, rival, attempt) for attempt in joins), default=math.inf)


def _applied_at(view: View, seat: Seat, join: Attempt) -> float:
    error = join.error
    if join.outcome == "ok":
        return join.ended
    if isinstance(error, GroupTimeoutError):
        if error.arrived is not None and seat.rank in error.arrived:
            return join.ended
        settled = join.started + SETTLE
        if join.ended > settled and view.is_well(seat.life, join.started, settled):
            return settled
    return math.inf


def _worked(attempts: list[Attempt]) -> bool:
    return any(attempt.outcome == "ok" for attempt in attempts)
