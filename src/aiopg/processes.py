"""Processes of this host: naming one for good, being told when it ends, and whose it is.

Theory of operation. A process id alone names nobody: it is used again, and it means another process in another
container. With the time at which the process began, the namespace that the id belongs to and the boot of the kernel
that counts it, it names one process for ever (`ProcessIdentity`). A client says who it is; a server that finds itself
under the same kernel and in the same namespace opens a pidfd on it (`ProcessWatch`), a file descriptor that becomes
readable when the process has ended: no polling, no thread, no signal, and the process need not be a child.

A watch only ever adds to what the connection tells. So everything that may be missing (the platform, the system call,
a free file descriptor) makes it silent and never an error; and it is silent rather than wrong.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["ProcessIdentity", "ProcessWatch", "WatchHandle", "describe_end", "is_stranger", "own_identity"]

logger = logging.getLogger("aiopg.processes")

_PROC = Path("/proc")

_PIDS = range(1, 2**31)
"""What can be a process id at all; a larger number does not fit the system call."""

_CREDENTIALS = struct.Struct("3i")
"""Linux' `struct ucred`: process, user, group."""


class ProcessIdentity(NamedTuple):
    """A process among all that ever were. Plain values, to be sent as they are.

    Attributes:
        pid: its process id.
        start_time: when it began, in clock ticks since the host's boot.
        pid_namespace: the namespace in which `pid` is counted; its number under /proc.
        boot_id: the boot of its host's kernel; empty if the process does not know who it is.
    """

    pid: int
    start_time: int
    pid_namespace: int
    boot_id: str

    def same_host(self, other: ProcessIdentity) -> bool:
        """Whether both processes are known to run under one kernel and to count process ids alike.

        Virtual machines that were cloned from one snapshot have the same boot id. Who takes an identity from a
        connection should see that the connection comes from this host.
        """
        return bool(self.boot_id) and (self.boot_id, self.pid_namespace) == (other.boot_id, other.pid_namespace)


_NOBODY = ProcessIdentity(0, 0, 0, "")


def own_identity() -> ProcessIdentity:
    """The calling process; read once, and again after a fork.

    Empty, so that it matches no other, on another platform than Linux and where /proc does not show this process as
    it sees itself (the /proc of another namespace, or a time namespace that shifts the boot time).
    """
    try:
        return _read_own_identity()
    except OSError:
        return _NOBODY  # no /proc; or no file descriptor free: asked again, it may be there


@functools.cache
def _read_own_identity() -> ProcessIdentity:
    pid, start_time = _parse_stat((_PROC / "self/stat").read_bytes())
    if pid != os.getpid() or _boot_time_is_shifted():
        return _NOBODY
    boot_id = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ProcessIdentity(pid, start_time, (_PROC / "self/ns/pid").stat().st_ino, boot_id)


if hasattr(os, "register_at_fork"):
    # Not by comparing process ids: a child may have its parent's, in a namespace of its own.
    os.register_at_fork(after_in_child=_read_own_identity.cache_clear)


