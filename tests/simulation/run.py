"""Run the simulator over a range of seeds:

    python -m tests.simulation.run --seeds 0-1999 [--jobs 2] [--log]

Tells what was wrong, with the command that replays it; then what was reached. Over `ENOUGH` seeds or more it is a
failure, too, if anything of `REQUIRED` was never reached: then the simulator does not look where it should.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from aiopg.errors import GroupTimeoutError
from tests.simulation.checker import check
from tests.simulation.loop import Stuck
from tests.simulation.records import AGAIN, FINISHED, History
from tests.simulation.world import World, play

__all__ = ["ENOUGH", "REQUIRED", "Summary", "replay_command", "run", "run_seeds"]

ENOUGH = 2000
CHUNK = 100
SHOWN = 20
"""As many wrong seeds are shown."""

FAULTS = ("cut", "burst", "half_open", "stall", "freeze", "refuse", "crash", "hang", "ambush", "restart")

ERRORS = (
    "DataExpiredError",
    "FencedError",
    "GroupAbortedError",
    "GroupTimeoutError",
    "PeerLostError",
    "RankConflictError",
    "StoreLostError",
    "cancelled",
    "killed",
)

TRANSITIONS = (
    "came back",
    "came back with calls under way",
    "a rank came again after a crash",
    "a rank was taken over",
    "a group lived again",
    "a message of a dead sender was received",
    "a timeout named who is missing",
    "a timeout could not name who is missing",
    *(f"the same {op} again ended well" for op in ("join", "send", "recv", "barrier", "all_gather", "all_reduce")),
    "the same broadcast again ended well",
    "a store was lost with no restart",
)

REQUIRED = (*FAULTS, *ERRORS, *TRANSITIONS)


@dataclass(slots=True)
class Summary:
    """What came of some seeds."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[int, list[str]]] = field(default_factory=list)
    """Seeds with what was wrong."""

    def add(self, other: Summary) -> None:
        """These as well."""
        self.seeds += other.seeds
        self.counts.update(other.counts)
        self.wrong += other.wrong

    @property
    def unreached(self) -> list[str]:
        """What of `REQUIRED` never happened."""
        return [what for what in REQUIRED if not self.counts[what]]


def replay_command(seed: int) -> str:
    """Runs this seed again, with all that happens on the network."""
    return f"python -m tests.simulation.run --seeds {seed}-{seed} --log"


def run_seeds(first: int, last: int) -> Summary:
    """Run the seeds from first to last."""
    summary = Summary()
    for seed in range(first, last + 1):
        summary.seeds += 1
        try:
            world, _ = play(seed)
        except Stuck as error:
            summary.wrong.append((seed, [str(error)]))
            continue
        except BaseException:
            print(f"broken off: {replay_command(seed)}", file=sys.stderr)
            raise
        if wrong := check(world.history):
            summary.wrong.append((seed, wrong))
        summary.counts.update(_reached(world))
    return summary


def run(first: int, last: int, jobs: int) -> Summary:
    """The same in so many processes."""
    if jobs == 1:
        return run_seeds(first, last)
    summary = Summary()
    starts = range(first, last + 1, CHUNK)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(run_seeds, starts, [min(start + CHUNK - 1, last) for start in starts]):
            summary.add(part)
    return summary


def _reached(world: World) -> Counter[str]:
    counts, history = Counter(world.counts), world.history
    counts.update(record.outcome for record in history.records)
    counts.update(_membership(history))
    counts.update(_retries(history))
    return counts


def _membership(history: History) -> Counter[str]:
    counts: Counter[str] = Counter()
    lives: dict[str, set[int]] = {}
    joined = {seat.process for seat in history.seats if seat.incarnation}
    for seat in history.seats:
        if seat.incarnation:
            lives.setdefault(seat.group, set()).add(seat.incarnation)
    counts["a group lived again"] = sum(len(numbers) > 1 for numbers in lives.values())
    for process in history.processes:
        before = [p for p in history.processes if p.rank == process.rank and p.number < process.number]
        if process in joined and before:
            counts["a rank came again after a crash"] += before[-1].killed_at < math.inf
            counts["a rank was taken over"] += before[-1].replaced_at < math.inf
    return counts


def _retries(history: History) -> Counter[str]:
    counts: Counter[str] = Counter()
    killed = {(seat.rank, seat.group, seat.incarnation): seat.process.killed_at for seat in history.seats}
    given_up = set()
    for record in history.records:
        key = (record.seat, record.op, record.tag, record.index, record.peer)
        if record.outcome in AGAIN:
            given_up.add(key)
        elif record.outcome == FINISHED and key in given_up:
            counts[f"the same {record.op} again ended well"] += 1
        if isinstance(record.error, GroupTimeoutError):
            named = record.error.missing is not None
            counts["a timeout named who is missing" if named else "a timeout could not name who is missing"] += 1
        if record.op == "recv" and record.outcome == FINISHED:
            died = killed.get((record.peer, record.seat.group, record.seat.incarnation), math.inf)
            counts["a message of a dead sender was received"] += record.started > died
        if record.outcome == "StoreLostError" and not record.seat.process.restarts:
            counts["a store was lost with no restart"] += 1
    return counts


def _show(summary: Summary, seconds: float) -> None:
    for seed, wrong in summary.wrong[:SHOWN]:
        print(f"seed {seed}: {len(wrong)} wrong; replay: {replay_command(seed)}")
        for line in wrong[:5]:
            print(f"    {line}")
    print(", ".join(f"{what}: {summary.counts[what]}" for what in sorted(summary.counts)))
    print(f"{summary.seeds} seeds in {seconds:.1f} s, {1000 * seconds / summary.seeds:.1f} ms a seed")
    print(f"{len(summary.wrong)} wrong")


def _log(first: int, last: int) -> None:
    """Tell all that happens."""
    for seed in range(first, last + 1):
        log: list[str] = []
        try:
            world, trace = play(seed, log)
        except Stuck as error:
            print(*log, error, sep="\n")
            continue
        print(*log, *world.history.processes, *world.history.records, sep="\n")
        print(f"seed {seed}: trace {trace}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="run the simulator")
    parser.add_argument("--seeds", required=True, metavar="A-B", help="first and last seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--log", action="store_true", help="tell all that happens")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    if options.log:
        _log(int(first), int(last or first))
    started = time.perf_counter()
    summary = run(int(first), int(last or first), options.jobs)
    _show(summary, time.perf_counter() - started)
    unreached = summary.unreached if summary.seeds >= ENOUGH else []
    if unreached:
        print(f"never reached: {', '.join(unreached)}")
    return 1 if summary.wrong or unreached else 0


if __name__ == "__main__":
    sys.exit(main())
