"""What a server tells of what happened: to a link, to who runs it, and after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiopg import AsyncStatelessGroup, AuthenticationError, StoreServer, Token
from aiopg._core.recorder import HAPPENINGS_KEPT
from aiopg.stores import StoreLink, open_link

TOKEN, OTHER = "a token of more than 16 bytes", "another one of more than 16 bytes"


async def form(link: StoreLink | str, size: int = 2, group: str = "g", **options: str) -> list[AsyncStatelessGroup]:
    """All ranks of a group."""
    url = link if isinstance(link, str) else link.url
    joins = (
        AsyncStatelessGroup.connect(url, rank=rank, world_size=size, group=group, **options)  # type: ignore[arg-type]
        for rank in range(size)
    )
    return list(await asyncio.gather(*joins))


async def close(*groups: AsyncStatelessGroup) -> None:
    """Leave."""
    await asyncio.gather(*(group.close() for group in groups))


async def test_a_link_reads_on_and_a_server_tells_the_same() -> None:
    """From where it was; with the times of a clock that is finer than a barrier."""
    async with StoreServer() as server:
        link = await open_link(server.address)
        groups = await form(link)
        before = await link.trace()
        await asyncio.gather(*(group.barrier() for group in groups))
        after = await link.trace(before.next)
        assert [it.kind for it in after.happenings] == ["opened", "arrived", "arrived", "done"]
        assert after.happenings == server.trace(before.next).happenings == (await link.trace(-4)).happenings
        _, _, second, done = after.happenings
        assert done.at == second.at < after.now
        assert (after.now * 1e6) % 1000 or (second.at * 1e6) % 1000  # no whole milliseconds
        assert after.oldest == 1
        await close(*groups)
        await link.close()


async def test_an_away_and_a_loss_are_told() -> None:
    """With the time at which they were seen, though nobody said anything then."""
    async with StoreServer() as server:
        group, gone = await form(server.address, reconnect_grace=0.2)  # type: ignore[arg-type]
        link = gone.store.link
        (watcher,) = await form(server.address, 1, "w")
        link._client._connection._transport.abort()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            while "back" not in {it.kind for it in server.trace().happenings}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        told = {it.kind: it for it in server.trace().happenings}
        assert told["away"].rank == told["back"].rank == 1
        assert told["joined"].at < told["away"].at <= told["back"].at
        await close(group, gone, watcher)


async def test_a_member_with_a_token_for_some_groups_sees_those() -> None:
    """In a trace, and in the ages and totals of a status."""
    async with StoreServer(token=[Token(TOKEN), Token(OTHER, groups=("mine",))]) as server:
        groups = [
            *await form(server.address, group="secret", token=TOKEN),
            *await form(server.address, group="mine", token=TOKEN),
        ]
        link = await open_link(server.address, token=OTHER)
        assert {it.group for it in (await link.trace()).happenings} == {"mine"}
        with pytest.raises(AuthenticationError, match="not for group 'secret'"):
            await link.trace(group="secret")
        status = await link.status()
        assert "totals" not in status
        assert "secret" not in repr(status)
        await link.close()
        await close(*groups)


async def test_a_restart_from_a_journal_begins_with_an_empty_ring_and_works(tmp_path: Path) -> None:
    """The members come again, which is recorded, and their rounds; what went before is not known any more."""
    async with StoreServer(journal=tmp_path) as server:
        groups = await form(server.address)
        await asyncio.gather(*(group.barrier() for group in groups))
        port = int(server.address.rpartition(":")[2])
        waiting = asyncio.create_task(groups[0].barrier())
        async with asyncio.timeout(30):
            while server.describe()["rounds"] != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        before = server.trace()
        assert before.next > 6
    async with StoreServer(port=port, journal=tmp_path) as server, asyncio.timeout(30):
        await groups[1].barrier()
        await waiting
        after = server.trace()
        assert after.oldest == 1
        assert after.happenings[0].at >= before.happenings[-1].at  # time goes on
        assert [it.kind for it in after.happenings if it.op] == ["arrived", "done"]
        assert {it.kind for it in after.happenings} == {"away", "back", "arrived", "done"}
        described = server.describe()
        assert described["uptime"] < 30  # type: ignore[operator]
        await close(*groups)


async def test_the_ring_of_a_server_is_bounded() -> None:
    """However long it runs."""
    async with StoreServer() as server:
        (group,) = await form(server.address, 1)
        for _ in range(20):
            await group.barrier()
        assert server._exchange.engine._recorder.ring.maxlen == HAPPENINGS_KEPT
        await close(group)
