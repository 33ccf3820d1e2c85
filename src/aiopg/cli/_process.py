"""One rank's process, with its output and whatever it starts in turn."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Self

import anyio

__all__ = ["RankProcess", "exit_code"]


class RankProcess:
    """A process in a session of its own, so that signals reach all that it started and no terminal's Ctrl-C does.

    Made by `start`; `end` must be awaited, whatever happens.

    Attributes:
        stdout, stderr: read ends of its output. (Not asyncio's own pipes: with those, some versions of Python take a
            process for alive until a grandchild has closed its output too.)
    """

    def __init__(self, process: asyncio.subprocess.Process, stdout: int, stderr: int) -> None:
        self._process = process
        self.stdout = stdout
        self.stderr = stderr

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Start `command`. It reads nothing: ranks cannot share a keyboard.

        Raises `OSError` if the command cannot be started.
        """
        stdout, stdout_child = os.pipe()
        stderr, stderr_child = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout_child,
                stderr=stderr_child,
                env=dict(environment),
                start_new_session=True,
            )
        except BaseException:
            os.close(stdout)
            os.close(stderr)
            raise
        finally:
            os.close(stdout_child)
            os.close(stderr_child)
        return cls(process, stdout, stderr)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Its return code, as `subprocess` gives it: -N where signal N ended it; see `exit_code`."""
        return await self._process.wait()

    def signal(self, signum: int) -> None:
        """Send a signal to the process and to what it started."""
        try:
            os.killpg(self._process.pid, signum)
        except (ProcessLookupError, PermissionError):
            pass  # gone; macOS says "permission" where only a zombie is left

    async def end(self) -> None:
        """Kill what is left and let go of its output."""
        self.signal(signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await self._process.wait()
        os.close(self.stdout)
        os.close(self.stderr)


def exit_code(returncode: int) -> int:
    """A return code of `subprocess` as a shell tells it."""
    return returncode if returncode >= 0 else 128 - returncode