def describe_end(returncode: int) -> str:
    """How a process ended, by its `Popen.returncode`: "exited with code 3", "was killed by SIGKILL"."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:  # a real-time signal
        name = f"signal {-returncode}"
    return f"was killed by {name}"


def is_stranger(sock: socket.socket) -> bool:
    """Whether the other end of a unix socket belongs to another user than this process, and not to root.

    Linux only; elsewhere the file's permissions are all there is. Raises `OSError` if the socket is closed.
    """
    if sys.platform != "linux":
        return False
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return user not in (0, os.geteuid())


class WatchHandle:
    """One callback of a `ProcessWatch`, which makes it."""

    def __init__(self, watch: ProcessWatch, identity: ProcessIdentity, callback: Callable[[], object]) -> None:
        self._watch = watch
        self.identity = identity
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """The callback does not come any more. Twice, or when it has come, is fine."""
        if self._callback is not None:
            self._callback = None
            self._watch.forget(self)

    def fire(self) -> None:
        """Call back, unless it was done or cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class _Watched:
    """One process and who is to be told of its end, in the order of asking."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd
        self.handles: dict[WatchHandle, None] = {}


class ProcessWatch:
    """Calls back when processes of this host end. It belongs to the event loop that runs when it is made.

    All watches on one process share one file descriptor, which is closed with the last of them.

    Attributes:
        unwatched: how many watches there were that can never call back, for want of pidfds or of file descriptors.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[ProcessIdentity, _Watched] = {}
        self._closed = False
        self.unwatched = 0

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"processes={len(self._watched)}"
        return f"<ProcessWatch {state} unwatched={self.unwatched}>"

    def watch(self, identity: ProcessIdentity, callback: Callable[[], object]) -> WatchHandle:
        """Have the loop call `callback()` once, when that process has ended, at once if it has ended already.

        A process has ended when it no longer runs, whether or not its parent has asked for its exit code. Never calls
        back before it returns, and never raises. Does nothing if the process is not of this host, after `close`, and
        where it cannot be watched (see `unwatched`; the first time is logged).
        """
        handle = WatchHandle(self, identity, callback)
        if self._closed or not own_identity().same_host(identity):
            return handle
        try:
            watched = self._watched.get(identity) or self._open(identity)
        except ProcessLookupError:
            self._loop.call_soon(self._tell, handle)
        except OSError as error:
            self._note_unwatched(error)
        else:
            watched.handles[handle] = None
        return handle

    def forget(self, handle: WatchHandle) -> None:
        """This one was cancelled."""
        watched = self._watched.get(handle.identity)
        if watched is not None and handle in watched.handles:
            del watched.handles[handle]
            if not watched.handles:
                self._drop(handle.identity)

    def close(self) -> None:
        """No callback comes any more, also of processes that have just ended. Closing twice is fine."""
        self._closed = True
        for identity in list(self._watched):
            self._drop(identity)

    def _open(self, identity: ProcessIdentity) -> _Watched:
        """Raises `ProcessLookupError` if the process has ended, another `OSError` if it cannot be watched."""
        pidfd_open = getattr(os, "pidfd_open", None)
        if pidfd_open is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if identity.pid not in _PIDS:
            raise ProcessLookupError(errno.ESRCH, "no process has such an id")
        pidfd: int = pidfd_open(identity.pid)
        try:
            # Opened first and compared after: if the id changes hands in between, the one who had it has ended, and
            # the comparison says so.
            if _start_time(identity.pid) not in (identity.start_time, None):
                raise ProcessLookupError(errno.ESRCH, "another process has its id")
            self._loop.add_reader(pidfd, self._ended, identity)
        except BaseException:
            os.close(pidfd)
            raise
        watched = self._watched[identity] = _Watched(pidfd)
        return watched

    def _drop(self, identity: ProcessIdentity) -> _Watched:
        watched = self._watched.pop(identity)
        self._loop.remove_reader(watched.pidfd)
        os.close(watched.pidfd)
        return watched

    def _ended(self, identity: ProcessIdentity) -> None:
        # Each in a call of its own, so that one which raises is no matter of the others.
        for handle in self._drop(identity).handles:
            self._loop.call_soon(self._tell, handle)

    def _tell(self, handle: WatchHandle) -> None:
        if not self._closed:
            handle.fire()

    def _note_unwatched(self, error: OSError) -> None:
        self.unwatched += 1
        if self.unwatched == 1:
            logger.warning(
                "a process of this host cannot be watched, its connection must tell its end: %s",
                error,
                extra={"reason": str(error)},
            )


def _start_time(pid: int) -> int | None:
    """When the process that has this id now began; None if that is hidden from us.

    Nothing is lost then: the pidfd is that of the process meant, or that one has ended long ago and is told too late.
    """
    try:
        return _parse_stat((_PROC / str(pid) / "stat").read_bytes())[1]
    except OSError:
        return None


def _parse_stat(stat: bytes) -> tuple[int, int]:
    """Process id and start time (fields 1 and 22) of a /proc/PID/stat.

    Field 2 is the command's name in parentheses, and may itself hold anything, parentheses and spaces included; after
    its last parenthesis there are only numbers and a letter.
    """
    fields = stat[stat.rindex(b")") + 1 :].split()
    return int(stat.split(None, 1)[0]), int(fields[22 - 3])


def _boot_time_is_shifted() -> bool:
    """Whether start times look different from here than from other processes of this host."""
    try:
        offsets = (_PROC / "self/timens_offsets").read_text()
    except FileNotFoundError:
        return False  # a kernel without time namespaces
    return any(line.split()[1:] != ["0", "0"] for line in offsets.splitlines() if line.startswith("boottime"))
