"""The journal on a real disk: what was said to be written is there, whatever kills the server."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiopg._core import compaction
from aiopg.server.journal import Journal
from tests.server.journals import (
    LOG2,
    SNAPSHOT2,
    Mode,
    body,
    both_modes,
    count_of,
    opened,
    reopened,
    rotated,
    start,
    written,
)


async def hammer(journal: Journal) -> None:
    """Append and rotate in a tight loop for ever; print the last record that is written, each time that it grows."""
    before = count = count_of(journal)
    room = asyncio.Event()

    def told() -> None:
        try:
            print(before + journal.written, flush=True)
        except BrokenPipeError:
            os._exit(1)  # the test has ended
        room.set()

    journal.on_written = told
    while True:
        for _ in range(count % 7 + 1):
            count += 1
            journal.append((body(count)[:8], body(count)[8:]))
        if count % 300 < 7 and not journal.rotating:
            journal.rotate()
        await asyncio.sleep(0)
        while journal.backlog > 2_000_000:
            room.clear()
            await room.wait()


def hammer_process(directory: str, mode: Mode) -> None:
    """A server that never ends, for the test that kills it."""
    journal = opened(Path(directory), mode)
    asyncio.run(hammer(journal))


@pytest.mark.parametrize("seed", [1, 2])
@both_modes
def test_all_that_was_written_is_there_after_kill_9(tmp_path: Path, mode: Mode, seed: int) -> None:
    """A server appends and rotates without pause and is killed anywhere, again and again on the same directory."""
    chance = random.Random(seed)
    print("seed", seed)
    directory = tmp_path / "journal"
    count = epoch = None
    for _ in range(3):
        process = start("test_journal", f"hammer_process({str(directory)!r}, {mode!r})")
        with process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(chance.randint(1, 400))]
            process.kill()
            # A line that was cut off by the kill is no promise.
            told += [int(line) for line in process.stdout if line.endswith("\n")]
        before, (count, journal) = count or 0, reopened(directory, mode)
        assert before < told[0] <= told[-1] <= count
        assert epoch in (None, journal.epoch)
        epoch = journal.epoch
        assert journal.written == 0


# ------------------------------------------------------------------------------------------ death at every step

STEPS = ("open", "writev", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "close")


def die_at(step: int, name: Callable[[str], None]) -> None:
    """Have this process killed by its `step`th call to the system; a write is then half done."""
    left = step
    lock = threading.Lock()

    def counted(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            with lock:
                left -= 1
                if not left:
                    name(call)
                    if call == "writev":
                        data = b"".join(arguments[1])
                        os.write(arguments[0], data[: len(data) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return wrapper

    for call in STEPS:
        setattr(os, call, counted(call, getattr(os, call)))


async def steps(journal: Journal, tell: Callable[[int], None]) -> None:
    """A few batches, a rotation with records behind it in the same batch, and batches again; one after the other."""
    before = count_of(journal)
    journal.on_written = lambda: tell(before + journal.written)
    for position in range(1, 13):
        journal.append((body(before + position),))
        if position == 5:
            journal.rotate()
        elif position != 6:
            await written(journal, position)
            await rotated(journal)
    await journal.close()


def one_life(directory: Path, mode: Mode, step: int, out: int) -> None:
    """Two servers, the second after a crash; killed at `step`. Says what was written, and by which call it died."""

    def say(line: str) -> None:
        os.write(out, f"{line}\n".encode())

    die_at(step, lambda call: say(f"died {call}"))
    asyncio.run(steps(opened(directory, mode), lambda count: say(f"written {count}")))
    with (directory / LOG2).open("ab") as log:
        log.write(b"torn")
    (directory / (SNAPSHOT2 + ".unfinished")).write_bytes(b"not yet")
    compaction.ROTATE_BYTES = 100  # the second one makes a snapshot before it begins
    asyncio.run(steps(opened(directory, mode), lambda count: say(f"written {count}")))
    say("lived")


def die_everywhere(directory: str, mode: Mode) -> None:
    """One life in a directory of its own for every step there is; what the next server finds, a line for each."""
    for step in range(1, 1000):
        there = Path(directory) / str(step)
        source, sink = os.pipe()
        child = os.fork()
        if not child:
            os.close(source)
            one_life(there, mode, step, sink)
            os._exit(0)
        os.close(sink)
        with os.fdopen(source) as lines:
            said = [line.split() for line in lines]
        _, status = os.waitpid(child, 0)
        told = max((int(words[1]) for words in said if words[0] == "written"), default=0)
        found, _ = reopened(there, mode)
        asyncio.run(steps(opened(there, mode), lambda count: None))
        again, journal = reopened(there, mode)
        assert told <= found == again - 12, (step, said, found, again)
        assert journal.torn is None, (step, "the tail was cut by the one before")
        if os.WIFEXITED(status):
            assert (found, told, said[-1]) == (24, 24, ["lived"])
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        died = next(words[1] for words in said if words[0] == "died")  # another thread may have had the last word
        print(step, died, told, found, flush=True)


@both_modes
def test_a_server_that_dies_at_any_step_loses_nothing(tmp_path: Path, mode: Mode) -> None:
    """Before every call to the system, and in the middle of every write."""
    process = start("test_journal", f"die_everywhere({str(tmp_path)!r}, {mode!r})")
    with process:
        assert process.stdout is not None
        lines = [line.split() for line in process.stdout]
    assert process.returncode == 0
    assert len(lines) >= 20
    assert {line[1] for line in lines} == set(STEPS)
