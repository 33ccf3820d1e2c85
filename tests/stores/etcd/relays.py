"""The network between the members of a cluster of etcd, in which some can be cut off from others.

Every member is known to the others by the address of a relay before it. A relay finds out which member dials it, from
the tables of the kernel: so the road between two members can be cut both ways, whoever dialled, and the roads to the
others and to the clients stay. All relays run in one thread with a loop of its own: a test that keeps its loop busy
must not slow the members' heartbeats.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK = 256 * 1024


class Relays:
    """Relays, one for each name, in a thread. Its methods may be called in any thread, and block a moment.

    Args:
        names: of the members.
        target: the address "host:port" of a member by its name, as it is now.
        pid: its process, or None while it does not run.
    """

    def __init__(self, names: Iterable[str], target: Callable[[str], str], pid: Callable[[str], int | None]) -> None:
        self._target, self._pid = target, pid
        self._closing = False
        self._cut: set[frozenset[str]] = set()
        self._live: dict[asyncio.Task[None], frozenset[str]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._thread.start()
        self._names = tuple(names)
        self._servers: list[asyncio.Server] = []
        self.addresses = self._run(self._listen())
        """Where each member is to be dialled."""

    def isolate(self, name: str) -> None:
        """Cut that member off from all others."""
        self._run(self._isolate(name))

    def heal(self) -> None:
        """Make all roads whole again."""
        self._run(self._heal())

    def close(self) -> None:
        """End everything."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> dict[str, str]:
        addresses = {}
        for name in self._names:
            server = await asyncio.start_server(partial(self._accepted, name), "127.0.0.1", 0)
            self._servers.append(server)
            addresses[name] = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return addresses

    async def _isolate(self, name: str) -> None:
        self._cut |= {frozenset((name, other)) for other in self._names if other != name}
        for task, pair in self._live.items():
            if pair in self._cut:
                task.cancel()

    async def _heal(self) -> None:
        self._cut.clear()

    async def _close(self) -> None:
        self._closing = True
        for server in self._servers:
            server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._live:
                task.cancel()
            await asyncio.wait(others, timeout=0.5)  # those that accept just now become live ones
        for _ in range(5):
            await asyncio.sleep(0)  # what was aborted closes its sockets in the passes behind

    def _accepted(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = frozenset((name, self._dialler(writer)))
        if self._closing or pair in self._cut:
            writer.transport.abort()
            return
        task = self._loop.create_task(self._relay(name, reader, writer))
        self._live[task] = pair
        task.add_done_callback(partial(self._over, writer))  # also where it is cancelled before it has begun

    def _over(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._live.pop(task)
        writer.transport.abort()

    async def _relay(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target(name).rpartition(":")
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await asyncio.open_connection(host, int(port))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, onward))
                tasks.create_task(_pump(back, writer))
        except* (OSError, EOFError):
            pass  # one end has gone: then the other goes
        finally:
            if onward is not None:
                onward.transport.abort()

    def _dialler(self, writer: asyncio.StreamWriter) -> str:
        """The member that dialled; empty if it is gone already."""
        inode = _inode(writer.get_extra_info("peername"), writer.get_extra_info("sockname"))
        for name in self._names:
            pid = self._pid(name)
            if pid is not None and inode in _sockets(pid):
                return name
        return ""


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end, which is raised as `EOFError`: none of etcd's connections is of use half open."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    raise EOFError


def _inode(local: tuple[str, int], remote: tuple[str, int]) -> str:
    """Of the socket whose ends are these, both on loopback."""
    ends = tuple(f"0100007F:{port:04X}" for _, port in (local, remote))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (fields[1], fields[2]) == ends:
            return fields[9]
    return ""


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    with suppress(OSError):  # it has ended
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    return found
