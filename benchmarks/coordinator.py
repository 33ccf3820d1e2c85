"""The run: contestants take turns, block by block, so that a slow minute of the machine is slow for all.

For each N every contestant forms its group; for each operation a first few blocks find how many repetitions
fill the block time (and warm everything up); then come the rounds. In each round every contestant runs one
block, in an order that turns by one each round. Figures of the same round are neighbours in time, and
ratios are taken between them only. The sweep over payloads is the same, with a new group for each length, so that
what a store keeps of one length is gone before the next.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import connections
from benchmarks.contestants import ENTRIES
from benchmarks.figures import CONNECTIONS, GROUP, PAYLOAD, Figure, Results
from benchmarks.operations import JOIN, OPERATIONS
from benchmarks.plan import Plan
from benchmarks.team import LeftOut, Team, TeamError
from benchmarks.turns import take_turns

FEWEST = 3
"""Repetitions in a block, however slow the contestant."""
MOST = 20_000
"""Repetitions in a block, however fast: keeps what a store holds until the next block small."""
MOST_JOINS = 200
"""For each of them rank 0 holds a listening socket."""
LARGE_BYTES = 2**24
"""From here on one repetition may fill a block: what a store keeps of a few would not fit into the memory."""
TWICE_AS_PATIENT_BYTES = 2**27
"""A payload for which a contestant gets twice the time until it counts as hung; and so on, in proportion."""
BROADCAST_RANKS = 4
"""In the sweep over payloads: the root and three that receive."""


@dataclass(frozen=True)
class Heat:
    """One race: an operation of groups of one size, with payloads of one length or with the object."""

    question: str
    operation: str
    size: int
    rounds: int
    bytes: int | None = None

    @property
    def fewest(self) -> int:
        return 1 if self.bytes is not None and self.bytes >= LARGE_BYTES else FEWEST

    @property
    def most(self) -> int:
        if self.operation == JOIN:
            return MOST_JOINS
        return MOST if self.bytes is None else max(self.fewest, min(MOST, LARGE_BYTES * 8 // self.bytes))

    def patience(self, timeout: float) -> float:
        """Return for how many seconds one block may go on: longer, where one repetition may take most of a minute."""
        return timeout * (1 + (self.bytes or 0) / TWICE_AS_PATIENT_BYTES)

    @property
    def per_repetition(self) -> int:
        return 1 if self.operation == JOIN else OPERATIONS[self.operation].per_repetition

    def figure(self, contestant: str) -> Figure:
        return Figure(self.question, self.operation, self.size, contestant, self.bytes)

    def __str__(self) -> str:
        of = "" if self.bytes is None else f" of {self.bytes:,} bytes"
        return f"N = {self.size}: {self.operation}{of}"


async def run(plan: Plan, results: Results) -> None:
    """Run the plan into `results`. A contestant that fails gets figures with an error; the others go on."""
    teams = [Team(name) for name in plan.contestants if name not in results.left_out]
    try:
        for heats in _groups(plan):
            if heats[0].bytes is not None and any(team.size > BROADCAST_RANKS for team in teams):
                # Hundreds of processes that have nothing to do any more take the memory that large payloads need.
                for team in teams:
                    await team.kill()
            await _run_group(teams, heats, plan, results)
    finally:
        for team in teams:
            await team.end()
    if CONNECTIONS in plan.questions:
        await connections.run(plan, results)


def _groups(plan: Plan) -> Iterator[list[Heat]]:
    """The races, those together that one group of each contestant runs."""
    if GROUP in plan.questions:
        for size in plan.sizes:
            yield [Heat(GROUP, operation, size, plan.rounds) for operation in plan.operations]
    if PAYLOAD in plan.questions:
        for length in plan.payloads:
            yield [Heat(PAYLOAD, "broadcast", BROADCAST_RANKS, plan.sweep_rounds, length)]


def _processes(heat: Heat, plan: Plan) -> list[int]:
    """How many processes a contestant may have to have for a question, the most first."""
    return sorted(plan.sizes, reverse=True) if heat.question == GROUP else [heat.size]


async def _run_group(teams: list[Team], heats: Sequence[Heat], plan: Plan, results: Results) -> None:
    """Form a group of each contestant, run the races, and leave the groups."""
    size, length = heats[0].size, heats[0].bytes
    patience = heats[0].patience(plan.timeout)
    out: dict[str, Exception] = {}
    for team in teams:
        try:
            await _form(team, heats[0], plan, results)
            if length is not None:
                await team.check(size, length, patience)
        except (TeamError, LeftOut) as error:
            out[team.name] = await _drop(team, error)
    for heat in heats:
        say(str(heat))
        able = [team for team in teams if heat.operation in ENTRIES[team.name].operations]
        results.figures += await _race(able, heat, plan, out)
    for team in teams:
        if team.name not in out:
            try:
                await team.leave(size, plan.timeout)
            except TeamError as error:
                await _drop(team, error)  # its figures stand; the next group starts it anew


async def _form(team: Team, heat: Heat, plan: Plan, results: Results) -> None:
    if not team.running:
        await _start(team, heat, plan)
        results.versions |= team.versions
    if team.size < heat.size:
        raise LeftOut(f"{heat.size} of its processes do not fit into the memory")
    await team.form(heat.size, plan.timeout)


async def _start(team: Team, heat: Heat, plan: Plan) -> None:
    """Start as many processes as the largest group has for which the memory suffices."""
    for processes in _processes(heat, plan):
        say(f"starting {processes} processes: {team.label}")
        try:
            return await team.start(processes)
        except LeftOut as error:
            if processes == heat.size:
                raise
            say(f"{team.label}: {error}")
    raise ValueError(f"the plan has no group of {heat.size}")


async def _drop(team: Team, why: Exception) -> Exception:
    """Kill a team that failed: its ranks may wait for each other forever."""
    say(f"{team.label} is out until the next group: {why}")
    if isinstance(why, TeamError):
        await team.kill()
    return why


async def _race(teams: list[Team], heat: Heat, plan: Plan, out: dict[str, Exception]) -> list[Figure]:
    """Run all rounds of one race; `out` holds why a contestant is out, by name."""
    figures = {team.name: heat.figure(team.name) for team in teams}
    for team in teams:
        if team.name not in out:
            try:
                figures[team.name].repetitions = await _calibrate(team, heat, plan)
            except TeamError as error:
                out[team.name] = await _drop(team, error)
    for team in take_turns(teams, heat.rounds):
        if team.name not in out:
            figure = figures[team.name]
            try:
                took = await team.run(
                    heat.operation, figure.repetitions, heat.size, heat.bytes, heat.patience(plan.timeout)
                )
            except TeamError as error:
                out[team.name] = await _drop(team, error)
                continue
            figure.microseconds.append(took / (figure.repetitions * heat.per_repetition) * 1e6)
    for name, figure in figures.items():
        if isinstance(why := out.get(name), LeftOut):
            figure.left_out = str(why)
        elif why is not None:
            figure.error = str(why)
    return list(figures.values())


async def _calibrate(team: Team, heat: Heat, plan: Plan) -> int:
    """Return how many repetitions fill the block time, from blocks of growing length."""
    count = heat.fewest
    while True:
        took = await team.run(heat.operation, count, heat.size, heat.bytes, heat.patience(plan.timeout))
        if took >= plan.block_seconds / 4 or count == heat.most:
            return max(heat.fewest, min(heat.most, round(count * plan.block_seconds / took)))
        count = min(heat.most, count * 4)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
