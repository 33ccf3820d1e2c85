"""Under torchrun, whose agent holds the port: real torchrun, and an agent's store without one."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, FencedError, GroupTimeoutError, RankConflictError, StoreUnreachableError
from aiopg.group import _agent_store
from tests.system.ranks import ROOT, SLOW, free_port

from .conftest import all_ranks

HOST = "127.0.0.1"

ENDS_SECONDS = 90
"""torchrun imports torch for itself and for each life of each worker: 12 s where nothing else runs."""

pytestmark = pytest.mark.timeout(ENDS_SECONDS + 60)


def torchrun(directory: Path, what: str, count: int, *options: str, agents: int = 1) -> dict[int, Any]:
    """What each rank came to, of `count` that so many torchruns start."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={agents}",
        f"--nproc-per-node={count // agents}",
    ]
    worker = ["-m", "tests.group.torchrun_worker", what, str(directory)]
    running = [
        subprocess.Popen([*command, *options, *worker], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(agents)
    ]
    deadline = time.monotonic() + ENDS_SECONDS
    try:
        for process in running:
            errors = process.communicate(timeout=deadline - time.monotonic())[1]
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.terminate()  # and then it ends its workers
        for process in running:
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()  # what is left of it would be taken for a child of the tests that come
                process.communicate()
    return {rank: json.loads((directory / f"result-{rank}").read_text()) for rank in range(count)}


def test_groups_form_under_torchrun(tmp_path: Path) -> None:
    """from_env(), create() at torchrun's very port, the blocking group and torch's own process group beside them."""
    results = torchrun(tmp_path, "meet", 4, f"--master-port={free_port()}")
    ranks = list(range(4))
    told = [ranks, [-rank for rank in ranks], ranks, ranks]
    assert results == {rank: {"told": told, "agent": "True"} for rank in ranks}


@pytest.mark.parametrize("agents", [1, 2])
def test_workers_that_are_started_again_meet_again(tmp_path: Path, agents: int) -> None:
    """And only each other, also where those of the new life look before their rank 0 has said anything.

    This is torchrun's other rendezvous ("c10d"), where the port is drawn by an agent.
    """
    where = f"--rdzv-endpoint={HOST}:{free_port()}"
    options = ("--rdzv-backend=c10d", where, f"--local-addr={HOST}", "--max-restarts=2")
    results = torchrun(tmp_path, "restart", 2, *options, agents=agents)
    assert results == {rank: {"lives": [1, 1]} for rank in range(2)}


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a TCPStore such as torchrun's agent keeps."""
    import torch.distributed  # here, so that tests of other files run without it

    store = torch.distributed.TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=10))
    say_where(monkeypatch, store.port)
    yield store.port
    del store


