"""`python -m benchmarks.nursery MODULE NAME SIZE`: import a contestant once, then fork its ranks.

Each rank is a process of its own. What they have in common, torch above all, was imported once and lies in the memory
once, so that hundreds of ranks start in seconds and fit in. Nothing runs in this process before the forks: it has one
thread, no event loop and no connection.
"""

import gc
import importlib
import os
import sys
from typing import Protocol, cast


class Workplace(Protocol):
    """`benchmarks.worker` or `benchmarks.crowd_worker`."""

    def work(self, name: str, rank: int) -> None: ...
    def prepare(self, name: str) -> None: ...


def main() -> None:
    module, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    workplace = cast(Workplace, importlib.import_module(module))
    workplace.prepare(name)
    gc.freeze()  # the collector would write to, and so copy, what the ranks share
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            workplace.work(name, rank)
            return
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
