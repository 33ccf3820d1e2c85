"""Blocking groups: in threads of this process, and in processes of their own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from aiopg import StatelessGroup
from tests.sync.processes import Program, form_pair, free_port, until

_names = itertools.count()


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A test ends with no thread of the library's still running."""
    before = set(threading.enumerate())
    yield
    until(lambda: not [t for t in threading.enumerate() if t not in before and t.name.startswith("aiopg")])


@pytest.fixture
def url() -> str:
    """A store in memory that no other test uses."""
    return f"memory://sync-{next(_names)}"


@pytest.fixture
def port() -> int:
    """A TCP port that is free."""
    return free_port()


@pytest.fixture
def pair(url: str, no_thread_left: None) -> Iterator[list[StatelessGroup]]:
    """Both ranks of a group, each with its own loop thread."""
    groups = form_pair(url)
    yield groups
    for group in groups:
        group.close()


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Starts programs; none outlives the test."""
    programs: list[Program] = []

    def start(source: str, *arguments: object, warnings: str = "error") -> Program:
        programs.append(Program(source, *arguments, warnings=warnings))
        return programs[-1]

    yield start
    for started in programs:
        started.kill()


@pytest.fixture
def served(program: Callable[..., Program]) -> str:
    """URL of a store in a process of its own."""
    source = """
    import asyncio
    async def main():
        async with StoreServer() as server:
            say(server.address)
            await asyncio.to_thread(sys.stdin.read)
    asyncio.run(main())
    """
    return program(source).line()
