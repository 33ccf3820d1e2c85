"""A real terminal for tests: a pane of tmux, on a server of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

__all__ = ["Pane"]

INSTALL = "apt-get install -y --no-install-recommends tmux"

START_SECONDS = 30.0

LOOK_SECONDS = 0.02
"""Between two looks at a pane: nothing tells that it has changed."""


class Pane:
    """One pane with a shell in it, as a context manager.

    Raises `FileNotFoundError` with the line that installs tmux, where that is missing.
    """

    def __init__(self, directory: Path, width: int = 80, height: int = 24, *, environment: Mapping[str, str]) -> None:
        """`directory`: for the server's socket; its path must be short."""
        program = shutil.which("tmux")
        if program is None:
            raise FileNotFoundError(f"this test needs tmux: {INSTALL}")
        self._tmux = [program, "-S", str(directory / "tmux"), "-f", os.devnull]
        self._size = ["-x", str(width), "-y", str(height)]
        self._environment = os.environ | {"LC_ALL": "C.UTF-8", "PS1": "$ ", "ENV": "", **environment}

    def __enter__(self) -> Self:
        self._run("new-session", "-d", *self._size, "exec sh")
        try:
            # What is typed before the shell is there would stand before its prompt.
            self.until(lambda line: line.strip() in ("$", "#"), START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True, timeout=10)

    def type(self, *command: str) -> None:
        """Have the shell run this."""
        self._run("send-keys", "-l", shlex.join(command))
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux' names of them."""
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Make it another size."""
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def lines(self) -> list[str]:
        """What is on it now."""
        return self._run("capture-pane", "-p").splitlines()

    def until(self, is_there: Callable[[str], object], seconds: float) -> tuple[str, float]:
        """The first line of which that is true, and the time (monotonic seconds). Raises `TimeoutError`."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.lines()
            found = next((line for line in lines if is_there(line)), None)
            now = time.monotonic()
            if found is not None:
                return found, now
            if now > deadline:
                raise TimeoutError("this is on the screen:\n" + "\n".join(lines))
            time.sleep(LOOK_SECONDS)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], env=self._environment, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout
