"""What torchrun runs in the tests: `torchrun ... -m tests.group.torchrun_worker meet|restart DIRECTORY`.

Each worker leaves its result in a file of DIRECTORY.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed

from aiopg import AsyncStatelessGroup, StatelessGroup

RANK, WORLD_SIZE, LIFE = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"))
HOST, PORT = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


async def meet() -> dict[str, Any]:
    """Groups by each way in, beside torch's own process group at the same address."""
    async with (
        await AsyncStatelessGroup.from_env() as first,
        await AsyncStatelessGroup.create(HOST, PORT, RANK, WORLD_SIZE, group="second") as second,
    ):
        told = [await first.all_gather(RANK), await second.all_gather(-RANK)]
        await first.barrier()
    await asyncio.to_thread(block, told)
    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    async with await AsyncStatelessGroup.from_env() as again:
        told.append(await again.all_gather(RANK))
    return {"told": told, "agent": os.environ["TORCHELASTIC_USE_AGENT_STORE"]}


def block(told: list[Any]) -> None:
    """The blocking group."""
    with StatelessGroup.from_env(group="third") as third:
        told.append(third.all_gather(RANK))


async def restart() -> dict[str, Any]:
    """In the first life rank 0 has told where it is, and the last rank fails: of two before the group has formed."""
    agent = torch.distributed.TCPStore(HOST, PORT, is_master=False, wait_for_workers=False)
    is_failing = LIFE == 0 and RANK == WORLD_SIZE - 1
    if is_failing and WORLD_SIZE == 2:
        await asyncio.to_thread(agent.wait, ["aiopg/default/1"])
        sys.exit(1)
    if LIFE == 1 and RANK == 0:
        # The others look first, and find what the last life left.
        await asyncio.to_thread(agent.wait, [f"looks-{rank}" for rank in range(1, WORLD_SIZE)])
        await asyncio.sleep(0.3)
    elif LIFE == 1:
        agent.set(f"looks-{RANK}", "")
    async with await AsyncStatelessGroup.from_env() as group:
        lives = await group.all_gather(LIFE)
        if is_failing:
            sys.exit(1)
        await group.barrier()
    return {"lives": lives}


def main(what: str, results: Path) -> None:
    """Leave the result for the test."""
    result = asyncio.run({"meet": meet, "restart": restart}[what]())
    (results / f"result-{RANK}").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
