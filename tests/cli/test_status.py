"""`aiopg status`, and `aiopg top --once`: what scripts and people without a terminal see."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, StoreServer, Token
from aiopg._core.messages import Join
from aiopg.stores import open_link
from tests.observe.crew import SLOW, Crew

from .programs import Program, RunAiopg, StartAiopg

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp\n\u200b"


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("crew")) as crew:
        yield crew


def aiopg(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command to its end."""
    program = Program(*arguments, environment=environment)
    try:
        code, out, err = program.finish()
    finally:
        program.close()
    return code, out.decode(), err.decode()


def test_who_is_awaited_is_seen_at_once(crew: Crew) -> None:
    """Rank 5 of 8 sleeps before a barrier: the first look names it, with the call, as text, as JSON, and in top.

    (How soon that is on a terminal is asked in tests/screens.)
    """
    crew.go()
    code, out, err = aiopg("status", crew.url, **crew.environment)
    assert (code, err) == (0, "")  # it is there, and may come
    (line,) = [line for line in out.splitlines() if "waits for" in line]
    assert "barrier number 6 (tag 0) waits for rank 5," in line
    assert line.endswith("arrived: 0-4, 6-7")
    assert "crew (incarnation 1): live, 8 ranks: 8 joined" in out
    (awaited,) = [line for line in out.splitlines() if "<- awaited" in line]
    assert awaited.split()[:2] == ["5", "joined"]
    assert " pid " in awaited
    assert "exactly once, survives the loss of connection" in out
    assert "limits: sessions 9 of 16384, groups 1 of 4096, store_bytes 0 B of 8.0 GiB" in out

    code, out, _ = aiopg("status", "--json", crew.url, **crew.environment)
    said = json.loads(out)
    (group,) = said["groups"]
    (round,) = group["rounds"]
    assert (code, round["op"], round["missing"], round["arrived"]) == (0, "barrier", [5], [0, 1, 2, 3, 4, 6, 7])
    assert 0 <= round["age"] < 60
    assert [rank["awaited"] for rank in group["ranks"]] == [rank == 5 for rank in range(8)]
    assert said["capabilities"]["engine"] == "aiopg"
    assert said["store"]["limits"]["sessions"] > 0
    assert said["hopeless"] == []

    code, out, _ = aiopg("top", "--once", crew.url, **crew.environment)
    assert "barrier number 6 (tag 0): waits for rank 5 for" in out
    assert "ooooo?oo" in out
    assert "rounds/s" in out
    assert code == 0


async def hold(url: str, rank: int, world_size: int) -> AsyncStatelessGroup:
    return await AsyncStatelessGroup.connect(url, rank=rank, world_size=world_size, group="crew", store_timeout=30)


async def test_a_call_that_waits_for_a_lost_or_absent_rank_is_code_1(run: RunAiopg) -> None:
    """For scripts: 0 while all is well, 1 where somebody waits in vain, with who it is."""

    async with StoreServer() as server:
        joining = asyncio.create_task(hold(server.address, 0, 2))
        async with asyncio.timeout(10):
            while not server.describe()["members"]:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.005)
        code, out, _ = await run("status", server.address)
        assert (code, "joining waits for rank 1" in out) == (1, True)
        other = await hold(server.address, 1, 2)
        group = await joining
        assert (await run("status", server.address))[0] == 0
        await other.close()
        code, out, _ = await run("status", server.address)
        assert (code, "1 joined, 1 left" in out) == (0, True)  # nobody waits
        await group.close()


