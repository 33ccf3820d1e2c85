"""The store in etcd keeps every rule of `aiopg.stores.base` and `aiopg.stores.keys`."""

from __future__ import annotations

import asyncio

import pytest

from aiopg.stores import StoreLink, open_link
from aiopg.testing import check_store
from aiopg.testing.conformance._checks import all_checks

from .keys import ON_ASYNCIO, ON_UVLOOP, own_path
from .servers import SLOW, EtcdServer

LATE = 0.1 * SLOW
"""Promise 3; on a busy host AIOPG_TEST_SLOW stretches it."""


async def keeps_every_rule(etcd: EtcdServer, *only: str) -> None:
    """Asked in a part of etcd of its own, where nothing but numbers is left behind."""
    url = etcd.url + own_path()

    async def open_one() -> StoreLink:
        return await open_link(url, timeout=20 * SLOW, grace=30)  # on a busy host nobody may run for seconds

    report = await check_store(open_one, only=only or None, late=LATE, patience=20 * SLOW)
    report.raise_failed()
    assert {result.name for result in report.not_asked} <= {"links.no_keys"}
    assert only or len(report.results) == len(all_checks())
    assert report.url == url
    assert asyncio.all_tasks() == {asyncio.current_task()}
    link = await open_one()
    described = await link.status()
    assert (described["groups"], described["members"], described["lobbies"]) == ([], 0, [])
    await link.close()


@ON_UVLOOP
@pytest.mark.timeout(200 * SLOW)
async def test_it_keeps_every_rule(etcd_server: EtcdServer) -> None:
    """All of them are asked: its limits are small enough to be tried."""
    await keeps_every_rule(etcd_server)


@ON_ASYNCIO
@pytest.mark.timeout(100 * SLOW)
async def test_it_keeps_them_on_asyncio_s_own_loop_too(etcd_server: EtcdServer) -> None:
    """Those that have to do with the loop: deadlines, cancelling, crowds."""
    await keeps_every_rule(etcd_server, "crowds", "deadlines", "departures", "messages", "rounds", "key_sweeps")
