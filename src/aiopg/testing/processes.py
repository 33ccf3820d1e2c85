"""Ranks as real processes, for tests: started together, waited for together, none left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from signal import SIGKILL
from typing import IO, Any, TypeAlias
from urllib.parse import urlsplit

import anyio.to_thread

from aiopg.address import Address
from aiopg.processes import describe_end
from aiopg.server._python import child_environment, module_command
from aiopg.testing._errand import Outcome, read_outcome, write_errand
from aiopg.testing.members import fresh_name

__all__ = ["ProcessMaker", "RankFailedError", "RankProcesses", "Target"]

Target: TypeAlias = "Callable[..., Any] | str | os.PathLike[str]"
"""A function at the top of a module, or the path of a script."""

OTHER_ENGINES = ("redis", "rediss", "etcd", "etcds")
"""URLs of these have no one host and port that MASTER_ADDR and MASTER_PORT could name."""

SETTLE_SECONDS = 2.0
"""How long the other ranks may go on when one has failed: what befell them is told too."""

SHOWN_CHARACTERS = 8000
"""How much of the end of a rank's standard error is in an error."""


class RankFailedError(Exception):
    """A rank's process failed, or did not end in time and was killed.

    Attributes:
        rank: which; the first that failed by itself, and not because of another rank.
        how: what happened: "exited with code 1", "was killed by SIGSEGV", "did not end within 60 s".
        stderr: all that it wrote to its standard error; a Python traceback, as a rule. The text of this error has the
            end of it.
        failed: all ranks that failed, and how.
    """

    def __init__(self, rank: int, how: str, stderr: str, failed: Mapping[int, str]) -> None:
        others = "".join(f"\nrank {other} {what}" for other, what in failed.items() if other != rank)
        shown = stderr[-SHOWN_CHARACTERS:].rstrip() or "(nothing)"
        super().__init__(f"rank {rank} {how}; its standard error:\n{shown}{others}")
        self.rank = rank
        self.how = how
        self.stderr = stderr
        self.failed = dict(failed)


