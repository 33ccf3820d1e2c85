"""A service of several processes that is ready when all of them are there, and drains when it is told to stop.

::

    aiopg run -n 3 -- python examples/waiting_service.py

Each process answers every line on its own port with "ready" or "not ready", from its first moment on. Ctrl-C, or
SIGTERM, stops it: it says "not ready", finishes what it has begun, and leaves the group; the others see it leave.
"""

from __future__ import annotations

import asyncio
import signal

from aiopg import AsyncStatelessGroup, GroupTimeoutError


class Service:
    """What this process does for the world."""

    def __init__(self) -> None:
        self.ready = False
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request: a line in, a line out."""
        self._requests += 1
        self._idle.clear()
        try:
            await reader.readline()
            writer.write(b"ready\n" if self.ready else b"not ready\n")
            await writer.drain()
        except ConnectionError:
            pass  # whoever asked has gone
        finally:
            writer.close()
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Wait for the requests that are being answered, but not for ever."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            print(f"gave up on {self._requests} requests")


async def find_peers(stop: asyncio.Event) -> AsyncStatelessGroup | None:
    """Wait until all peers are there, saying for whom; None if we are told to stop first."""
    while not stop.is_set():
        try:
            return await AsyncStatelessGroup.from_env(store_timeout=1.0)
        except GroupTimeoutError as error:
            print(f"waiting for ranks {error.missing}")
    return None


async def watch(group: AsyncStatelessGroup, service: Service) -> None:
    """Be ready no more when a peer is gone. Ends when we leave the group."""
    async for event in group.events():
        if event.what in ("left", "lost", "aborted"):
            service.ready = False
            print(f"not ready: rank {event.rank} {event.what}: {event.text}")


async def take_part(service: Service, stop: asyncio.Event) -> None:
    """Be ready while all peers are there."""
    group = await find_peers(stop)
    if group is None:
        return
    async with group, asyncio.TaskGroup() as tasks:
        service.ready = True
        print("ready: all peers are there")
        tasks.create_task(watch(group, service))
        await stop.wait()
        service.ready = False
        await service.drain(seconds=3)
        await group.close()  # ends the watch


async def main() -> None:
    """Serve from the first moment; drain at the last."""
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    service = Service()
    async with await asyncio.start_server(service.answer, "127.0.0.1", 0) as listening:
        print(f"listening on port {listening.sockets[0].getsockname()[1]}")
        await take_part(service, stop)
    print("drained")


if __name__ == "__main__":
    asyncio.run(main())
