"""Run the simulator:

    python -m tests.simulation.run --seeds A-B [--jobs 2]     seeds A to B
    python -m tests.simulation.run --seed S [--trace]         one seed; all that happens, line by line

For each seed in which anything was wrong it prints what, and the command that replays it. Over `ENOUGH` seeds or more
it is a failure as well if anything that must be reached (`reach`) never was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.play import Outcome, play, replay_command
from tests.simulation.reach import REQUIRED

__all__ = ["ENOUGH", "Summary", "describe", "play_range", "play_seeds"]

ENOUGH = 2000
CHUNK = 100
SHOWN = 20
"""As many wrong seeds are shown."""


@dataclass(slots=True)
class Summary:
    """What came of some seeds."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[Outcome] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        """These as well."""
        self.seeds += other.seeds
        self.counts.update(other.counts)
        self.wrong += other.wrong

    @property
    def unreached(self) -> list[str]:
        """What never happened and should have."""
        return [what for what in REQUIRED if not self.counts[what]]


def play_seeds(first: int, last: int) -> Summary:
    """Play the seeds from first to last."""
    summary = Summary()
    for seed in range(first, last + 1):
        try:
            outcome = play(seed)
        except BaseException:
            print(f"broken off: {replay_command(seed)}", file=sys.stderr)
            raise
        summary.seeds += 1
        summary.counts.update(outcome.counts)
        if outcome.wrong:
            summary.wrong.append(outcome)
    return summary


def play_range(first: int, last: int, jobs: int) -> Summary:
    """The same in so many processes."""
    if jobs == 1:
        return play_seeds(first, last)
    summary = Summary()
    starts = range(first, last + 1, CHUNK)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(play_seeds, starts, [min(start + CHUNK - 1, last) for start in starts]):
            summary.add(part)
    return summary


def describe(outcome: Outcome) -> str:
    """A wrong seed for people: what was wrong, and how to see it again."""
    lines = [f"seed {outcome.seed} (trace {outcome.trace}): {len(outcome.wrong)} wrong"]
    lines += [f"    {what:.600}" for what in outcome.wrong[:5]]
    return "\n".join([*lines, f"    replay: {replay_command(outcome.seed)}"])


def _one(seed: int, trace: bool) -> int:
    outcome = play(seed, trace=trace)
    print(*outcome.log, sep="\n")
    print(describe(outcome) if outcome.wrong else f"seed {seed} (trace {outcome.trace}): nothing wrong")
    return 1 if outcome.wrong else 0


def _many(seeds: str, jobs: int) -> int:
    first, _, last = seeds.partition("-")
    begun = time.perf_counter()
    summary = play_range(int(first), int(last or first), jobs)
    seconds = time.perf_counter() - begun
    for outcome in summary.wrong[:SHOWN]:
        print(describe(outcome))
    for what, number in sorted(summary.counts.items()):
        print(f"{number:>10}  {what}")
    print(f"{summary.seeds} seeds in {seconds:.1f} s ({1000 * seconds / summary.seeds:.1f} ms each); "
          f"{len(summary.wrong)} wrong")  # fmt: skip
    unreached = summary.unreached if summary.seeds >= ENOUGH else []
    if unreached:
        print(f"never reached: {'; '.join(unreached)}")
    return 1 if summary.wrong or unreached else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="run the simulator")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seeds", metavar="A-B", help="first and last seed")
    which.add_argument("--seed", type=int, metavar="S", help="one seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell all that happens")
    options = parser.parse_args()
    return _one(options.seed, options.trace) if options.seeds is None else _many(options.seeds, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