class _Rank:
    """One process, and the files that it writes to: files and not pipes, as those would have to be read meanwhile."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], errand: bytes | None) -> None:
        self.stdout, self.stderr, self.outcome = _file(), _file(), _file()
        self.killed = False
        """The test killed it."""
        self.returncode: int | None = None
        self._lock = threading.Lock()
        # Its other end reads the end of file when this process ends in whatever way, and ends too.
        lifeline, self._lifeline = os.pipe()
        fds: list[int] = []
        try:
            with open(lifeline, "rb"), tempfile.TemporaryFile() as file:
                if errand is not None:
                    file.write(errand)
                    file.seek(0)
                    fds = [file.fileno(), self.outcome.fileno(), lifeline]
                self._process = subprocess.Popen(
                    [*command, *map(str, fds)],
                    stdin=subprocess.DEVNULL,
                    stdout=self.stdout,
                    stderr=self.stderr,
                    env=dict(environment),
                    pass_fds=fds,
                    start_new_session=True,  # so that all that it starts can be killed with it
                )
        except BaseException:
            self.forget()
            raise
        self.pid = self._process.pid

    def wait(self) -> None:
        """Wait for its end, and end what it left running."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._kill_all()  # while the process is not reaped, nobody else can have its number
            self.returncode = self._process.wait()

    def signal(self, signum: int) -> None:
        """Send it a signal, if it runs."""
        with self._lock:
            if self.returncode is None:
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill it and what it started."""
        with self._lock:
            if self.returncode is None:
                self._kill_all()

    def _kill_all(self) -> None:
        try:
            os.killpg(self.pid, SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # gone; macOS says "permission" where only a zombie is left

    def forget(self) -> None:
        """Let go of its files, once."""
        os.close(self._lifeline)
        for file in (self.stdout, self.stderr, self.outcome):
            file.close()


class RankProcesses:
    """The processes that a `ProcessMaker` started.

    ::

        results = await aiopg_processes(3, work)         # in a coroutine: the event loop goes on meanwhile
        results = aiopg_processes(3, work).wait()        # elsewhere

    Attributes:
        world_size: how many.
        group: name of their group.
    """

    def __init__(
        self,
        command: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        *,
        group: str,
        timeout: float,
        errand: bytes | None = None,
    ) -> None:
        self.world_size = len(environments)
        self.group = group
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._has_errand = errand is not None
        self._changed = threading.Condition()
        self._ended: list[int] = []  # ranks in the order of their ends
        self._stopped: dict[int, str] = {}  # ranks that were killed as they had not ended, and when
        self._outcomes: dict[int, Outcome | None] = {}
        self._texts: dict[int, tuple[str, str]] | None = None  # once they are closed
        self._ranks: list[_Rank] = []
        self._threads: list[threading.Thread] = []
        try:
            for rank, environment in enumerate(environments):
                self._ranks.append(_Rank(command, environment, errand))
                thread = threading.Thread(target=self._attend, args=(rank,), name=f"waits for rank {rank}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<RankProcesses {self.group!r} running={self.running()} of {self.world_size}>"

    @property
    def pids(self) -> list[int]:
        """Process ids, by rank."""
        return [rank.pid for rank in self._ranks]

    def running(self) -> list[int]:
        """The ranks whose processes run."""
        with self._changed:
            return [rank for rank in range(len(self._ranks)) if rank not in self._ended]

    def stdout(self, rank: int) -> str:
        """What the rank has written to its standard output by now; PYTHONUNBUFFERED is set, so prints come at once."""
        return self._text(rank, 0)

    def stderr(self, rank: int) -> str:
        """What the rank has written to its standard error by now."""
        return self._text(rank, 1)

    def kill(self, rank: int) -> None:
        """Kill a rank, as a crash of its host would; it does not count as failed, and its result is None.

        One that has ended is left as it is.
        """
        if rank in self.running():
            self._ranks[rank].killed = True
            self._ranks[rank].kill()

    def signal(self, rank: int, signum: int) -> None:
        """Send a signal to a rank's process, if it runs; not to what it started. SIGSTOP makes it hang."""
        self._ranks[rank].signal(signum)

    def wait(self) -> list[Any]:
        """Wait for the end of all, and return their results by rank: what the function returned; what a script wrote to
        its standard output, as text; None for a rank that `kill` killed. Waiting again gives the same.

        When a rank fails the others have 2 seconds to end too; then, and at the timeout, what still runs is killed. It
        blocks: in a coroutine `await` this object instead. Who is cancelled there leaves them running.

        Raises:
            RankFailedError: a rank failed, or did not end in time.
        """
        with self._changed:
            self._changed.wait_for(self._is_decided, max(0.0, self._deadline - time.monotonic()))
            how = f"did not end within {self._timeout:g} s"
            if self._is_decided() and not self._changed.wait_for(self._all_ended, SETTLE_SECONDS):
                how = f"still ran {SETTLE_SECONDS:g} s after that, and was killed"
            self._stopped |= {rank: how for rank in range(self.world_size) if rank not in self._ended}
        self.close()
        failed = self._failures()
        if failed:
            chosen = min(failed, key=self._blame)
            raise RankFailedError(chosen, failed[chosen], self.stderr(chosen), failed)
        return [self._result(rank) for rank in range(self.world_size)]

    def __await__(self) -> Generator[Any, Any, list[Any]]:
        return anyio.to_thread.run_sync(self.wait, abandon_on_cancel=True).__await__()

    def close(self) -> None:
        """Kill what still runs, with all that it started, and wait for its end. What was written can still be read."""
        for rank in self._ranks:
            rank.kill()
        for thread in self._threads:
            thread.join()
        with self._changed:
            if self._texts is None:
                self._texts = {n: (_read(r.stdout), _read(r.stderr)) for n, r in enumerate(self._ranks)}
                for rank in self._ranks:
                    rank.forget()

    # ------------------------------------------------------------------------------------------------ inside

    def _attend(self, number: int) -> None:
        rank = self._ranks[number]
        rank.wait()
        with self._changed:
            if self._has_errand and not rank.killed and rank.returncode in (0, 1):
                self._outcomes[number] = read_outcome(_read_bytes(rank.outcome))
            self._ended.append(number)
            self._changed.notify_all()

    def _all_ended(self) -> bool:
        return len(self._ended) == self.world_size

    def _is_decided(self) -> bool:
        return self._all_ended() or any(self._has_failed(rank) for rank in self._ended)

    def _has_failed(self, number: int) -> bool:
        rank = self._ranks[number]
        if rank.killed:
            return False
        return rank.returncode != 0 or (self._has_errand and self._outcomes.get(number) is None)

    def _failures(self) -> dict[int, str]:
        """The ranks that failed, and how."""
        return {n: self._how(n) for n in range(self.world_size) if self._has_failed(n)}

    def _how(self, number: int) -> str:
        returncode = self._ranks[number].returncode
        assert returncode is not None
        if number in self._stopped:
            return self._stopped[number]
        if returncode == 0:
            return "exited before its function returned"
        return describe_end(returncode)

    def _blame(self, number: int) -> tuple[bool, bool, int]:
        """Those that failed because of another one come last; of the rest, the first that ended comes first."""
        outcome = self._outcomes.get(number)
        is_echo = outcome is not None and outcome.is_echo
        return number in self._stopped, is_echo, self._ended.index(number)

    def _result(self, number: int) -> Any:
        if self._ranks[number].killed:
            return None
        outcome = self._outcomes.get(number)
        return outcome.value if outcome is not None else self.stdout(number)

    def _text(self, number: int, which: int) -> str:
        with self._changed:
            if self._texts is not None:
                return self._texts[number][which]
            rank = self._ranks[number]
            return _read(rank.stderr if which else rank.stdout)


