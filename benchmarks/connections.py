"""The sweep over connections: up to thousands of ranks of one group, held by a few processes.

Contestants take turns, round by round. In each round every contestant forms a group of all ranks over new connections
(`join`), passes its first barrier (`first barrier`), passes more of them (`barrier`) and leaves.
"""

import itertools
import resource
from dataclasses import replace

from benchmarks.contestants.crowds import CROWDS
from benchmarks.figures import CONNECTIONS, Figure, Results
from benchmarks.plan import Plan
from benchmarks.team import LeftOut, Team, TeamError, between
from benchmarks.turns import take_turns

PROCESSES = 2
OPERATIONS = ("join", "first barrier", "barrier")
FEWEST, MOST = 3, 200
"""Barriers in a block."""
SPARE_DESCRIPTORS = 500


async def run(plan: Plan, results: Results) -> None:
    """Run the sweep into `results`."""
    teams = [Team(name, "benchmarks.crowd_worker") for name in CROWDS if name in plan.contestants]
    try:
        await _race(teams, min(plan.ranks), replace(plan, sweep_rounds=1))  # to warm everything up: not counted
        for size in plan.ranks:
            results.figures += await _race(teams, size, plan)
        for team in teams:
            results.versions |= team.versions
    finally:
        for team in teams:
            await team.end()


async def _race(teams: list[Team], size: int, plan: Plan) -> list[Figure]:
    figures = {team.name: [Figure(CONNECTIONS, each, size, team.name) for each in OPERATIONS] for team in teams}
    out: dict[str, Exception] = {}
    for team in take_turns(teams, plan.sweep_rounds):
        if team.name not in out:
            try:
                await _round(team, size, figures[team.name], plan)
            except (TeamError, LeftOut) as error:
                out[team.name] = error
                await team.kill()
    for name, error in out.items():
        for figure in figures[name]:
            figure.left_out = str(error) if isinstance(error, LeftOut) else None
            figure.error = None if isinstance(error, LeftOut) else str(error)
    return [figure for each in figures.values() for figure in each]


async def _round(team: Team, size: int, figures: list[Figure], plan: Plan) -> None:
    """One group of `size` ranks, from its first connection to its last."""
    _check_descriptors(size)
    if not team.running:
        await team.start(PROCESSES)
    ports = await team.bind(1, plan.timeout)
    bounds = [size * number // PROCESSES for number in range(PROCESSES + 1)]
    join = {"do": "join", "port": ports[0], "world_size": size}
    shares = [join | {"first": first, "last": last} for first, last in itertools.pairwise(bounds)]
    await team.order([{"do": "host", "world_size": size}], plan.timeout)
    took = [between(await team.order(shares, plan.timeout))]
    took.append(between(await team.order([{"do": "barrier", "count": 1}] * PROCESSES, plan.timeout)))
    count = max(FEWEST, min(MOST, round(plan.block_seconds / took[-1])))
    took.append(between(await team.order([{"do": "barrier", "count": count}] * PROCESSES, plan.timeout)) / count)
    await team.order([{"do": "leave"}] * PROCESSES, plan.timeout)
    for figure, seconds, repetitions in zip(figures, took, (1, 1, count), strict=True):
        figure.microseconds.append(seconds * 1e6)
        figure.repetitions = repetitions


def _check_descriptors(size: int) -> None:
    """The process with `TCPStore`'s server has an end of every connection, and the other end of its own ranks'."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = size + size // PROCESSES + SPARE_DESCRIPTORS
    if most != resource.RLIM_INFINITY and most < needed:
        raise LeftOut(f"a process may open {most:,} files here, and {needed:,} are needed")
