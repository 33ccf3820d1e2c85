"""N processes as one: started together, stopped together, each line of their output marked with its rank."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

import anyio
from anyio.abc import TaskGroup, TaskStatus

from aiopg.address import Address
from aiopg.cli._joining import Look, tell_joining
from aiopg.cli._lines import Footer, Lines, Outlet, pump
from aiopg.cli._process import RankProcess, exit_code
from aiopg.processes import describe_end

__all__ = ["STOP_SECONDS", "Team", "rank_environment"]

STOP_SECONDS = 5.0
"""From SIGTERM to SIGKILL."""

NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""Exit codes for a command that cannot be started, as a shell has them."""


class Team:
    """The same command N times, each with an environment of its own.

    The first of these ends the team: a rank that fails, a command that cannot be started, a signal to us (SIGINT,
    SIGTERM, SIGHUP: sent on to all ranks), output that cannot be passed on. The ranks get SIGTERM, and SIGKILL
    `STOP_SECONDS` later; a second signal to us is SIGKILL for them at once. No process outlives `run`, save one that
    made a session of its own.

    Args:
        name: who speaks in messages ("aiopg run").
        command: program and arguments.
        environments: the whole environment of each rank.
        on_end: called with the process id of a rank that ended, and how: "was killed by SIGKILL".
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        on_end: Callable[[int, str], object],
    ) -> None:
        self._name = name
        self._command = command
        self._environments = environments
        self._on_end = on_end
        lock, footer = anyio.Lock(), Footer()
        self._stdout = Outlet(sys.stdout.fileno(), lock, footer)
        self._stderr = Outlet(sys.stderr.fileno(), lock, footer)
        self._live: set[RankProcess] = set()
        self._code: int | None = None
        """Exit code of whatever ended the team first."""
        self._tasks: TaskGroup

    async def run(self, look: Look | None = None, group: str | None = None) -> int:
        """Run to the end of all ranks; returns the exit code: that of the first failure, or 0.

        `look`: asks the store what is in it. Then it is told who has joined `group`, while it forms.
        """
        async with anyio.create_task_group() as self._tasks:
            await self._tasks.start(self._heed_signals)
            if look is not None:
                self._tasks.start_soon(self._tell_joining, look, group)
            async with anyio.create_task_group() as ranks:
                for rank in range(len(self._environments)):
                    ranks.start_soon(self._run_rank, rank)
            self._tasks.cancel_scope.cancel()
        return self._code or 0

    async def _run_rank(self, rank: int) -> None:
        if self._is_ending():
            return
        try:
            process = await RankProcess.start(self._command, self._environments[rank])
        except OSError as error:
            if self._stop(signal.SIGTERM, NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE):
                await self._say(f"cannot start {self._command[0]}: {error.strerror}")
            return
        self._live.add(process)
        try:
            if self._is_ending():  # the team was ended while this one started
                process.signal(signal.SIGTERM)
            await self._attend(rank, process)
        finally:
            self._live.discard(process)
            await process.end()

    async def _attend(self, rank: int, process: RankProcess) -> None:
        """Pass its output on until the process and all that it started are done."""
        prefix = b"[%d] " % rank
        async with anyio.create_task_group() as pumps:
            pumps.start_soon(self._pump, process.stdout, prefix, self._stdout)
            pumps.start_soon(self._pump, process.stderr, prefix, self._stderr)
            returncode = await process.wait()
            self._on_end(process.pid, describe_end(returncode))
            code = exit_code(returncode)
            is_first = code != 0 and self._stop(signal.SIGTERM, code)
            if not self._is_ending():
                # What a rank that is done left running has nobody to work for. (In a team that ends it has its
                # signal already, and a second one would cut its clean-up short.)
                process.signal(signal.SIGTERM)
            # All that is left closes the pipes as it ends, or is killed.
            pumps.cancel_scope.deadline = anyio.current_time() + STOP_SECONDS
        if is_first:
            await self._say(f"rank {rank} {_ended(code)}; stopped the others")

    async def _pump(self, source: int, prefix: bytes, outlet: Outlet) -> None:
        try:
            await pump(source, Lines(prefix), outlet)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                self._stop(signal.SIGTERM, 128 + signal.SIGPIPE)
            elif self._stop(signal.SIGTERM, 1):
                await self._say(f"cannot pass the output on: {error.strerror}")

    async def _tell_joining(self, look: Look, group: str | None) -> None:
        try:
            await tell_joining(self._name, look, group, self._stderr)
        except OSError:
            pass  # as for `_say`: the ranks' own output says so too

    async def _heed_signals(self, *, task_status: TaskStatus[None]) -> None:
        heeded = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup wants us to go on
            heeded.append(signal.SIGHUP)
        with anyio.open_signal_receiver(*heeded) as signals:
            task_status.started()
            async for signum in signals:
                if not self._stop(signum, 128 + signum):
                    self._signal_all(signal.SIGKILL)

    def _stop(self, signum: int, code: int) -> bool:
        """End the team with this exit code. False, and without effect, for one that ends already."""
        if self._is_ending():
            return False
        self._code = code
        self._signal_all(signum)
        self._tasks.start_soon(self._kill_later)
        return True

    async def _say(self, what: str) -> None:
        try:
            with anyio.move_on_after(STOP_SECONDS):
                await self._stderr.write(f"{self._name}: {what}\n".encode())
        except OSError:
            pass  # nobody wants to know

    def _is_ending(self) -> bool:
        return self._code is not None

    async def _kill_later(self) -> None:
        await anyio.sleep(STOP_SECONDS)
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, signum: int) -> None:
        for process in self._live:
            process.signal(signum)


def rank_environment(url: str, rank: int, world_size: int, group: str | None = None) -> dict[str, str]:
    """The whole environment of a rank: for `from_env()`; and where the store is one of ours over TCP, for `create()` at
    MASTER_ADDR and MASTER_PORT."""
    place = {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world_size),
        "AIOPG_URL": url,
        # Where torchrun started us, its own store is not at this address.
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }
    if url.startswith("aiopg:"):
        address = Address.parse(url)
        place |= {"MASTER_ADDR": address.host, "MASTER_PORT": str(address.port)}
    if group is not None:
        place["AIOPG_GROUP"] = group
    # A line is worth most when it is printed, and a pipe would make Python hold it back.
    return {"PYTHONUNBUFFERED": "1"} | os.environ | place


def _ended(code: int) -> str:
    if code > 128:
        try:
            return f"was ended by {signal.Signals(code - 128).name}"
        except ValueError:
            pass  # an exit code of its own choice
    return f"exited with code {code}"
