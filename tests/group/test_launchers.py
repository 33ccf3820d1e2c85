"""Real processes with the variables that launchers set form the group that `from_env()` reads there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from aiopg.group._environment import read_environment
from tests.system.ranks import free_port

PROGRAM = """
import asyncio, json
from aiopg import AsyncStatelessGroup
async def main():
    async with await AsyncStatelessGroup.from_env(store_timeout=20) as group:
        print(json.dumps([await group.all_gather(group.rank), group.store.url]))
        await group.barrier()
asyncio.run(main())
"""


def slurm(rank: int, size: int, port: int) -> dict[str, str]:
    """Of a task that srun started: a list of hosts that begins with this one."""
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": "64",
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_JOB_NODELIST": "127.0.0.[1-4]",
        "SLURM_STEP_NODELIST": "127.0.0.[1,3]",
        "SLURM_JOB_ID": str((port - 20000) // 10),
        "SLURM_STEP_ID": str(port % 10),
        "SLURM_LAUNCH_NODE_IPADDR": "192.0.2.1",
    }


def open_mpi(rank: int, size: int, port: int) -> dict[str, str]:
    """Of a process that Open MPI 4.1 started, all of them on one host."""
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(size),
        "OMPI_UNIVERSE_SIZE": "8",
        "PMIX_NAMESPACE": f"{os.getpid()}0001",
        "PMIX_RANK": str(rank),
    }


def mpich(rank: int, size: int, port: int) -> dict[str, str]:
    """Of a process that Hydra started, with the address that its user gave."""
    return {"PMI_RANK": str(rank), "PMI_SIZE": str(size), "PMI_FD": "9"} | address(port)


def kubernetes(rank: int, size: int, port: int) -> dict[str, str]:
    """Of a pod of an indexed Job, with what its manifest adds."""
    job = {"JOB_COMPLETION_INDEX": str(rank), "KUBERNETES_SERVICE_HOST": "10.96.0.1", "WORLD_SIZE": str(size)}
    return job | address(port)


def address(port: int) -> dict[str, str]:
    """What is left to the user."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@pytest.mark.parametrize("launcher", [slurm, open_mpi, mpich, kubernetes], ids=lambda launcher: launcher.__name__)
def test_its_processes_form_a_group(launcher: Callable[[int, int, int], dict[str, str]]) -> None:
    """With nothing but these variables."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIOPG_")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=clean | launcher(rank, 3, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        ended = [(*process.communicate(timeout=40), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    port = read_environment(launcher(0, 3, port)).port if launcher is open_mpi else port
    told = json.dumps([[0, 1, 2], f"aiopg://127.0.0.1:{port}"])
    assert ended == [(f"{told}\n", "", 0)] * 3
