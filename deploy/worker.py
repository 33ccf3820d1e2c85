"""A worker of an example deployment: learns where the others are, and goes on when all are ready.

Its place is in the environment: RANK (or JOB_COMPLETION_INDEX), WORLD_SIZE, AIOPG_URL, and AIOPG_TOKEN.
"""

import asyncio
import socket

import aiopg


async def main() -> None:
    """Be a rank, once."""
    async with await aiopg.AsyncStatelessGroup.from_env() as group:
        peers = await group.all_gather(socket.gethostname())
        print(f"rank {group.rank} of {group.world_size}: the workers are {', '.join(peers)}", flush=True)
        await group.barrier(timeout=60)


if __name__ == "__main__":
    asyncio.run(main())
