"""`python -m benchmarks`: fetch the peers, run the plan, print a Markdown table, write a JSON file."""

import argparse
import asyncio
import signal
import sys
from datetime import UTC, datetime

from benchmarks import machine, peers, report
from benchmarks.contestants import ENTRIES
from benchmarks.coordinator import Plan, Results, run
from benchmarks.operations import OPERATIONS

SIZES = (2, 8, 32)
ROUNDS = 9
BLOCK_SECONDS = 0.3
QUICK_SIZES = (2, 8)
QUICK_ROUNDS = 7
QUICK_BLOCK_SECONDS = 0.1


def parse(arguments: list[str]) -> Plan:
    """Return the plan that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--contestants", nargs="+", choices=ENTRIES, default=list(ENTRIES))
    parser.add_argument("--ops", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument("--sizes", nargs="+", type=int, help=f"ranks in a group (default: {SIZES})")
    parser.add_argument("--rounds", type=int, help=f"blocks for each figure (default: {ROUNDS})")
    parser.add_argument("--block", type=float, help=f"seconds for one block (default: {BLOCK_SECONDS})")
    parser.add_argument("--timeout", type=float, default=60, help="seconds until a hung contestant is out")
    parser.add_argument("--quick", action="store_true", help=f"N = {QUICK_SIZES}, {QUICK_ROUNDS} rounds, short blocks")
    given = parser.parse_args(arguments)
    plan = Plan(
        contestants=tuple(dict.fromkeys(given.contestants)),
        operations=tuple(dict.fromkeys(given.ops)),
        sizes=tuple(sorted(set(given.sizes or (QUICK_SIZES if given.quick else SIZES)))),
        rounds=given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS),
        block_seconds=given.block or (QUICK_BLOCK_SECONDS if given.quick else BLOCK_SECONDS),
        timeout=given.timeout,
    )
    if min(plan.sizes) < 2 or plan.rounds < 1 or plan.block_seconds <= 0 or plan.timeout <= 0:
        parser.error("a group has at least 2 ranks; rounds, block and timeout are above 0")
    return plan


async def run_until_told(plan: Plan) -> Results:
    """Run the plan; SIGTERM ends it as Ctrl-C does, so that no process is left behind."""
    task = asyncio.create_task(run(plan))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def main() -> int:
    plan = parse(sys.argv[1:])
    try:
        peers.fetch({name for contestant in plan.contestants for name in ENTRIES[contestant].peers})
    except peers.FetchError as error:
        print(f"{error}\n(--contestants runs without the peer)", file=sys.stderr)
        return 1
    described = machine.describe()
    started = datetime.now(UTC)
    try:
        results = asyncio.run(run_until_told(plan))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(report.markdown(plan, results, described))
    print(f"\nwritten to {report.write_json(plan, results, described, started)}", file=sys.stderr)
    return 1 if any(figure.error for figure in results.figures) else 0


if __name__ == "__main__":
    sys.exit(main())
