"""Ports, threads and processes for tests that use the library as a program does."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiopg import StatelessGroup, Store
from aiopg.stores import open_link

HOST = "127.0.0.1"
LONG = 30.0
"""Seconds that nothing here takes unless it is broken."""

AT_ONCE = 5.0
"""Seconds; far more than an error that comes at once takes, and far less than a store_timeout of 500."""

PRELUDE = """
import atexit, gc, os, signal, sys, threading, time
from aiopg import *

def say(*words):
    print(*words, flush=True)

def say_when_waiting(group):
    # Once a call of the group waits, from a thread: the program itself is in that call.
    def watch():
        while not any(call.op != "join" for call in group.pending()):
            time.sleep(0.005)
        # Not by print: a program that ends while this thread holds the lock of stdout is aborted by Python.
        os.write(1, b"waiting\\n")
    threading.Thread(target=watch, daemon=True).start()

"""


def free_port() -> int:
    """A TCP port that nobody listens on, below those that outgoing connections take."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port


def together(*calls: Callable[[], Any]) -> list[Any]:
    """The results of calls made at once, each in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.result(LONG) for future in futures]


def form_pair(url: str, group: str = "default") -> list[StatelessGroup]:
    """Both ranks of a group, in this process."""
    return together(
        lambda: StatelessGroup.connect(url, rank=0, world_size=2, group=group, store_timeout=LONG),
        lambda: StatelessGroup.connect(url, rank=1, world_size=2, group=group, store_timeout=LONG),
    )


def create_at_once(*arguments: Any, **options: Any) -> Any:
    """A group that is not to come about, and must say so at once."""
    began = time.monotonic()
    try:
        return StatelessGroup.create(*arguments, **{"store_timeout": 500.0, **options})
    finally:
        assert time.monotonic() - began < AT_ONCE


def await_waiting(group: StatelessGroup, op: str, count: int = 1) -> None:
    """Return when that many calls of this name wait on the group."""
    until(lambda: sum(call.op == op for call in group.pending()) >= count)


def await_status(url: str, name: str, value: object) -> None:
    """Return when the store at `url`, which may still be coming up, says that of itself."""

    async def watch() -> None:
        store = await open_link(url, timeout=LONG)
        while (await store.status())[name] != value:
            pass
        await store.close()

    asyncio.run(watch())


def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def when_waiting(store: Store, then: Callable[[], Any]) -> Any:
    """Do this once something waits for keys, which the store's `bytes` tell."""
    link = store._store.link

    def waits() -> bool:
        described: Any = store._runner.call(link.status)
        return bool(described["keys"]["bytes"])

    until(waits)
    return then()


class Program:
    """A Python program in a process of its own, which talks to the test in lines."""

    def __init__(self, source: str, *arguments: object, warnings: str = "error") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", warnings, "-c", PRELUDE + textwrap.dedent(source), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"it ended with {self.process.wait()}: {self.errors()}")
        return line.rstrip("\n")

    def go_on(self) -> None:
        """Let it pass an `input()`."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def errors(self) -> str:
        """Everything that it wrote on its standard error, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(LONG)

    def kill(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
