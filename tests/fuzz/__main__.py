"""Fuzz the parts of the product that read what strangers wrote:

    python -m tests.fuzz --target NAME|all --inputs N | --seconds S [--seed N] [--jobs N]

`--inputs` is for all targets together, `--seconds` for each of them. Every input at which something is wrong is made
small, kept in a file that is named by its hash, and told with the command that replays it. A target's inputs follow
from the seed alone, whatever else is run. What was fixed belongs into `corpus`, which every run begins with.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path

from tests.fuzz.fuzzer import Finding, Report, check, one_at_a_time
from tests.fuzz.targets import TARGETS
from tests.fuzz.workers import FOREVER, fuzz, keep

FINDINGS = Path(".fuzz")
"""Where failing inputs are kept, below the working directory."""

_ENDLESS = 10**12
LINES = 12


def replay(name: str, path: Path) -> int:
    """Run one input again."""
    with one_at_a_time():
        finding, outcome = check(TARGETS[name](), path.read_bytes())
    print(finding.what if finding is not None else f"nothing is wrong; it came to {outcome}")
    return 1 if finding is not None else 0


def show(name: str, report: Report) -> None:
    """What came of one target."""
    print(f"{name}: {report}", flush=True)
    for finding in report.findings:
        path = keep(FINDINGS / name, finding.data)
        print("\n".join(f"    {line:.300}" for line in finding.what.splitlines()[-LINES:]))
        print(f"    {len(finding.data)} bytes; replay: {replay_command(finding, path)}", flush=True)


def replay_command(finding: Finding, path: Path) -> str:
    """Runs this input again."""
    return f"python -m tests.fuzz --target {finding.target} --replay {path}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="fuzz what reads what strangers wrote")
    parser.add_argument("--target", default="all", choices=[*TARGETS, "all"])
    parser.add_argument("--inputs", type=int, help="inputs for all targets together")
    parser.add_argument("--seconds", type=float, default=FOREVER, help="seconds for each target")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="by default another one each time")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this input and nothing else")
    options = parser.parse_args()
    names = list(TARGETS) if options.target == "all" else [options.target]
    if options.replay is not None:
        return replay(options.target, options.replay)
    if options.inputs is None and options.seconds == FOREVER:
        parser.error("say how much: --inputs or --seconds")
    print(f"seed {options.seed}", flush=True)
    started = time.monotonic()
    inputs = _ENDLESS if options.inputs is None else -(-options.inputs // len(names))
    reports = fuzz(names, options.seed, inputs, options.seconds, options.jobs)
    for name, report in reports.items():
        show(name, report)
    total = sum(report.inputs for report in reports.values())
    print(f"{total} inputs in {time.monotonic() - started:.0f} s")
    return 1 if any(report.findings for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
