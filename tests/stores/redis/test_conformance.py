"""The store on Redis keeps every rule that `aiopg.testing.check_store` asks for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aiopg.stores import StoreLink, open_link
from aiopg.testing import check_store
from aiopg.testing.conformance._checks import all_checks

from .conftest import SLOW
from .servers import NOTHING_KEPT, Server, binaries, cluster

LATE = 0.2 * SLOW
LONG = os.environ.get("AIOPG_TEST_LONG") == "1"


def opener(url: str) -> Callable[[], Awaitable[StoreLink]]:
    """Opens links to that store."""

    async def open_one() -> StoreLink:
        return await open_link(url, timeout=20.0)

    return open_one


def these() -> list[str]:
    """Servers to check on this loop: the oldest on one, the newest on the other."""
    found = list(binaries().values())
    if LONG:
        return found
    return [found[0] if isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop) else found[-1]]


async def test_it_keeps_every_rule(tmp_path: Path) -> None:
    """As a script on Redis 6.2 over TCP, as a function on Redis 7 by a unix socket."""
    for number, binary in enumerate(these()):
        with Server(binary, tmp_path / str(number), *NOTHING_KEPT) as server:
            url = server.url if binary == binaries()["6.2"] else server.socket_url
            report = await check_store(opener(url), late=LATE)
        report.raise_failed()
        assert {result.name for result in report.not_asked} == {"links.no_keys"}
        assert len(report.results) == len(all_checks())
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_cluster_keeps_every_rule(tmp_path: Path) -> None:
    """Groups lie on whichever node, each with all that belongs to it."""
    only = None if LONG else ["joining", "spaces", "links", "departures"]
    with cluster(these()[0], tmp_path) as nodes:
        url = f"redis+cluster://127.0.0.1:{nodes[1].port},127.0.0.1:{nodes[2].port}"
        report = await check_store(opener(url), only=only, late=LATE)
        report.raise_failed()
