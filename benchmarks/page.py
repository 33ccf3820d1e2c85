"""`python -m benchmarks.page FILE`: docs/benchmarks.md and its plots, from a results file."""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import peers, tables
from benchmarks.figures import CONNECTIONS, GROUP, PAYLOAD, Results, read
from benchmarks.names import plot_name

DOCS = Path(__file__).resolve().parent.parent / "docs"

INTRODUCTION = """\
# Benchmarks

aiopg beside what else one would use: real processes, all on one host, over loopback TCP, interleaved block by block.
The figures of one round are neighbours in time, and every ratio is the median over the rounds of ratios within one
round. Read the ratios: microseconds move with the machine and its load. Ratios to TCPStore and to the floor are below
1 where a contestant is faster.

What each contestant does inside its figures, and what one figure is, is told in
[benchmarks/README.md](../benchmarks/README.md). The floor is a star of processes in C, without encoding, deadlines or
sessions. It waits as the others do, so what spins instead (MPI) can be below it where processors are free. Its other
line, with the same server and members on uvloop that do nothing else, is what no library on an event loop can be below.

`make bench` measures, and `python -m benchmarks.page FILE` makes this page of what it wrote.
"""
SHORT = """\
**This is a short run**, made to see that everything works, on a machine that did other work at the same time. Its
figures are not to be quoted.
"""
HEADINGS = {
    GROUP: "## Operations, by ranks in the group",
    PAYLOAD: "## Payloads, by length",
    CONNECTIONS: "## Connections, by ranks of one group",
}
EXPLAINED = {
    GROUP: "Every rank is a process. With more ranks than processors, all figures include the time that ranks wait for "
    "a processor.",
    PAYLOAD: "A broadcast of bytes from rank 0 to three others, many in a row; a group of its own for each length.",
    CONNECTIONS: "All ranks belong to one group and are held by two processes: tasks in aiopg, threads in TCPStore, "
    "whose calls block. `join` includes making the connections.",
}


def page(results: Results) -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION.strip(), f"Measured on {results.started[:10]}."]
    if results.short:
        parts.append(SHORT.strip())
    parts.append(tables.conditions(results))
    for question, heading in HEADINGS.items():
        sections = tables.sections(results, question)
        if sections:
            parts += [heading, EXPLAINED[question]]
        for section in sections:
            image = f"![{section.title}](benchmarks/{plot_name(question, section.operation)})"
            parts += [f"### {section.title}", image, section.table]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("file", type=Path, help="what `make bench` wrote to benchmarks/results/")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder for benchmarks.md and benchmarks/")
    given = parser.parse_args()
    try:
        results = read(given.file)
        peers.fetch({"plots"})
    except (OSError, ValueError, peers.FetchError) as error:
        print(error, file=sys.stderr)
        return 1
    plots = given.docs / "benchmarks"
    for old in plots.glob("*.svg"):
        old.unlink()
    drawn = subprocess.run(
        [str(peers.PYTHON), "-m", "benchmarks.plots", str(given.file.resolve()), str(plots.resolve())],
        cwd=Path(__file__).resolve().parent.parent,
        check=False,
    )
    (given.docs / "benchmarks.md").write_text(page(results))
    return drawn.returncode


if __name__ == "__main__":
    sys.exit(main())