class ProcessMaker:
    """Starts ranks as real processes: the value of the fixture `aiopg_processes`.

    ::

        def work(group: StatelessGroup, factor: int) -> int:
            return group.all_reduce(group.rank * factor)

        def test_the_sum(aiopg_processes):
            assert aiopg_processes(3, work, 10).wait() == [30, 30, 30]

    `close` kills what still runs; the fixture calls it. Where this process ends without that, killed maybe, those that
    run a function end too, and scripts go on.

    Args:
        url: the store that their groups meet at, `aiopg://host:port`, `redis://host:port`.
        label: what the names of the groups begin with.
        timeout: seconds for forming a group, and the default timeout of its calls (AIOPG_TIMEOUT).
    """

    def __init__(self, url: str, label: str = "processes", timeout: float = 30.0) -> None:
        beside = urlsplit(url).scheme.partition("+")[0] in OTHER_ENGINES
        self._url = url if beside else str(Address.parse(url))
        self._address = Address() if beside else Address.parse(url)
        self._label = label
        self._timeout = timeout
        self.made: list[RankProcesses] = []
        """All that were started, in that order."""

    def __repr__(self) -> str:
        return f"<ProcessMaker at {self._url}, made={len(self.made)}>"

    def __call__(self, world_size: int, target: Target, *arguments: Any, timeout: float | None = None) -> RankProcesses:
        """Start `world_size` processes with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT,
        AIOPG_URL, AIOPG_GROUP and AIOPG_TIMEOUT in their environments, and do not wait for them.

        Args:
            world_size: how many.
            target: a function at the top of a module, which is called as `target(group, *arguments)` in each: a
                coroutine function with an `AsyncStatelessGroup`, another one with a `StatelessGroup`, joined, and left
                when it returns. Or the path of a Python script, which is run with the arguments.
            arguments: for a function what `MsgpackCodec` can send, as its result must be; for a script texts.
            timeout: seconds after which what still runs is killed by `wait`; twice that of the groups if not given, so
                that a rank that waits in vain has time to say for whom.

        Raises:
            ValueError: the function is not at the top of a module, or world_size is below 1.
            CodecError: an argument cannot be sent.
            OSError: a process cannot be started, or there is no such script.
        """
        if world_size < 1:
            raise ValueError(f"world_size must be at least 1, not {world_size}")
        group = fresh_name(f"{self._label}-{len(self.made) + 1}")
        start = partial(
            RankProcesses,
            environments=[self._environment(rank, world_size, group) for rank in range(world_size)],
            group=group,
            timeout=2 * self._timeout if timeout is None else timeout,
        )
        if isinstance(target, str | os.PathLike):
            script = os.path.abspath(target)
            os.stat(script)  # raises if there is none
            made = start([sys.executable, script, *map(str, arguments)])
        else:
            made = start(module_command("aiopg.testing._child"), errand=write_errand(target, arguments))
        self.made.append(made)
        return made

    def close(self) -> None:
        """Kill all that still runs. Twice is fine."""
        for made in self.made:
            made.close()

    def _environment(self, rank: int, world_size: int, group: str) -> dict[str, str]:
        return (
            {"PYTHONUNBUFFERED": "1"}
            | child_environment()
            | {
                "RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(world_size),
                "MASTER_ADDR": self._address.host,
                "MASTER_PORT": str(self._address.port),
                "AIOPG_URL": self._url,
                "AIOPG_GROUP": group,
                "AIOPG_TIMEOUT": f"{self._timeout:g}",
            }
        )


def _file() -> IO[bytes]:
    return tempfile.TemporaryFile()  # closed by `_Rank.forget`


def _read_bytes(file: IO[bytes]) -> bytes:
    """All that is in the file, whose position it shares with the process that writes it."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _read(file: IO[bytes]) -> str:
    return _read_bytes(file).decode(errors="replace")
