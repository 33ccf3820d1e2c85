"""The tools for tests, without pytest."""

from __future__ import annotations

import asyncio
import pathlib
import sys
from typing import Any

from aiopg import AsyncStatelessGroup, StatelessGroup
from aiopg.stores import StoreLink, open_link
from aiopg.testing import (
    CheckResult,
    FaultProxy,
    GroupMaker,
    LocalStore,
    ManualClock,
    NotConformingError,
    ProcessMaker,
    RankFailedError,
    RankProcesses,
    StoreReport,
    Verdict,
    check_store,
)


def work(group: StatelessGroup) -> int:
    total: int = group.all_reduce(group.rank)
    return total


def run_processes(store: LocalStore) -> None:
    make = ProcessMaker(store.url)
    try:
        ranks: RankProcesses = make(2, work)
        results: list[Any] = ranks.wait()
        assert results == [1, 1]
        make(1, pathlib.Path("there-is-no-such-script.py"))
    except RankFailedError as error:
        sys.exit(f"{error.rank} {error.how} {error.stderr}")
    except FileNotFoundError:
        pass
    finally:
        make.close()


async def through_a_proxy(store: LocalStore) -> None:
    async with FaultProxy(store.url, seed=7) as proxy:
        make = GroupMaker(proxy.address)
        group: list[AsyncStatelessGroup] = await make(2)
        proxy.cut()
        assert await asyncio.gather(*(member.all_gather(member.rank) for member in group)) == [[0, 1]] * 2
        await make.close()


async def wait_for_an_hour(clock: ManualClock) -> None:
    member = AsyncStatelessGroup.connect("memory://alone", rank=0, world_size=2, store_timeout=3600)
    joining = asyncio.create_task(member)
    await clock.advance(3600)
    assert isinstance(joining.exception(), TimeoutError)


async def check_one(store: LocalStore) -> None:
    async def open_one() -> StoreLink:
        return await open_link(store.url)

    report: StoreReport = await check_store(open_one, only=["links"], patience=10.0, late=0.5)
    try:
        report.raise_failed()
    except NotConformingError as error:
        sys.exit(str(error.report))
    results: tuple[CheckResult, ...] = report.passed
    assert all(result.verdict is Verdict.PASSED and result.rule for result in results)


if __name__ == "__main__":
    with LocalStore() as local:
        run_processes(local)
        asyncio.run(through_a_proxy(local))
        asyncio.run(check_one(local))
    by_hand = ManualClock()
    by_hand.run(wait_for_an_hour(by_hand))