def say_where(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """As torchrun says it to its workers."""
    for name, value in {"USE_AGENT_STORE": "True", "RESTART_COUNT": "0", "RUN_ID": "none"}.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    monkeypatch.setenv("MASTER_ADDR", HOST)
    monkeypatch.setenv("MASTER_PORT", str(port))


async def create(port: int, rank: int, world_size: int = 2, **options: Any) -> AsyncStatelessGroup:
    """As a worker would."""
    return await AsyncStatelessGroup.create(HOST, port, rank, world_size, **{"store_timeout": 20.0, **options})


async def form(port: int, world_size: int = 2, **options: Any) -> list[AsyncStatelessGroup]:
    """All ranks."""
    return await asyncio.gather(*(create(port, rank, world_size, **options) for rank in range(world_size)))


async def close(*groups: AsyncStatelessGroup) -> None:
    """All at once."""
    await asyncio.gather(*(group.close() for group in groups))


async def publish(port: int, listens_on: int) -> None:
    """What a rank 0 that is no more left behind."""
    with _agent_store.AgentStore(HOST, port, "default") as store:
        await store.publish(listens_on)


class Pulse:
    """How long the event loop stood still at most."""

    async def __aenter__(self) -> Pulse:
        self.longest = 0.0
        self._beat = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._beat.cancel()
        await asyncio.wait([self._beat])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(0.001)
            last, before = loop.time(), last
            self.longest = max(self.longest, last - before)


async def test_a_group_is_used_as_ever(agent: int) -> None:
    """It has no listening socket that its user has not given, and where it is is no port of the agent."""
    first, second = await form(agent)
    assert await all_ranks([first, second], lambda group: group.all_gather(group.rank)) == [[0, 1]] * 2
    assert first.socket is None
    assert not first.store.url.endswith(f":{agent}")
    await close(first, second)


async def test_a_deadline_is_kept_and_nothing_stands_still(agent: int) -> None:
    """Where rank 0 says nothing, the others are told that it is missing; the loop runs on meanwhile."""
    began = time.monotonic()
    async with Pulse() as pulse:
        with pytest.raises(GroupTimeoutError) as caught:
            await create(agent, 1, store_timeout=1.5)
    assert 1.498 <= time.monotonic() - began < 1.5 + 0.1 * SLOW
    assert (caught.value.op, caught.value.missing) == ("join", (0,))
    assert pulse.longest < 0.1 * SLOW


async def test_an_old_publication_misleads_nobody(agent: int) -> None:
    """Neither of a port that nobody listens on, nor of one that something else has by now."""
    with socket.create_server((HOST, 0)) as other:
        await publish(agent, other.getsockname()[1])
        await publish(agent, free_port())
        rank_1 = asyncio.create_task(create(agent, 1))
        await publish(agent, other.getsockname()[1])
        await asyncio.sleep(0.1)
        await close(await create(agent, 0), await rank_1)


async def test_a_name_is_used_again(agent: int) -> None:
    """Each time at a store of its own, which ends with it."""
    for _ in range(3):
        await close(*await form(agent))


async def test_cancelling_takes_it_back(agent: int) -> None:
    """At whichever rank, and the next attempt finds nothing in its way."""
    for rank in (0, 1):
        attempt = asyncio.create_task(create(agent, rank))
        await asyncio.sleep(0.3)
        attempt.cancel()
        await asyncio.wait([attempt])
        assert attempt.cancelled()
    await close(*await form(agent))
    await no_thread_is_left()


async def no_thread_is_left() -> None:
    """torch cannot be told to stop asking: each thread ends when that has."""
    for thread in threading.enumerate():
        if thread.name.startswith("aiopg torchrun"):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


async def test_two_of_rank_0_are_a_conflict(agent: int) -> None:
    """The one that was there first is told of the other."""
    first = asyncio.create_task(create(agent, 0))
    async with asyncio.timeout(10):
        with _agent_store.AgentStore(HOST, agent, "default") as store:
            await store.newer(0)
    second = asyncio.create_task(create(agent, 0))
    with pytest.raises(RankConflictError, match="rank 0 of group 'default'"):
        await first
    await close(await create(agent, 1), await second)


async def test_rank_0_is_taken_over(agent: int) -> None:
    """takeover=True goes where the member is that is to be put out, and the group forms anew there."""
    hanging, peer = await form(agent)
    waits = asyncio.create_task(hanging.recv(1))
    again = asyncio.create_task(create(agent, 0, takeover=True))
    with pytest.raises(FencedError):
        await waits
    await close(hanging, peer)
    await close(await create(agent, 1), await again)


async def test_another_port_is_listened_on(agent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ever: one that is given to `create`, or AIOPG_PORT."""
    port = free_port()
    first, second = await form(port)
    assert first.store.url.endswith(f":{port}")
    await close(first, second)
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "AIOPG_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    alone = await AsyncStatelessGroup.from_env()
    assert alone.store.url.endswith(f":{port}")
    await close(alone)


async def test_loopback_for_ranks_of_other_agents_is_warned_of(
    agent: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They may be on other hosts, and would look for rank 0 on their own."""
    await close(*await form(agent))
    assert caplog.text == ""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    await close(*await form(agent))
    assert "--local-addr" in caplog.text


async def test_an_agent_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that said that it is."""
    monkeypatch.setattr(_agent_store, "ANSWER_SECONDS", 0.5)
    port = free_port()
    say_where(monkeypatch, port)
    with pytest.raises(StoreUnreachableError, match=r"torchrun's own store.*TORCHELASTIC_USE_AGENT_STORE.*unset"):
        await create(port, 1)


async def test_an_agent_that_does_not_answer_breaks_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long torch waits."""
    monkeypatch.setattr(_agent_store, "ANSWER_SECONDS", 2.0)
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        say_where(monkeypatch, port)
        began = time.monotonic()
        with pytest.raises(GroupTimeoutError):
            await create(port, 0, store_timeout=0.5)
        assert time.monotonic() - began < 0.5 + 0.1 * SLOW
    await no_thread_is_left()


async def test_without_torch_it_is_said_how_to_get_it(agent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to do without."""
    monkeypatch.setitem(sys.modules, "torch.distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'aiopg-group\[torch\]'.*AIOPG_PORT"):
        await create(agent, 1)
