"""What the tests of the side port share: stores with one, as the command starts them, and members of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple, TypeAlias

import httpx
import pytest

from tests.cli.programs import Program

__all__ = ["Served", "StartServed"]


class Served(NamedTuple):
    """A store that runs, and its side port."""

    program: Program
    url: str
    http: httpx.Client
    """Knows where the side port is; follows nothing, and keeps cookies as a browser does."""

    def meet(self, members: Callable[[str], Coroutine[Any, Any, object]]) -> None:
        """Run what members do at the store, which is given its URL."""
        asyncio.run(members(self.url))


StartServed: TypeAlias = Callable[..., Served]
"""`start("--token-file", "...", environment={})`"""


@pytest.fixture
def serve() -> Iterator[StartServed]:
    """Starts `aiopg serve --http 0` with further arguments."""
    with ExitStack() as started:

        def start(*arguments: str, environment: dict[str, str] | None = None, verify: Any = True) -> Served:
            http = () if "--http" in arguments else ("--http", "0")
            program = started.enter_context(
                closing(Program("serve", *http, *arguments, environment={"AIOPG_TOKEN": ""} | (environment or {})))
            )
            url, side = program.line(), program.line()
            # The socket listens before its process is there: the first answer takes as long as that takes to start.
            client = httpx.Client(base_url=side, timeout=30, verify=verify, trust_env=False)
            return Served(program, url, started.enter_context(client))

        yield start
