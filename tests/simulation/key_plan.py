"""What one seed chooses about keys: how much is done with them, by whom, and under which limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tests.simulation.plan import Plan

__all__ = ["KEYED", "KeyPlan", "make_key_plan"]

KEYED = 3
"""In one seed of so many there are keys; the other seeds are what they were before there were any."""

LANES = ("counter", "register", "log", "board", "producer", "consumer", "holder", "meeter", "watcher")


@dataclass(slots=True)
class KeyPlan:
    """Of one run."""

    strangers: int
    """Processes that are in no group and use the store's own keys only."""
    lanes: tuple[str, ...]
    """What is done in this run; each user of a space does some of it."""
    share: int
    """As many calls a lane makes, or fewer."""
    ttl: float
    """Seconds for which some keys are kept."""
    pause: float
    """Largest pause between two calls."""


def make_key_plan(random: Random, plan: Plan) -> KeyPlan:
    """The plan of a seed; what of the other plan is to be different is changed there."""
    strangers = random.choice((0, 1, 1, 2))
    plan.graces += [random.choice((0.3, 1.0, 2.0, 5.0)) for _ in range(strangers)]
    if random.random() < 0.3:
        plan.limits = replace(plan.limits, kept_changes=random.randint(1, 6))
        plan.lowered |= {"kept_changes"}
    if random.random() < 0.15:
        plan.limits = replace(plan.limits, queue_items=random.randint(1, 3))
        plan.lowered |= {"queue_items"}
    chosen = random.sample(LANES, random.choice((2, 3, 3, 4)))
    if {"producer", "consumer"} & set(chosen):
        chosen = [lane for lane in LANES if lane in {*chosen, "producer", "consumer"}]
    return KeyPlan(
        strangers=strangers,
        lanes=tuple(chosen),
        share=random.choice((2, 3, 4, 5)),
        ttl=random.choice((0.1, 0.5, 2.0)),
        pause=random.choice((0.0, 0.1, 1.0)),
    )
