"""`aiopg.testing.check_store`: passes on every store of ours, and says of a store that breaks a rule which one."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aiopg import Limits, StoreServer
from aiopg.stores import StoreLink, open_link
from aiopg.testing import CheckResult, LocalStore, NotConformingError, StoreReport, Verdict, check_store
from aiopg.testing.conformance._checks import all_checks

from .around import LinkAround
from .broken import PLANTED, Bare, Planted, tidy_up
from .dict_store import DictLink, World

Opener = Callable[[], Awaitable[StoreLink]]

LATE = 0.1 * float(os.environ.get("AIOPG_TEST_SLOW", "1"))
"""Promise 3: a call ends within 100 ms of its deadline; on a busy host AIOPG_TEST_SLOW stretches it."""

_names = itertools.count()


def opener(url: str) -> Opener:
    """Opens links to that store."""

    async def open_one() -> StoreLink:
        return await open_link(url, timeout=20.0)

    return open_one


def around_memory(kind: type[LinkAround]) -> Opener:
    """Links of this kind around those to a new store in memory."""
    inner = opener(f"memory://conformance-{next(_names)}")

    async def open_one() -> StoreLink:
        return kind(await inner())

    return open_one


def nothing_is_left() -> None:
    """No task but the test's."""
    assert asyncio.all_tasks() == {asyncio.current_task()}


# ------------------------------------------------------------------------------------------- stores that are whole


async def test_memory_keeps_every_rule() -> None:
    """memory://; what is not asked is named."""
    report = await check_store(opener(f"memory://conformance-{next(_names)}"), late=LATE)
    report.raise_failed()
    assert {result.name for result in report.not_asked} == {
        "limits.payload",
        "limits.parts",
        "limits.value",
        "links.no_keys",
    }
    assert len(report.results) == len(all_checks())
    nothing_is_left()


async def test_our_server_keeps_every_rule(tmp_path: Path) -> None:
    """Over TCP on asyncio's loop and on a unix socket on uvloop's. All is asked: its payloads may be tried."""
    unix = not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    async with StoreServer(
        path=str(tmp_path / "store") if unix else None, limits=Limits(payload_bytes=2**20)
    ) as server:
        report = await check_store(opener(server.address), late=LATE)
        report.raise_failed()
        assert [result.name for result in report.not_asked] == ["links.no_keys"]
        assert (report.url, report.ok) == (server.address, True)
        await server.wait_vacated()
        described: Any = server.describe()
        assert (described["groups"], described["keys"]["keys"], described["keys"]["queues"]) == ([], 0, 0)


async def test_a_store_with_another_engine_keeps_every_rule() -> None:
    """The checks ask for the contract, and not for the way in which aiopg's own engine keeps it."""
    world = World()

    async def open_one() -> StoreLink:
        return DictLink(world)

    report = await check_store(open_one, late=LATE)
    report.raise_failed()
    assert len(report.passed) > 60
    assert world.lives == {}


async def test_what_a_store_is_without_is_not_asked_and_is_listed() -> None:
    """No keys, takeover, enlist, reform: the rest is asked, and the report says what was not, and why."""
    only = {"elastic", "joining", "limits", "links", "messages", "queues"}
    report = await check_store(around_memory(Bare), only=only)
    report.raise_failed()
    asked_for = [check for check in all_checks() if check.name.partition(".")[0] in only]
    about_keys = {check.name for check in asked_for if check.keys}
    optional = {check.name for check in asked_for if check.optional}
    assert (len(about_keys), len(optional)) == (8, 9)
    not_asked = {result.name: result.reason for result in report.not_asked}
    assert set(not_asked) == about_keys | optional | {"limits.payload", "limits.parts"}
    assert not_asked["queues.fifo"] == "the store has no keys (Capabilities.keys)"
    assert not_asked["joining.takeover"] == "the store does not offer takeover (NotImplementedError)"
    assert "not asked queues.fifo: queues are first in, first out" in str(report)


# ------------------------------------------------------------------------------------------ stores that are broken


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.link.__name__)
async def test_a_broken_rule_is_found_by_the_check_of_that_rule(planted: Planted) -> None:
    """Each of these stores is the whole one but for one rule. Nothing of a check that fails is left behind."""
    report = await check_store(around_memory(planted.link), only=planted.found_by, patience=planted.patience)
    await tidy_up()
    assert {result.name for result in report.failed} == set(planted.found_by), report
    for result in report.failed:
        assert result.reason
    with pytest.raises(NotConformingError, match=planted.found_by[0]):
        report.raise_failed()


