"""`aiopg run` tells the store how a rank ended, and the store tells the others."""

from __future__ import annotations

import sys
import time

import pytest

from .programs import StartAiopg

RANK = """
import asyncio, os, signal, sys
from aiopg import AsyncStatelessGroup, PeerLostError

async def main():
    group = await AsyncStatelessGroup.from_env()
    if group.rank != 1:
        # The team is stopped when rank 1 ends; what we were told is to be seen all the same.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    await group.barrier()
    if group.rank == 1:
        print(os.getpid(), flush=True)
        exec(sys.argv[1])
    try:
        await group.barrier()
    except PeerLostError as error:
        print(error.ranks, error.reason, flush=True)
    await group.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("deed", "how"),
    [("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"), ("os._exit(7)", "exited with code 7")],
)
def test_the_others_are_told_how_a_rank_ended(start_on_each_loop: StartAiopg, deed: str, how: str) -> None:
    """PeerLostError names the process and the signal, or the exit code, at once."""
    program = start_on_each_loop("run", "-n", "3", "--", sys.executable, "-c", RANK, deed)
    pid = int(program.line().split()[1])
    began = time.monotonic()
    said = sorted([program.line(), program.line()])
    assert time.monotonic() - began < 5  # STOP_SECONDS later the others would be killed, and say nothing
    assert said == [f"[{rank}] (1,) its process {pid} {how}" for rank in (0, 2)]
    assert program.finish()[0] not in (0, None)
