"""What to run: the full plan, the short one, and the command line that changes them."""

import argparse
from dataclasses import dataclass, replace

from benchmarks.contestants import ENTRIES
from benchmarks.figures import CONNECTIONS, GROUP, PAYLOAD
from benchmarks.operations import NAMES

QUESTIONS = (GROUP, PAYLOAD, CONNECTIONS)
FEWEST_ROUNDS = 7
"""Medians of fewer are for trying things out: the report says that the run was short."""


@dataclass(frozen=True)
class Plan:
    questions: tuple[str, ...] = QUESTIONS
    contestants: tuple[str, ...] = tuple(ENTRIES)
    operations: tuple[str, ...] = NAMES
    sizes: tuple[int, ...] = (2, 8, 32, 64)
    """Ranks in a group, for the first question."""
    payloads: tuple[int, ...] = tuple(2**power for power in range(10, 29, 2))
    """Bytes of a broadcast, for the second."""
    ranks: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    """Ranks that a few processes hold together, for the third."""
    rounds: int = 9
    sweep_rounds: int = 7
    """Rounds for the second and third question, whose largest figures take seconds each."""
    block_seconds: float = 0.3
    timeout: float = 60
    """Seconds for one block or one forming of a group; past it the contestant is reported and left out."""
    short: bool = False


QUICK = Plan(
    sizes=(2, 8),
    payloads=(2**10, 2**20, 2**24),
    ranks=(100, 1000),
    rounds=7,
    sweep_rounds=3,
    block_seconds=0.05,
    timeout=20,
    short=True,
)


def parse(arguments: list[str] | None = None) -> Plan:
    """Return the plan that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="small groups, short blocks: under three minutes")
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS)
    parser.add_argument("--contestants", nargs="+", choices=ENTRIES)
    parser.add_argument("--operations", "--ops", nargs="+", choices=NAMES)
    parser.add_argument("--sizes", nargs="+", type=int, help="ranks in a group")
    parser.add_argument("--payloads", nargs="+", type=int, help="bytes of a broadcast to 3 ranks")
    parser.add_argument("--ranks", nargs="+", type=int, help="ranks that a few processes hold together")
    parser.add_argument("--rounds", type=int, help="blocks for each figure of a group")
    parser.add_argument("--sweep-rounds", type=int, help="blocks for each figure of payloads and connections")
    parser.add_argument("--block", type=float, dest="block_seconds", help="seconds for one block")
    parser.add_argument("--timeout", type=float, help="seconds until a hung contestant is out")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    base = QUICK if given.pop("quick") else Plan()
    for name in ("sizes", "payloads", "ranks"):
        if name in given:
            given[name] = tuple(sorted(set(given[name])))
    for name in ("questions", "contestants", "operations"):
        if name in given:
            given[name] = tuple(dict.fromkeys(given[name]))
    plan = replace(base, **given)
    if min(plan.sizes) < 2 or min(plan.payloads) < 1 or min(plan.ranks) < 2:
        parser.error("a group has at least 2 ranks, a payload at least 1 byte")
    if min(plan.rounds, plan.sweep_rounds, plan.block_seconds, plan.timeout) <= 0:
        parser.error("rounds, block and timeout are above 0")
    return replace(plan, short=plan.short or min(plan.rounds, plan.sweep_rounds) < FEWEST_ROUNDS)
