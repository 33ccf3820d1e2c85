"""What torchrun runs in the tests: `torchrun ... -m tests.group.torchrun_worker meet|restart DIRECTORY`.

Each worker leaves its result in a file of DIRECTORY.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed

from aiopg import AsyncStatelessGroup, StatelessGroup

RANK, WORLD_SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
HANGS_SECONDS = 35
"""A worker that is still there then says where it is, before the test gives it up."""

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
    """In the first life rank 1 fails: of one agent when rank 0 has said where it is, of two when the group formed."""
    agent = torch.distributed.TCPStore(HOST, PORT, is_master=False, wait_for_workers=False)
    life = 1 if agent.check(["failed"]) else 0  # TORCHELASTIC_RESTART_COUNT is not the same at all agents
    is_failing = life == 0 and RANK == 1
    if is_failing and os.environ["GROUP_WORLD_SIZE"] == "1":
        await asyncio.to_thread(agent.wait, ["aiopg/default/1"])
        fail(agent)
    if life == 1 and RANK == 0:
        # Rank 1 looks first, and finds what the last life left.
        await asyncio.to_thread(agent.wait, ["looks"])
        await asyncio.sleep(0.3)
    elif life == 1:
        agent.set("looks", "")
    async with await AsyncStatelessGroup.from_env() as group:
        lives = await group.all_gather(life)
        if is_failing:
            fail(agent)
        await group.barrier()
    return {"lives": lives}


def fail(agent: Any) -> None:
    """End without a word, and have torchrun start all workers again."""
    agent.set("failed", "")
    os._exit(1)


def main(what: str, results: Path) -> None:
    """Leave the result for the test."""
    faulthandler.dump_traceback_later(HANGS_SECONDS)
    result = asyncio.run({"meet": meet, "restart": restart}[what]())
    (results / f"result-{RANK}").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
