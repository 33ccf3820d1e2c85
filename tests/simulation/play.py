"""One seed, played from beginning to end and judged."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.simulation.chance import seeded
from tests.simulation.checker import check
from tests.simulation.loop import Stuck
from tests.simulation.probes import probed
from tests.simulation.reach import count
from tests.simulation.view import View
from tests.simulation.world import World

__all__ = ["Outcome", "play", "replay_command"]


SEEDS_COLLECTED = 25
"""Worlds that are over are in the oldest generation of garbage, which nothing else has collected in time."""


@dataclass(slots=True)
class Outcome:
    """What came of a seed."""

    seed: int
    trace: str
    """Hash of all that happened; the same in every process."""
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    """All that happened, if asked for."""


def replay_command(seed: int) -> str:
    """Plays this seed again and tells all that happens."""
    return f"python -m tests.simulation.run --seed {seed} --trace"


def play(seed: int, *, trace: bool = False, debug: bool = False) -> Outcome:
    """Play one seed. Raises nothing that the product or its programs did: that is in `wrong`.

    `debug`: in asyncio's debug mode, which keeps a stack for each handle and so takes four times as long.
    """
    world = World(seed, debug=debug)
    if trace:
        world.network.log = []
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    loop = world.loop
    if not seed % SEEDS_COLLECTED:
        gc.collect()
    with probed(counts), seeded(Random(seed), loop.time, world.plan):
        try:
            loop.run(world.run())
        except Stuck as error:
            wrong.append(f"stuck: {error}")
        else:
            wrong += [f"left: {what}" for what in loop.leftovers()]
        loop.close()
    wrong += [f"failure at {failure.at:.4f}: {failure.message}: {failure.exception!r}" for failure in loop.failures]
    if not wrong:
        wrong += check(View(world.history, world.network.spans))
    wrong += [f"remains: {what}" for what in world.remains]
    counts.update(world.counts)
    count(world.history, counts)
    log = world.network.log or []
    if trace:
        attempts = sorted((a for call in world.history.calls for a in call.attempts), key=lambda a: a.started)
        log = [*log, str(world.plan), *map(str, attempts)]
    return Outcome(seed, world.network.trace, wrong, counts, log)
