"""The run: contestants take turns, block by block, so that a slow minute of the machine is slow for all.

For each N every contestant forms its group; for each operation a first few blocks find how many repetitions
fill the block time (and warm everything up); then come the rounds. In each round every contestant runs one
block, in an order that turns by one each round. Figures of the same round are neighbours in time, and
ratios are taken between them only.
"""

import sys
from dataclasses import dataclass, field

from benchmarks.operations import OPERATIONS
from benchmarks.team import Team, TeamError

FEWEST = 3
"""Repetitions in a block, however slow the contestant."""
MOST = 20_000
"""Repetitions in a block, however fast: keeps what a store holds until the next block small."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    contestants: tuple[str, ...]
    operations: tuple[str, ...]
    sizes: tuple[int, ...]
    rounds: int
    block_seconds: float
    timeout: float
    """Seconds for one block or one forming of a group; past it the contestant is reported and left out."""


@dataclass
class Figure:
    """One contestant's result for one operation at one N."""

    operation: str
    size: int
    contestant: str
    repetitions: int = 0
    microseconds: list[float] = field(default_factory=list)
    """Per operation, one entry for each round."""
    error: str | None = None


@dataclass
class Results:
    figures: list[Figure] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


async def run(plan: Plan) -> Results:
    """Run the plan. A contestant that fails gets figures with an error; the others go on."""
    results = Results()
    teams = [Team(name) for name in plan.contestants]
    try:
        for size in plan.sizes:
            out = {team.name: await _form(team, size, plan, results) for team in teams}
            for operation in plan.operations:
                _say(f"N = {size}: {operation}")
                results.figures += await _race(teams, operation, size, plan, out)
            for team in teams:
                if team.running:
                    await _leave(team, size, plan)
    finally:
        for team in teams:
            await team.end()
    return results


async def _form(team: Team, size: int, plan: Plan, results: Results) -> str | None:
    """Form the team's group; return why that failed, or None."""
    try:
        if not team.running:
            _say(f"starting {max(plan.sizes)} processes: {team.label}")
            await team.start(max(plan.sizes))
            results.versions |= team.versions
        await team.form(size, plan.timeout)
    except TeamError as error:
        return await _drop(team, str(error))
    return None


async def _leave(team: Team, size: int, plan: Plan) -> None:
    try:
        await team.leave(size, plan.timeout)
    except TeamError as error:
        await _drop(team, str(error))  # its figures stand; the next N starts it anew


async def _drop(team: Team, why: str) -> str:
    """Kill a team that failed: its ranks may wait for each other forever."""
    _say(f"{team.label} is out until the next N: {why}")
    await team.kill()
    return why


async def _race(teams: list[Team], operation: str, size: int, plan: Plan, out: dict[str, str | None]) -> list[Figure]:
    """Run all rounds of one operation at one N; `out` holds why a contestant is out, by name."""
    figures = {team.name: Figure(operation, size, team.name) for team in teams}
    for team in teams:
        if out[team.name] is None:
            try:
                figures[team.name].repetitions = await _calibrate(team, operation, size, plan)
            except TeamError as error:
                out[team.name] = await _drop(team, str(error))
    for turn in range(plan.rounds):
        first = turn % len(teams)
        for team in teams[first:] + teams[:first]:
            if out[team.name] is None:
                figure = figures[team.name]
                try:
                    took = await team.run(operation, figure.repetitions, size, plan.timeout)
                except TeamError as error:
                    out[team.name] = await _drop(team, str(error))
                    continue
                done = figure.repetitions * OPERATIONS[operation].per_repetition
                figure.microseconds.append(took / done * 1e6)
    for name, figure in figures.items():
        figure.error = out[name]
    return list(figures.values())


async def _calibrate(team: Team, operation: str, size: int, plan: Plan) -> int:
    """Return how many repetitions fill the block time, from blocks of growing length."""
    count = FEWEST
    while True:
        took = await team.run(operation, count, size, plan.timeout)
        if took >= plan.block_seconds / 4 or count == MOST:
            return max(FEWEST, min(MOST, round(count * plan.block_seconds / took)))
        count = min(MOST, count * 4)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
