"""Ranks that need torch and vLLM, as real processes: forked from one that has imported them, which takes seconds.

As a program it is that process: it reads a line for each run, forks its ranks, and writes a line with what became of
each. In its turn each rank is a process like any other: of its own, with threads of its own, and it ends as one does.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Forked:
    """The process that ranks of the programs in a module are forked from; it ends with the block.

    Args:
        programs: a package; the functions of its modules are the programs, "MODULE.FUNCTION".
        patience: seconds a rank may take.
    """

    def __init__(self, programs: str, patience: float = 50.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, programs, str(patience)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, world_size: int, *arguments: object) -> list[Any]:
        """What the program returned at each rank, or `None` where it was killed. It must not raise anywhere."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([program, world_size, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that ranks are forked from has ended"
        told = json.loads(line)
        errors = [f"rank {rank}: {error}" for rank, (error, _) in enumerate(told) if error]
        assert not errors, "\n".join(errors)
        return [result for _, result in told]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()  # nothing more to run


def _fork(
    program: Callable[..., Any], rank: int, world_size: int, arguments: list[Any], patience: float
) -> tuple[int, int]:
    """A rank in a process of its own: its process id, and where it will write [error, result]."""
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        return pid, reader
    os.close(reader)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    faulthandler.dump_traceback_later(patience, exit=True)
    try:
        told = [None, program(rank, world_size, *arguments)]
    except BaseException:  # noqa: BLE001 - the test raises it
        told = [traceback.format_exc(), None]
    atexit._run_exitfuncs()  # what a program that ends does
    os.write(writer, json.dumps(told).encode())
    os._exit(0)


def _read(pid: int, reader: int) -> Any:
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return json.loads(text) if text else [None if code < 0 else f"it ended with {code}", None]


def main(package: str, patience: float) -> None:
    """Fork ranks until there is nothing more to read."""
    for found in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{found.name}")
    for line in sys.stdin:
        program, world_size, arguments = json.loads(line)
        module, _, name = program.partition(".")
        function = getattr(import_module(f"{package}.{module}"), name)
        ranks = [_fork(function, rank, world_size, arguments, patience) for rank in range(world_size)]
        print(json.dumps([_read(*rank) for rank in ranks]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
