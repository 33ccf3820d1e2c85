"""The command lines in deploy/ and docs/deploying.md do what the page promises.

They are started as they stand, but for paths, ports and the address to listen on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, StoreServer, Tls

from .cli.programs import Program
from .deployment import (
    CHECKS,
    COMMANDS,
    COMPOSE,
    DEPLOY,
    SECRET,
    STORE,
    TOKEN,
    WORKERS,
    container,
    here,
    worker_environments,
)
from .system.ranks import free_port


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With a token in it, and what systemd makes for a service."""
    (tmp_path / "aiopg").mkdir()
    write_token(tmp_path / "token", TOKEN)
    return tmp_path


def write_token(path: Path, token: str, mode: int = 0o440) -> None:
    path.touch(0o600)
    path.write_text(token + "\n")
    path.chmod(mode)


@contextmanager
def started(command: list[str], **environment: str) -> Iterator[Program]:
    """`aiopg` with the arguments of a command line."""
    assert Path(command[0]).name == "aiopg"
    with closing(Program(*command[1:], environment=environment)) as program:
        yield program


async def meet(url: str, **options: Any) -> None:
    """Two members form a group at a store."""

    async def member(rank: int) -> list[int]:
        group = await AsyncStatelessGroup.connect(
            url, rank=rank, world_size=2, token=TOKEN, store_timeout=20, **options
        )
        async with group:
            return await group.all_gather(rank)

    assert [*await asyncio.gather(member(0), member(1))] == [[0, 1]] * 2


# -------------------------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("name", COMMANDS)
def test_a_group_forms_at_the_store_and_it_ends_cleanly(name: str, directory: Path) -> None:
    """Each command line, with the token where it is looked for, and the journal where it is kept."""
    port = free_port()
    command = here(COMMANDS[name], directory, port)
    ssl = None
    if "--tls-cert" in command:
        with started(["aiopg", "certs", str(directory / "certs")]) as certs:
            assert certs.code() == 0
        for file in ("store.pem", "store.key"):
            shutil.copy(directory / "certs" / file, directory / file)
        ssl = Tls(ca=str(directory / "certs" / "ca.pem"))
    environment = {} if any("--token-file" in word for word in command) else {"AIOPG_TOKEN": TOKEN}
    with started(command, **environment) as store:
        assert store.line() == f"aiopg://127.0.0.1:{port}"
        asyncio.run(meet(f"aiopg://127.0.0.1:{port}", ssl=ssl))
        store.send(signal.SIGTERM)
        assert store.code() == 0
    assert any((directory / place).is_dir() for place in ("journal", "aiopg/journal"))


def test_members_notice_nothing_of_a_restart(directory: Path) -> None:
    """What the page promises of a store with a journal that is ended and started again."""
    command = here(COMMANDS["systemd"], directory, free_port())

    async def call_over_a_restart() -> list[Any]:
        with started(command) as store:
            url = store.line()
            one, other = await asyncio.gather(
                *(AsyncStatelessGroup.connect(url, rank=rank, world_size=2, token=TOKEN) for rank in range(2))
            )
            waiting = asyncio.create_task(one.all_gather("one", timeout=30))
            await other.send("it is there", 0)
            assert await one.recv(1) == "it is there"
            store.send(signal.SIGTERM)
            assert await asyncio.to_thread(store.code) == 0
        with started(command) as again:
            assert await asyncio.to_thread(again.line) == url
            async with one, other:
                return [await other.all_gather("other", timeout=30), await waiting]

    assert asyncio.run(call_over_a_restart()) == [["one", "other"]] * 2


@pytest.mark.parametrize("name", ["docker", "compose"])
def test_without_a_token_the_image_refuses_to_serve(name: str, directory: Path) -> None:
    """Where other hosts reach it; it says so before it listens."""
    command = [word.replace("127.0.0.1", "0.0.0.0") for word in here(COMMANDS[name], directory, free_port())]
    with started(command, AIOPG_TOKEN="") as store:
        code, _, said = store.finish()
        assert code == 2
        assert b"set AIOPG_TOKEN" in said


def test_the_token_that_is_in_the_file_is_refused(directory: Path) -> None:
    """So nobody serves with it."""
    write_token(directory / "token", SECRET["stringData"]["token"], 0o600)
    with started(here(COMMANDS["kubernetes"], directory, free_port())) as store:
        assert (store.code(), "16 bytes or more" in store.error_line()) == (2, True)


def test_a_token_with_the_usual_mode_of_a_secret_is_refused(directory: Path) -> None:
    """And the manifest's is not that one."""
    (directory / "token").chmod(0o644)
    with started(here(COMMANDS["kubernetes"], directory, free_port())) as store:
        assert (store.code(), "chmod 600" in store.error_line()) == (2, True)
    token, *_ = [v for v in STORE["StatefulSet"]["spec"]["template"]["spec"]["volumes"] if v["name"] == "token"]
    assert token["secret"]["defaultMode"] == 0o440
    assert not token["secret"]["defaultMode"] & stat.S_IROTH


# ------------------------------------------------------------------------------------------------- its health


def check(name: str, port: int) -> subprocess.CompletedProcess[str]:
    """Run a health check against a port."""
    command = here(CHECKS[name], DEPLOY, port)
    assert command[0] == "python"
    return subprocess.run([sys.executable, "-W", "error", *command[1:]], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("name", CHECKS)
async def test_a_store_that_answers_is_healthy(name: str) -> None:
    """It need not know the token, and leaves nothing behind."""
    async with StoreServer(token=TOKEN) as server:
        port = int(server.address.rpartition(":")[2])
        assert (await asyncio.to_thread(check, name, port)).returncode == 0
        assert server.describe()["members"] == 0


def test_where_no_store_answers_it_is_not_healthy() -> None:
    """Nobody, or somebody else; it says which."""
    assert "no store answers" in check("docker", free_port()).stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        answering = threading.Thread(target=answer_as_a_web_server, args=(other,))
        answering.start()
        seen = check("docker", other.getsockname()[1])
        answering.join()
    assert (seen.returncode, "is no store" in seen.stderr) == (1, True)


def answer_as_a_web_server(listener: socket.socket) -> None:
    """Once."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


# ------------------------------------------------------------------------------------------------- the workers


@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_the_workers_find_each_other(name: str) -> None:
    """With the variables that they are given, and the program that they are."""
    manifest = COMPOSE["services"]["worker-0"] if name == "compose" else container(WORKERS["Job"])
    program = here(manifest["entrypoint" if name == "compose" else "command"], DEPLOY, 0)[1:]
    places = worker_environments()[name]

    async def run() -> list[tuple[int | None, str]]:
        async with StoreServer(token=TOKEN) as server:
            store = {"AIOPG_URL": server.address, "AIOPG_TOKEN": TOKEN}
            workers = [
                await asyncio.create_subprocess_exec(
                    sys.executable, *program, env=os.environ | place | store, stdout=subprocess.PIPE
                )
                for place in places
            ]
            said = [(await worker.communicate())[0].decode() for worker in workers]
            return [(worker.returncode, line) for worker, line in zip(workers, said, strict=True)]

    for rank, (code, line) in enumerate(asyncio.run(run())):
        assert code == 0
        assert line.startswith(f"rank {rank} of {len(places)}: the workers are ")