async def test_a_failure_does_not_stop_the_others_and_leaves_nothing() -> None:
    """All checks of a kind run; the tasks, links and members of the one that failed are gone."""
    planted = next(one for one in PLANTED if one.link.__name__ == "HangsWhenLost")
    links: list[StoreLink] = []
    open_one = around_memory(planted.link)

    async def counted() -> StoreLink:
        links.append(await open_one())
        return links[-1]

    keeps = await open_one()
    report = await check_store(counted, only=["departures"], patience=0.5)
    assert len(report.failed) < len(report.results)
    assert "did not end within 0.5 s; it waits at departures.py" in report.failed[0].reason
    assert "departures.py" in report.failed[0].traceback
    described = await keeps.status()
    assert (described["groups"], described["members"]) == ([], 0)
    await keeps.close()
    nothing_is_left()
    assert len(links) > 10


async def test_a_cancelled_run_leaves_nothing() -> None:
    """Whatever it was at."""
    open_one = opener(f"memory://conformance-{next(_names)}")
    keeps = await open_one()
    for count in range(0, 300, 23):
        run = asyncio.ensure_future(check_store(open_one, only=["messages", "queues"]))
        for _ in range(count):
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    described = await keeps.status()
    assert (described["groups"], described["members"]) == ([], 0)
    await keeps.close()
    nothing_is_left()


# ----------------------------------------------------------------------------------------------- reports and words


async def test_a_report_says_what_failed_where_and_against_which_rule() -> None:
    """For people and for programs; it can be pickled."""
    only = ["messages.cancelled_take", "messages.fifo"]
    report = await check_store(around_memory(PLANTED[0].link), only=only, patience=0.5)
    assert [type(result) for result in report.results] == [CheckResult] * 2
    assert [result.name for result in report.passed] == ["messages.fifo"]
    (failed,) = report.failed
    assert (failed.name, failed.verdict) == ("messages.cancelled_take", Verdict.FAILED)
    assert failed.rule.startswith("a cancelled take loses nothing")
    assert "File" in failed.traceback
    text = str(report)
    for part in (failed.rule, failed.reason, "passed    messages.fifo", "1 passed, 1 failed, 0 not asked"):
        assert part in text
    copied = pickle.loads(pickle.dumps(NotConformingError(report)))
    assert str(copied) == str(NotConformingError(report))
    assert isinstance(copied.report, StoreReport)


async def test_wrong_arguments_are_said_at_once() -> None:
    """With what there is."""
    open_one = opener("memory://conformance")
    with pytest.raises(ValueError, match=r"no check 'message'; there are .*messages\.fifo"):
        await check_store(open_one, only=["message"])
    with pytest.raises(TypeError, match="collection of names"):
        await check_store(open_one, only="messages")
    for name in ("patience", "late"):
        with pytest.raises(ValueError, match=f"{name} must be over 0 seconds, not 0"):
            await check_store(open_one, **{name: 0})  # type: ignore[arg-type]


def test_every_check_has_a_rule_of_its_own() -> None:
    """In words."""
    rules = [check.rule for check in all_checks()]
    assert len(set(rules)) == len(rules) > 100
    assert all(len(rule.split()) > 4 for rule in rules)


# ------------------------------------------------------------------------------------------------ the command line


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m aiopg.testing.conformance`."""
    command = [sys.executable, "-W", "error", "-m", "aiopg.testing.conformance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_the_module_prints_the_report_and_exits_by_it() -> None:
    """0 where no rule is broken, 1 otherwise: here that a call ends within a microsecond of its deadline."""
    with LocalStore() as store:
        ran = run_module(store.url, "--only", "messages", "--only", "links.status")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "passed    messages.fifo: " in ran.stdout
        assert f"{store.url}: 9 passed, 0 failed, 0 not asked" in ran.stdout
        ran = run_module(store.url, "--only", "deadlines.kept", "--late", "1e-6")
        assert ran.returncode == 1
        assert "failed    deadlines.kept" in ran.stdout


def test_the_module_says_what_is_wrong_with_its_arguments() -> None:
    """Exit code 2; no abbreviated options."""
    for arguments, said in (
        ((), "say which store"),
        (("redis-like://x",), "begins with one of"),
        (("aiopg://127.0.0.1:1", "--patience", "0.2"), "127.0.0.1:1"),
        (("memory://x", "--only", "nothing"), "no check 'nothing'"),
        (("memory://x", "--pat", "3"), "unrecognized arguments"),
    ):
        ran = run_module(*arguments)
        assert (ran.returncode, ran.stdout) == (2, ""), ran
        assert said in ran.stderr
    assert "rounds.mismatch: different operations" in run_module("--list").stdout