async def test_what_strangers_name_is_shown_as_text(run: RunAiopg) -> None:
    """A group's name and a host's come from whoever connects: nothing in them steers the terminal."""
    async with StoreServer() as server:
        link: Any = await open_link(server.address)
        link._calls.submit(Join, 1, HOSTILE, 0, 2, 60.0, f"pid 1 on {HOSTILE}", False)
        for arguments in (("status",), ("status", "--json"), ("top", "--once")):
            code, out, _ = await run(*arguments, server.address)
            assert code == 1  # it waits for rank 1
            assert all(sign == "\n" or sign.isprintable() for sign in out)
            assert "\\x1b[2J" in out or "\\u001b[2J" in out
        await link.close()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("aiopg://127.0.0.1:{free}", "it did not come up in time"),
        ("nonsense://somewhere", "no store is known by"),
        ("aiopg://127.0.0.1", "no port in"),
        ("memory://mine", "is within another process"),
    ],
)
@pytest.mark.parametrize("command", ["status", "top"])
async def test_a_store_that_is_not_there_is_one_line_and_code_2(
    run: RunAiopg, command: str, url: str, complaint: str
) -> None:
    """Also where the URL makes no sense."""
    with socket.socket() as held:  # bound, not listening: nobody else can take it
        held.bind(("127.0.0.1", 0))
        url = url.format(free=held.getsockname()[1])
        code, out, err = await run(command, "--once" if command == "top" else "--json", "--timeout", "0.2", url)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"aiopg {command}: ")
    assert complaint in err


@pytest.mark.parametrize("command", ["status", "top", "trace"])
async def test_an_extra_that_is_missing_is_one_line_and_code_2(
    run: RunAiopg, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Not code 1, which says something of the store: what is to be installed for that kind of store."""
    monkeypatch.setitem(sys.modules, "redis", None)  # to import it fails
    monkeypatch.delitem(sys.modules, "aiopg.stores.redis", raising=False)
    code, out, err = await run(command, *(["--once"] if command == "top" else []), "redis://127.0.0.1:1")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("run: pip install 'aiopg-group[redis]'\n")


def test_a_store_with_a_token_shows_nothing_to_who_has_none(crew: Crew) -> None:
    """Code 2, and not a word of what is in it."""
    code, out, err = aiopg("status", crew.url)
    assert (code, out) == (2, "")
    assert "asks for a token" in err


async def test_who_has_a_token_for_some_groups_sees_those(run: RunAiopg, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of the others, neither their names nor their happenings."""
    whole, part = "the token for all groups of it", "the token for some groups of it"
    async with StoreServer(token=[whole, Token(part, ("mine/*",))]) as server:
        options = {"rank": 0, "world_size": 1, "token": whole}
        groups = [
            await AsyncStatelessGroup.connect(server.address, group=name, **options)  # type: ignore[arg-type]
            for name in ("mine/a", "yours/b")
        ]
        for group in groups:
            await group.barrier()
        monkeypatch.setenv("AIOPG_TOKEN", part)
        for arguments in (("status",), ("status", "--json"), ("top", "--once")):
            code, out, _ = await run(*arguments, server.address)
            assert (code, "mine/a" in out, "yours" in out) == (0, True, False)
        for group in groups:
            await group.close()


def test_a_token_file_lets_in(crew: Crew, tmp_path: Path) -> None:
    """The first token of the file, as `aiopg serve` takes them."""
    file = tmp_path / "token"
    file.write_text(crew.token + "\n")
    file.chmod(0o600)
    assert aiopg("status", "--token-file", str(file), crew.url)[0] == 0


def test_a_store_that_stands_still_is_code_2(start: StartAiopg) -> None:
    """After --timeout seconds, not later: a script does not hang with the store that it looks at."""
    server = start("serve")
    url = server.line()
    server.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        code, _, err = aiopg("status", "--timeout", "0.5", url)
        assert time.monotonic() - began < 10 * SLOW
    finally:
        server.send(signal.SIGCONT)
    assert code == 2
    assert err.count("\n") == 1


def test_top_wants_a_terminal_or_once(start: StartAiopg) -> None:
    """Into a pipe it says what to do instead."""
    code, out, err = aiopg("top", "aiopg://127.0.0.1:1")
    assert (code, out) == (2, "")
    assert "--once" in err
