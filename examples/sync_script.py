"""A plain script without asyncio: rank 0 hands out work, everyone does a part, and all learn the sum.

::

    aiopg run -n 3 -- python examples/sync_script.py
"""

from __future__ import annotations

import os

from aiopg import StatelessGroup


def main() -> None:
    """What each rank does."""
    with StatelessGroup.from_env() as group:
        pids = group.all_gather(os.getpid())
        assert pids[group.rank] == os.getpid()

        work = [list(range(rank, 30, group.world_size)) for rank in range(group.world_size)]
        part = group.scatter(work if group.rank == 0 else None, src=0)
        total = group.all_reduce(sum(part), "sum")
        print(f"my {len(part)} numbers make {sum(part)}, those of all {len(pids)} processes {total}")

        group.barrier(timeout=10)


if __name__ == "__main__":
    main()
