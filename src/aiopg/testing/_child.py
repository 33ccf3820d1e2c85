"""A process for tests: reads its errand, joins the group of its environment, calls the function, says what came of it.

The errand comes on one file descriptor and the outcome goes on another; what the function prints is its own. On a third
one nothing ever comes but its end, when the test's process is gone, killed maybe: then nobody is left to kill this one.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from aiopg.codec import MsgpackCodec
from aiopg.errors import GroupAbortedError, PeerLostError
from aiopg.group import AsyncStatelessGroup
from aiopg.sync import StatelessGroup

__all__ = ["main"]

ECHOES = (GroupAbortedError, PeerLostError)
"""Errors that say that another rank failed."""


def main(errand_fd: int, outcome_fd: int, lifeline_fd: int) -> int:
    """Do what is asked; returns the exit code."""
    threading.Thread(target=_end_with_test, args=(lifeline_fd,), name="ends with the test", daemon=True).start()
    codec = MsgpackCodec()
    try:
        with open(errand_fd, "rb") as file:
            errand: Any = codec.decode(file.read())
        outcome, code = codec.encode([_carry_out(errand), False]), 0
    except Exception as error:  # noqa: BLE001 (whatever it is, the parent process is told)
        traceback.print_exc()
        outcome, code = codec.encode([None, _is_echo(error)]), 1
    with open(outcome_fd, "wb") as file:
        file.write(outcome)
    return code


def _end_with_test(lifeline_fd: int) -> None:
    os.read(lifeline_fd, 1)
    os.killpg(0, signal.SIGKILL)  # with all that this process started: its session is its own


def _carry_out(errand: dict[str, Any]) -> Any:
    sys.path[:] = errand["path"]
    module = _find_module(errand["module"], errand["file"])
    function = getattr(module, errand["function"])
    arguments: Any = MsgpackCodec().decode(errand["arguments"])
    if not inspect.iscoroutinefunction(function):
        with StatelessGroup.from_env() as group:
            return function(group, *arguments)

    async def carry_out() -> Any:
        async with await AsyncStatelessGroup.from_env() as group:
            return await function(group, *arguments)

    return asyncio.run(carry_out())


def _is_echo(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_echo, error.exceptions))
    return isinstance(error, ECHOES)


def _find_module(name: str, file: str) -> ModuleType:
    """The module of that name if it is the one in that file; else the one in that file."""
    if name == "__main__":
        name = "__rank_main__"  # under its own name it would run as a program again
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there, and lacks another one
    else:
        if getattr(module, "__file__", None) is not None and Path(str(module.__file__)).samefile(file):
            return module
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
