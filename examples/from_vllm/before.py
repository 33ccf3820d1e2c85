"""The same program twice: before.py with the group of vLLM, after.py with that of aiopg.

``diff examples/from_vllm/before.py examples/from_vllm/after.py`` shows the four lines that moving takes. Each rank in a
terminal, in any order, with its rank, the number of ranks and a port::

    python examples/from_vllm/after.py 0 2 29400
    python examples/from_vllm/after.py 1 2 29400

The ranks do what engines do that hand prompts over to each other, before any tensor moves: rank 0 gives out the id of a
communicator, all tell where they listen, and rank 0 tells each of the others what to fetch from whom.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from vllm.distributed.utils import StatelessProcessGroup


@dataclass
class Engine:
    """Where the blocks of an engine can be fetched."""

    host: str
    port: int


def main(rank: int, world_size: int, port: int) -> None:
    """What each rank does."""
    group = StatelessProcessGroup.create("127.0.0.1", port, rank, world_size)
    unique_id = group.broadcast_obj(bytes(range(128)) if rank == 0 else None, src=0)
    engines = group.all_gather_obj(Engine("127.0.0.1", 14579 + rank))
    if rank == 0:
        for dst in range(1, world_size):
            group.send_obj({"from": engines[dst - 1], "blocks": list(range(4 * dst))}, dst)
        print(f"rank 0: {len(engines)} engines share an id of {len(unique_id)} bytes")
    else:
        task = group.recv_obj(src=0)
        print(f"rank {rank}: fetch blocks {task['blocks']} from port {task['from'].port}")
    group.barrier(timeout=30.0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
