"""`aiopg trace`: what happened in a store, as a file that trace viewers open."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiopg import AsyncStatelessGroup, StoreServer
from tests.observe.crew import WITHIN, Crew
from tests.observe.events import check, named, slices

from .programs import Program, StartAiopg


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("crew")) as crew:
        yield crew


def test_who_is_awaited_is_seen_within_a_second(crew: Crew, tmp_path: Path) -> None:
    """Rank 5 of 8 sleeps before a barrier: its row says so, the others wait; before that, arrows from the last ones."""
    file = tmp_path / "trace.json"
    began = crew.go()
    program = Program("trace", crew.url, "-o", str(file), environment=crew.environment)
    assert program.finish() == (0, b"", b"")
    program.close()
    assert time.monotonic() - began < WITHIN
    events = check(file.read_text())
    others = {f"rank {rank}" for rank in range(8) if rank != 5}
    assert {name.partition(",")[0] for name in named(events).values()} == others | {"rank 5"}
    waiting = slices(events, "barrier 6")
    assert waiting.keys() == others
    assert {call["args"]["outcome"] for call in waiting.values()} == {"waits"}
    assert slices(events, "awaited: barrier 6").keys() == {"rank 5"}
    assert [event["ph"] for event in events].count("f") == 5 * 7
    (process,) = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert process == "group crew, incarnation 1"


async def test_it_goes_on_for_as_long_as_it_is_told(start: StartAiopg, tmp_path: Path) -> None:
    """What happens meanwhile is in the file, also where a signal ends it before its time."""
    async with StoreServer() as server:
        file = tmp_path / "trace.json"
        before = server.trace().now
        trace = start("trace", server.address, "--group", "late", "--seconds", "600", "-o", str(file))
        while not server.describe()["sessions"]:  # noqa: ASYNC110 (it is a session of another process)
            await asyncio.sleep(0.01)
        async with await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, group="late") as group:
            await group.barrier()
        async with await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, group="other") as group:
            await group.barrier()
        await asyncio.sleep(0.5)  # it asks four times a second
        trace.send(signal.SIGINT)
        assert await asyncio.to_thread(trace.finish) == (0, b"", b"")
    text = file.read_text()
    events = check(text)
    assert slices(events, "barrier 1").keys() == {"rank 0"}
    assert [event["args"]["name"] for event in events if event["name"] == "process_name"] == [
        "group late, incarnation 1"
    ]
    assert json.loads(text)["otherData"]["store_clock"] > before
    assert abs(json.loads(text)["otherData"]["began"] - time.time()) < 60


async def test_there_may_be_nothing_to_show(start: StartAiopg) -> None:
    """Of a store that has seen nothing, or not that group: a line says so, and exit code 1; 2 if it is not there."""
    async with StoreServer() as server:
        url = server.address
        code, out, err = await asyncio.to_thread(start("trace", url).finish)
        assert (code, out, err.decode()) == (1, b"", f"aiopg trace: {url} has seen nothing\n")
        async with await AsyncStatelessGroup.connect(url, rank=0, world_size=1):
            code, out, err = await asyncio.to_thread(start("trace", url, "--group", "no").finish)
            assert (code, out, err.decode()) == (1, b"", f"aiopg trace: {url} has seen nothing of that group\n")
            code, out, err = await asyncio.to_thread(start("trace", url).finish)
            assert (code, err) == (0, b"")
            check(out.decode())
    code, out, err = await asyncio.to_thread(start("trace", url, "--timeout", "0.1").finish)
    assert (code, out) == (2, b"")
    assert err.startswith(b"aiopg trace: ")
