"""Queues: each item for one, none lost, in the order in which its producer pushed it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulation.key_history import Use
from tests.simulation.view import SETTLE, View

__all__ = ["check_queue"]

LOOKS = 40
"""At as many moments it is looked whether a connection was well."""


def check_queue(view: View, uses: list[Use]) -> Iterator[str]:
    """What is wrong with one queue."""
    pushes = {use.given: use for use in uses if use.op == "push"}
    pops = [use for use in uses if use.op in ("pop", "pop now")]
    popped: dict[bytes, Use] = {}
    for pop in pops:
        if not pop.ok:
            continue
        push = pushes.get(pop.value)
        if push is None or push.started > pop.ended:
            yield f"an item that nobody had pushed by then: {pop}"
        elif push.was_refused:
            yield f"an item that was told not to be pushed ({push}): {pop}"
        elif pop.value in popped and _was_acknowledged(view, popped[pop.value]):
            yield f"an item came twice ({popped[pop.value]}): {pop}"
        else:
            popped.setdefault(pop.value, pop)
    yield from _check_order(list(pushes.values()), popped, pops)
    yield from _check_lost(view, pushes, popped, pops)
    for pop in pops:
        if pop.timed_out:
            yield from _check_starved(view, pop, pushes, popped, pops)


def _was_acknowledged(view: View, pop: Use) -> bool:
    """Whether the store must have heard that the item came: else it is another one's when the session ends."""
    return view.surely_arrives(pop.seat.life, pop.ended)


# ---------------------------------------------------------------------------------------------------- order


def _check_order(pushes: list[Use], popped: dict[bytes, Use], pops: list[Use]) -> Iterator[str]:
    """What one user pushed comes in that order, but where something went back to its place."""
    for first in pushes:
        for second in pushes:
            if first.seat is not second.seat or first.begun >= second.begun:
                continue
            early, late = popped.get(second.given), popped.get(first.given)
            if early is None or late is None or early.over >= late.begun:
                continue
            if not any(_may_have_put_back(pop, early, late) for pop in pops):
                yield f"an item after one that was pushed later ({first}; {second}), {early}: {late}"


def _may_have_put_back(pop: Use, early: Use, late: Use) -> bool:
    """Whether this pop may have held the older item when the newer one came, and put it back for the later pop."""
    if not pop.is_open or pop.begun > late.over:
        return False
    # A user's own pop waits until those that it gave up before are settled, so that it sees its queue in order.
    return pop.seat is not early.seat or pop.over > early.begun


# ----------------------------------------------------------------------------------------------------- loss


def _check_lost(view: View, pushes: dict[bytes, Use], popped: dict[bytes, Use], pops: list[Use]) -> Iterator[str]:
    """At the end every item was popped by somebody: what came for a pop that was given up went back."""
    if not any(view.was_audited(push.space) for push in pushes.values()):
        return
    if view.history.lowered & {"group_bytes", "store_bytes"}:
        return  # what is to go back may find no room
    lost = [push for value, push in pushes.items() if push.was_applied and value not in popped]
    holding = sum(_may_have_gone_down(view, pop) for pop in pops)
    if len(lost) > holding:
        yield f"{len(lost)} items are lost, and {holding} can have gone with who had them: {lost[0]}"


def _may_have_gone_down(view: View, pop: Use) -> bool:
    """Whether an item may have come for a pop that was given up, and its process ended before it went back.

    It is acknowledged with going back, or later; but who comes again over a new connection says first what it has.
    """
    life = pop.seat.life
    if not pop.is_open or pop.outcome == "died" or view.surely_arrives(life, pop.ended):
        return False
    going = min(life.died, life.closed)
    moments = (pop.ended + SETTLE * step / 2 for step in range(LOOKS))
    return not any(moment + SETTLE < going and view.is_well(life, moment, moment + SETTLE) for moment in moments)


# --------------------------------------------------------------------------------------------------- waiting


def _check_starved(
    view: View, use: Use, pushes: dict[bytes, Use], popped: dict[bytes, Use], pops: list[Use]
) -> Iterator[str]:
    """It waited for long, and an item was there for it."""
    since = use.deadline - SETTLE
    if use.started > since or view.history.lowered or not view.is_well(use.seat.life, since, use.deadline):
        return
    others = [pop for pop in pops if pop is not use and pop.started <= use.deadline]
    if any(pop.is_open for pop in others):
        return
    there = [
        push
        for push in pushes.values()
        if push.was_applied
        and push.ended < since
        and (push.given not in popped or popped[push.given].started > use.deadline)
    ]
    waiting = sum(pop.ended > since for pop in others)
    if len(there) > waiting:
        yield f"an item was there, and yet it timed out ({there[0]}): {use}"
