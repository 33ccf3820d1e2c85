"""How `create()` on rank 0 hosts the store: in a child process, in a thread, or on the caller's own loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

import anyio

from aiopg import tokens
from aiopg.errors import StoreLostError, UsageError
from aiopg.loops import LoopThread
from aiopg.server import _exposure
from aiopg.server._python import child_environment, module_command
from aiopg.server._server import StoreServer
from aiopg.server.listen import address_of
from aiopg.tls import Tls

__all__ = ["Admission", "HostedStore", "StoreHost", "check_host", "host_store"]

StoreHost: TypeAlias = Literal["process", "thread", "loop"]

DRAIN_SECONDS = 2.0
"""A store in rank 0's own process waits this long at close() for the other ranks to leave."""


class HostedStore(Protocol):
    """A store that this process started."""

    in_this_process: bool
    """Whether it ends with this process, so that this process must be the last to leave."""

    on_callers_loop: bool
    """Whether it serves only while the event loop runs on which it was started."""

    async def close(self) -> None:
        """Let go of it. What lives in this process stops, at the latest after `DRAIN_SECONDS`."""

    async def abandon(self) -> None:
        """End it at once: its founder never joined. Ranks that found it meanwhile look for the next one."""


def check_host(where: str) -> None:
    """Raises `ValueError` unless a store can be hosted so: "process", "thread" or "loop"."""
    if where not in get_args(StoreHost):
        raise ValueError(f"store_host must be one of {', '.join(get_args(StoreHost))}, not {where!r}")
    if where == "process" and (os.name != "posix" or not sys.executable):
        raise ValueError('store_host="process" needs a POSIX system and sys.executable; use store_host="thread"')


class Admission(NamedTuple):
    """Who may come in at a store that is hosted: see `StoreServer`."""

    token: str | None = None
    tls: Tls | None = None
    insecure: bool = False

    def server(self, listen_socket: socket.socket) -> StoreServer:
        """A store that is to serve on this socket."""
        return StoreServer(listen_socket=listen_socket, token=self.token, ssl=self.tls, insecure=self.insecure)


async def host_store(where: StoreHost, listen_socket: socket.socket, admission: Admission) -> HostedStore:
    """Serve on a listening socket, which is taken over, and let in who is to be.

    Raises:
        ValueError: see `check_host`.
        UsageError: see `StoreServer.start`.
        StoreLostError: the child process ended before it served; its standard error says why.
    """
    match where:
        case "process":
            return await _ProcessStore.start(listen_socket, admission)
        case "thread":
            return await _ThreadStore.start(listen_socket, admission)
        case "loop":
            return await _LoopStore.start(listen_socket, admission)


class _ProcessStore:
    """A store in a process of its own, which serves until its last member has left or was lost.

    The process is nobody's child: it goes its own way (`aiopg.server.child`), so nothing that happens to rank 0
    stalls or ends it, and rank 0 has nobody to wait for.
    """

    in_this_process = on_callers_loop = False

    def __init__(self, pid: int) -> None:
        self._pid = pid

    @classmethod
    async def start(cls, listen_socket: socket.socket, admission: Admission) -> _ProcessStore:
        address = str(address_of(listen_socket))
        try:
            # Here, where whoever made the mistake hears of it.
            admission.server(listen_socket).check_exposure()
        except UsageError:
            listen_socket.close()
            raise
        ready, ready_child = os.pipe()
        go_child, go = os.pipe()
        try:
            child = _spawn(listen_socket, ready_child, go_child, admission)
        except BaseException:
            os.close(ready)
            os.close(go)
            raise
        finally:
            os.close(ready_child)
            os.close(go_child)
            # From here on the child alone holds the port: when it ends, the port is free and callers are refused.
            listen_socket.close()
        try:
            await anyio.wait_readable(ready)
            said = os.read(ready, 64)
            if said:
                try:
                    os.write(go, b"+")
                except BrokenPipeError:
                    said = b""  # it ended in this very moment
        except BaseException:
            child.kill()  # who cancels wants no store; one that has forked already hears no "go" and ends
            child.wait()
            raise
        finally:
            os.close(ready)
            os.close(go)
        # By now the process that was spawned has forked the one that serves, and ended.
        code = child.wait()
        if not said:
            raise StoreLostError(address, f"its process ended before it served (exit code {code}); see its output")
        return cls(int(said))

    async def close(self) -> None:
        pass  # it outlives us, and ends by itself

    async def abandon(self) -> None:
        try:
            os.kill(self._pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # it has ended already


def _spawn(listen_socket: socket.socket, ready: int, go: int, admission: Admission) -> subprocess.Popen[bytes]:
    environment = child_environment()
    if admission.token is not None:
        environment[tokens.VARIABLE] = admission.token  # which only this user can read, other than a command line
    if admission.tls is not None:
        environment |= admission.tls.environment()
    if admission.insecure:
        environment[_exposure.VARIABLE] = "1"
    fds = (listen_socket.fileno(), ready, go)
    return subprocess.Popen(
        module_command("aiopg.server.child", *map(str, fds)),
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is for rank 0, also while the child starts
        env=environment,
    )


class _ThreadStore:
    """A store on an event loop of its own in a thread of this process: a busy loop does not stall it."""

    in_this_process = True
    on_callers_loop = False

    def __init__(self, thread: LoopThread, server: StoreServer) -> None:
        self._thread = thread
        self._server = server

    @classmethod
    async def start(cls, listen_socket: socket.socket, admission: Admission) -> _ThreadStore:
        thread = LoopThread(f"aiopg store {address_of(listen_socket)}")
        server = admission.server(listen_socket)
        try:
            # Waits for nothing but the thread, and so has no point at which it could be cancelled half done.
            thread.submit(server.start()).result()
        except BaseException:
            thread.stop()
            raise
        return cls(thread, server)

    async def close(self) -> None:
        try:
            await asyncio.wrap_future(self._thread.submit(_drain_and_close(self._server)))
        finally:
            self._thread.stop()

    async def abandon(self) -> None:
        try:
            await asyncio.wrap_future(self._thread.submit(self._server.close()))
        finally:
            self._thread.stop()


class _LoopStore:
    """A store on the caller's event loop: no thread and no process, and as busy as that loop is."""

    in_this_process = on_callers_loop = True

    def __init__(self, server: StoreServer) -> None:
        self._server = server

    @classmethod
    async def start(cls, listen_socket: socket.socket, admission: Admission) -> _LoopStore:
        server = admission.server(listen_socket)
        await server.start()
        return cls(server)

    async def close(self) -> None:
        await _drain_and_close(self._server)

    async def abandon(self) -> None:
        await self._server.close()


async def _drain_and_close(server: StoreServer) -> None:
    try:
        with anyio.move_on_after(DRAIN_SECONDS):
            await server.wait_vacated()
    finally:
        await server.close()
