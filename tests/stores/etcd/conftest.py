"""The etcds that the tests here run on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from aiopg import AsyncStatelessGroup
from aiopg.stores.etcd._client import EtcdClient
from aiopg.testing import GroupMaker

from .clusters import EtcdCluster
from .servers import SLOW, EtcdServer


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """A member that is a cluster by itself, one for all tests: each uses keys, or groups, of its own."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """The same for one test alone, which may do to it what it likes."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """Three members, for `cluster`."""
    cluster = EtcdCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(whole_cluster: EtcdCluster) -> Iterator[EtcdCluster]:
    """Three members that one test after the other may break: afterwards all are well again."""
    yield whole_cluster
    whole_cluster.mend()


@pytest_asyncio.fixture
async def client(etcd_server: EtcdServer) -> AsyncIterator[EtcdClient]:
    """A client of `etcd_server`."""
    async with await EtcdClient.connect([etcd_server.endpoint], timeout=10 * SLOW) as client:
        yield client


class PatientMaker(GroupMaker):
    """Makes groups whose leases last: on a busy host a process may not run for seconds, and nor may etcd."""

    async def __call__(self, world_size: int, *, url: str | None = None, **options: Any) -> list[AsyncStatelessGroup]:
        """As `GroupMaker` does."""
        return await super().__call__(world_size, url=url, **{"reconnect_grace": 30.0} | options)


@pytest_asyncio.fixture
async def make(etcd_server: EtcdServer) -> AsyncIterator[GroupMaker]:
    """Makes groups in `etcd_server`."""
    maker = PatientMaker(etcd_server.url, "etcd", timeout=30 * SLOW)
    yield maker
    await maker.close()
