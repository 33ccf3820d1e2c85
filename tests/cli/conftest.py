"""What the tests of the command line share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from aiopg.cli._main import _parser

from .programs import Program, RunAiopg, StartAiopg


@pytest.fixture
def start() -> Iterator[StartAiopg]:
    """Starts the command `aiopg`."""
    with ExitStack() as programs:
        yield lambda *arguments: programs.enter_context(closing(Program(*arguments, environment={})))


@pytest.fixture(params=["uvloop", "asyncio"])
def start_on_each_loop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartAiopg]:
    """Starts the command `aiopg`, once with uvloop and once as where that is not installed."""
    environment = {}
    if request.param == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError\n")
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with ExitStack() as programs:
        yield lambda *arguments: programs.enter_context(closing(Program(*arguments, environment=environment)))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> RunAiopg:
    """Runs the command `aiopg` in this process, on the loop of the test: for the many that are quick then."""

    async def run(*arguments: str) -> tuple[int, str, str]:
        options = _parser().parse_args(arguments)
        code = await options.command(options)
        return code, *capsys.readouterr()

    return run
