"""The table of docs/stores.md is what the stores say of themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiopg import StoreServer
from aiopg.stores import open_link
from aiopg.stores.base import LOSSES, Capabilities
from tests.stores.etcd.servers import EtcdServer
from tests.stores.redis.servers import Server, binaries

PAGE = Path(__file__).parents[2] / "docs" / "stores.md"
COLUMNS = ("aiopg://", "memory://", "redis://", "etcd://")


def written(value: object) -> str:
    """A field of a record as the page has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "nothing"
    return str(round(value, 3)) if isinstance(value, float) else str(value)


def table() -> dict[str, list[str]]:
    """Rows of the page's table, by the name of the field."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): cells for name, *cells in rows}


@asynccontextmanager
async def stores(place: Path) -> AsyncIterator[list[str]]:
    """One of each kind; their URLs."""
    (binary, *_) = binaries().values()
    etcd = EtcdServer(place / "etcd")
    async with StoreServer() as server:
        with Server(binary, place / "redis", "--save", "") as redis:
            etcd.start()
            try:
                yield [server.address, "memory://records", redis.url, etcd.url]
            finally:
                etcd.kill()


async def record(url: str) -> Capabilities:
    """What a store says of itself."""
    link = await open_link(url, timeout=20)
    try:
        return link.capabilities
    finally:
        await link.close()


async def test_the_page_has_the_records_of_all_stores(tmp_path: Path) -> None:
    """Every field, on every kind of store, at default settings."""
    async with stores(tmp_path) as urls:
        records = [await record(url) for url in urls]
    assert {name for one in records for name in one.survives} <= set(LOSSES)
    fields = [one.fields() for one in records]
    assert table() == {name: [written(one[name]) for one in fields] for name in fields[0]}
