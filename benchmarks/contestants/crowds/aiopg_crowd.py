"""aiopg on uvloop: every rank a task with a group of its own; the store is a process of its own.

The store is `StoreServer` with its default limits, but for `world_size`, which is 8,192 by default.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version

import uvloop

import aiopg
from benchmarks.contestants.base import FORM_SECONDS
from benchmarks.contestants.crowds import BaseCrowd


class Crowd(BaseCrowd):
    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._groups: list[aiopg.AsyncStatelessGroup] = []
        self._store: subprocess.Popen[bytes] | None = None

    def versions(self) -> dict[str, str]:
        return {"aiopg": version("aiopg-group"), "uvloop": version("uvloop")}

    def host(self, listener: socket.socket, world_size: int) -> None:
        descriptor = listener.fileno()
        command = [sys.executable, "-m", __name__, str(descriptor), str(world_size)]
        self._store = subprocess.Popen(command, pass_fds=[descriptor], stdout=subprocess.PIPE)
        assert self._store.stdout is not None
        self._store.stdout.readline()
        listener.close()

    def join(self, port: int, ranks: range, world_size: int) -> None:
        async def join_all() -> list[aiopg.AsyncStatelessGroup]:
            async with asyncio.TaskGroup() as tasks:
                joining = [
                    tasks.create_task(
                        aiopg.AsyncStatelessGroup.connect(
                            f"aiopg://127.0.0.1:{port}",
                            rank=rank,
                            world_size=world_size,
                            group="crowd",
                            store_timeout=FORM_SECONDS,
                        )
                    )
                    for rank in ranks
                ]
            return [task.result() for task in joining]

        self._groups = self._runner.run(join_all())

    def barrier(self, count: int) -> None:
        async def pass_barriers(group: aiopg.AsyncStatelessGroup) -> None:
            for _ in range(count):
                await group.barrier()

        async def pass_all() -> None:
            async with asyncio.TaskGroup() as tasks:
                for group in self._groups:
                    tasks.create_task(pass_barriers(group))

        self._runner.run(pass_all())

    def leave(self) -> None:
        async def leave_all() -> None:
            async with asyncio.TaskGroup() as tasks:
                for group in self._groups:
                    tasks.create_task(group.close())

        self._runner.run(leave_all())
        self._groups.clear()
        if self._store is not None:
            self._store.send_signal(signal.SIGTERM)
            self._store.communicate()
            self._store = None


async def serve(descriptor: int, world_size: int) -> None:
    """Be the store until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    limits = aiopg.Limits(world_size=max(world_size, aiopg.Limits().world_size))
    async with aiopg.StoreServer(listen_socket=socket.socket(fileno=descriptor), limits=limits):
        os.write(1, b"serving\n")
        await told.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
