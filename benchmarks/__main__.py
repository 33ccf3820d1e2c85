"""`python -m benchmarks`: fetch the peers, run the plan, print Markdown, write a JSON file and docs/benchmarks.md."""

import asyncio
import dataclasses
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import coordinator, figures, machine, payload, peers, tables
from benchmarks.contestants import ENTRIES
from benchmarks.plan import Plan, parse

RESULTS = Path(__file__).resolve().parent / "results"


def left_out(plan: Plan) -> dict[str, str]:
    """Return why contestants cannot run on this machine at all, by name."""
    needed = {name: ENTRIES[name].needs for name in plan.contestants}
    found = {name: peers.missing(program) for name, program in needed.items() if program is not None}
    return {name: why for name, why in found.items() if why is not None}


async def run_until_told(plan: Plan, results: figures.Results) -> None:
    """Run the plan; SIGTERM ends it as Ctrl-C does, so that no process is left behind."""
    task = asyncio.create_task(coordinator.run(plan, results))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


def main() -> int:
    plan = parse()
    without = left_out(plan)
    for name, why in without.items():
        print(f"{ENTRIES[name].label} is left out: {why}", file=sys.stderr)
    try:
        peers.fetch({name for each in plan.contestants if each not in without for name in ENTRIES[each].peers})
    except peers.FetchError as error:
        print(f"{error}\n(--contestants runs without the peer)", file=sys.stderr)
        return 1
    results = figures.Results(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        short=plan.short,
        machine=machine.describe(),
        plan=dataclasses.asdict(plan) | {"object_bytes": payload.PICKLED_BYTES},
        left_out=without,
    )
    try:
        asyncio.run(run_until_told(plan, results))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(tables.markdown(results))
    path = figures.write(results, RESULTS)
    print(f"\nwritten to {path}\npython -m benchmarks.page {path} makes docs/benchmarks.md of it", file=sys.stderr)
    # A payload or a number of connections that is too much for a contestant is a result, and no failure of the run.
    return 1 if any(figure.error for figure in results.about(figures.GROUP)) else 0


if __name__ == "__main__":
    sys.exit(main())
