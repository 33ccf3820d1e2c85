"""The journal on a real disk: what was said to be written is there, whatever kills the server."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from aiopg._core.journal import HEADER_BYTES, Kind, RecordEncoder, file_name
from aiopg.errors import JournalCorruptError, UsageError
from aiopg.server.journal import Journal

Mode = Literal["batch", "off"]
MODES: tuple[Mode, ...] = ("batch", "off")
both_modes = pytest.mark.parametrize("mode", MODES)

LOG1, LOG2 = file_name(Kind.LOG, 1), file_name(Kind.LOG, 2)
SNAPSHOT2 = file_name(Kind.SNAPSHOT, 2)
ROOT = Path(__file__).parents[2]


# ------------------------------------------------------------------------------------------------ what is written


def body(number: int) -> bytes:
    """The record that is appended as the `number`th, of a size and content of its own."""
    chance = random.Random(number)
    return number.to_bytes(8, "big") + chance.randbytes(chance.choice((0, 3, 200, 200, 5000, 40_000)))


def count_of(journal: Journal) -> int:
    """How many records the journal stands for; each must be there, in order, as it was."""
    count = int(journal.snapshot or 0)
    for found in journal.records:
        count += 1
        assert found == body(count)
    return count


def reopened(directory: Path, mode: Mode = "off") -> tuple[int, Journal]:
    """What a new server finds; the journal is closed again."""
    journal = Journal.open(directory, fsync=mode)
    try:
        return count_of(journal), journal
    finally:
        asyncio.run(journal.close())


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
            journal.rotate([str(count).encode()])
        await asyncio.sleep(0)
        while journal.backlog > 2_000_000:
            room.clear()
            await room.wait()


def hammer_process(directory: str, mode: Mode) -> None:
    """A server that never ends, for the test that kills it."""
    journal = Journal.open(Path(directory), fsync=mode)
    asyncio.run(hammer(journal))


def start(call: str) -> subprocess.Popen[str]:
    """Another process that calls this function of this file."""
    program = f"from tests.server import test_journal; test_journal.{call}"
    command = [sys.executable, "-X", "dev", "-c", program]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", [1, 2])
@both_modes
def test_all_that_was_written_is_there_after_kill_9(tmp_path: Path, mode: Mode, seed: int) -> None:
    """A server appends and rotates without pause and is killed anywhere, again and again on the same directory."""
    chance = random.Random(seed)
    print("seed", seed)
    directory = tmp_path / "journal"
    count = epoch = None
    for _ in range(3):
        process = start(f"hammer_process({str(directory)!r}, {mode!r})")
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


# -------------------------------------------------------------------------------------------- death at every step

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
            journal.rotate([str(before + position).encode()])
        elif position != 6:
            await written(journal, position)
            await rotated(journal)
    await journal.close()


def one_life(directory: Path, mode: Mode, step: int, out: int) -> None:
    """Two servers, the second after a crash; killed at `step`. Says what was written, and by which call it died."""

    def say(line: str) -> None:
        os.write(out, f"{line}\n".encode())

    die_at(step, lambda call: say(f"died {call}"))
    asyncio.run(steps(Journal.open(directory, fsync=mode), lambda count: say(f"written {count}")))
    with (directory / LOG2).open("ab") as log:
        log.write(b"torn")
    (directory / (SNAPSHOT2 + ".unfinished")).write_bytes(b"not yet")
    asyncio.run(steps(Journal.open(directory, fsync=mode), lambda count: say(f"written {count}")))
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
        asyncio.run(steps(Journal.open(there, fsync=mode), lambda count: None))
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
    process = start(f"die_everywhere({str(tmp_path)!r}, {mode!r})")
    with process:
        assert process.stdout is not None
        lines = [line.split() for line in process.stdout]
    assert process.returncode == 0
    assert len(lines) >= 20
    assert {line[1] for line in lines} == set(STEPS)


# ----------------------------------------------------------------------------------------------------- batches


class Gate:
    """Holds up os.fdatasync of files whose name begins with a word, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
        self._open = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        real = os.fdatasync

        def fdatasync(file: int) -> None:
            if Path(os.readlink(f"/proc/self/fd/{file}")).name.startswith(word) and not self._open.is_set():
                self._loop.call_soon_threadsafe(self.reached.set)
                assert self._open.wait(20)
            real(file)

        monkeypatch.setattr(os, "fdatasync", fdatasync)

    def open(self) -> None:
        """Let all through from here on."""
        self._open.set()


async def written(journal: Journal, position: int) -> None:
    """Wait until the journal says so."""
    done = asyncio.Event()
    before = journal.on_written

    def told() -> None:
        before()
        if journal.written >= position:
            done.set()

    journal.on_written = told
    if journal.written < position:
        async with asyncio.timeout(20):
            await done.wait()
    journal.on_written = before


async def rotated(journal: Journal) -> None:
    """Wait for the end of a rotation; nobody is told of it."""
    async with asyncio.timeout(20):
        while journal.rotating:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)


@both_modes
async def test_the_records_of_one_pass_are_one_batch(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One system call writes them, and the owner is told once."""
    journal = Journal.open(tmp_path, fsync=mode)
    writes: list[int] = []
    real = os.writev

    def writev(file: int, buffers: list[bytes]) -> int:
        writes.append(len(buffers))
        return real(file, buffers)

    monkeypatch.setattr(os, "writev", writev)
    told: list[int] = []
    journal.on_written = lambda: told.append(journal.written)
    assert [journal.append((body(n),)) for n in range(1, 101)] == list(range(1, 101))
    assert (told, journal.written, writes) == ([], 0, [])
    assert journal.size - HEADER_BYTES <= journal.backlog
    await written(journal, 100)
    assert told == [100]
    assert len(writes) == 1
    assert journal.backlog == 0
    await journal.close()
    assert (await asyncio.to_thread(reopened, tmp_path))[0] == 100


@both_modes
async def test_short_writes_and_thousands_of_pieces_are_written_whole(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes 1024 buffers at once, and may take less of them than it was given."""
    chance = random.Random(7)
    real = os.write
    journal = Journal.open(tmp_path, fsync=mode)

    def writev(file: int, buffers: list[bytes]) -> int:
        assert 0 < len(buffers) <= 1024
        data = b"".join(buffers)
        return real(file, data[: chance.randint(1, len(data))])

    monkeypatch.setattr(os, "writev", writev)
    large = chance.randbytes(60_000)
    pieces = tuple(large[at : at + 11] for at in range(0, len(large), 11))
    for _ in range(3):
        journal.append(pieces)
        journal.append((b"small",))
    await journal.close()
    monkeypatch.undo()
    journal = Journal.open(tmp_path, fsync=mode)
    assert list(journal.records) == [large, b"small"] * 3
    await journal.close()


async def test_a_batch_is_told_only_when_it_is_synced_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is appended meanwhile is the next batch."""
    journal = Journal.open(tmp_path, fsync="batch")
    gate = Gate(monkeypatch, "log")
    told: list[int] = []
    journal.on_written = lambda: told.append(journal.written)
    journal.append((body(1),))
    await gate.reached.wait()
    for number in range(2, 50):
        journal.append((body(number),))
        await asyncio.sleep(0)
    assert (told, journal.written) == ([], 0)
    assert journal.backlog > 0
    gate.open()
    await written(journal, 49)
    assert told == [1, 49]
    await journal.close()


async def test_what_an_owner_raises_does_not_stop_the_journal(tmp_path: Path) -> None:
    """The loop's handler gets it; the next batch is written."""
    journal = Journal.open(tmp_path, fsync="batch")
    loop = asyncio.get_running_loop()
    seen: asyncio.Future[Exception] = loop.create_future()
    loop.set_exception_handler(lambda loop, context: seen.set_result(context["exception"]))

    def fail() -> None:
        journal.on_written = done.set
        raise ZeroDivisionError

    done = asyncio.Event()
    journal.on_written = fail
    journal.append((body(1),))
    await asyncio.sleep(0)  # the first batch is under way
    journal.append((body(2),))
    async with asyncio.timeout(20):
        assert type(await seen) is ZeroDivisionError
        await done.wait()
    assert journal.written == 2
    await journal.close()


# ---------------------------------------------------------------------------------------------------- rotation


@both_modes
async def test_appends_go_on_while_a_snapshot_is_written(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are durable before the snapshot is, in the next log; the old files stay until it is there."""
    journal = Journal.open(tmp_path, fsync=mode)
    gate = Gate(monkeypatch, "snapshot")
    for number in range(1, 11):
        journal.append((body(number),))
    journal.rotate([b"1", b"0"])
    assert journal.rotating
    assert journal.size == HEADER_BYTES
    with pytest.raises(UsageError, match="a rotation is under way"):
        journal.rotate([b"10"])
    for number in range(11, 16):
        journal.append((body(number),))
    await gate.reached.wait()
    journal.append((body(16),))
    await written(journal, 16)
    assert journal.rotating
    assert {LOG1, LOG2, SNAPSHOT2 + ".unfinished"} < set(os.listdir(tmp_path))
    gate.open()
    await rotated(journal)
    assert set(os.listdir(tmp_path)) == {LOG2, SNAPSHOT2, "journal.lock"}
    assert journal.size == (tmp_path / LOG2).stat().st_size
    await journal.close()
    journal = Journal.open(tmp_path, fsync=mode)
    assert (journal.snapshot, count_of(journal)) == (b"10", 16)
    await journal.close()


async def test_a_snapshot_is_begun_only_when_its_log_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if a batch for the old log was under way when the rotation began, and the disk is slow."""
    journal = Journal.open(tmp_path, fsync="batch")
    gate = Gate(monkeypatch, "log")
    journal.append((body(1),))
    await gate.reached.wait()
    snapshot_begun, real = threading.Event(), os.fdatasync
    seen: list[bool] = []

    def fdatasync(file: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{file}")).name
        if name == LOG1:
            snapshot_begun.wait(0.2)  # the time that a snapshot which does not wait for its log has to show itself
        elif name.startswith(SNAPSHOT2):
            seen.append((tmp_path / LOG2).exists())
            snapshot_begun.set()
        real(file)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    journal.rotate([b"1"])
    gate.open()
    await journal.close()
    assert seen
    assert all(seen)


async def test_old_files_are_deleted_only_when_the_snapshot_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between any two of these steps finds either the old or the new."""
    journal = Journal.open(tmp_path, fsync="batch")
    journal.append((body(1),))
    await written(journal, 1)
    steps: list[tuple[str, str]] = []

    def record(call: str) -> None:
        real = getattr(os, call)

        def wrapper(target: Any, *rest: Any, **options: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
            steps.append((call, Path(path).name))
            return real(target, *rest, **options)

        monkeypatch.setattr(os, call, wrapper)

    for call in ("writev", "fdatasync", "fsync", "rename", "unlink"):
        record(call)
    journal.rotate([b"1"])
    await rotated(journal)
    monkeypatch.undo()
    unfinished = SNAPSHOT2 + ".unfinished"
    assert steps == [
        ("writev", LOG1),
        ("fdatasync", LOG1),
        ("writev", LOG2),
        ("fdatasync", LOG2),
        ("fsync", tmp_path.name),
        ("fdatasync", LOG2),
        *[("writev", unfinished), ("fdatasync", unfinished)] * 3,
        ("rename", unfinished),
        ("fsync", tmp_path.name),
        ("unlink", LOG1),
    ]
    await journal.close()


@both_modes
async def test_many_rotations_leave_one_log_and_one_snapshot(tmp_path: Path, mode: Mode) -> None:
    """Nothing piles up; the position goes on counting over logs."""
    journal = Journal.open(tmp_path, fsync=mode)
    for number in range(1, 6):
        assert journal.append((body(number),)) == number
        journal.rotate([str(number).encode()])
        await rotated(journal)
    names = {file_name(Kind.LOG, 6), file_name(Kind.SNAPSHOT, 6), "journal.lock"}
    assert set(os.listdir(tmp_path)) == names
    await journal.close()
    journal = Journal.open(tmp_path, fsync=mode)
    assert count_of(journal) == 5
    assert set(os.listdir(tmp_path)) == names
    await journal.close()


# ------------------------------------------------------------------------------------------------ open and close


async def test_a_new_directory_gets_an_epoch_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    """One life of the server's state."""
    epochs = []
    for directory in (tmp_path / "a" / "b", tmp_path / "c", tmp_path / "a" / "b"):
        journal = Journal.open(directory, fsync="batch")
        assert (journal.snapshot, list(journal.records), journal.torn, journal.written) == (None, [], None, 0)
        epochs.append(journal.epoch)
        await journal.close()
    assert epochs[0] == epochs[2] != epochs[1]
    assert {len(epoch) for epoch in epochs} == {16}


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """It holds everybody's data: the directory is 0700, also if it was there, and every file 0600."""
    directory = tmp_path / "journal"
    directory.mkdir(mode=0o755)
    journal = Journal.open(directory, fsync="off")
    journal.append((body(1),))
    journal.rotate([b"1"])
    await rotated(journal)
    await journal.close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == dict.fromkeys((LOG2, SNAPSHOT2, "journal.lock"), 0o600)


async def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    """One server at a time; the lock is free again when the first has closed."""
    journal = Journal.open(tmp_path, fsync="off")
    with pytest.raises(UsageError, match=r"open in another server") as caught:
        Journal.open(tmp_path, fsync="off")
    assert str(tmp_path) in str(caught.value)
    await journal.close()
    await Journal.open(tmp_path, fsync="off").close()


def test_a_directory_of_somebody_else_s_is_left_alone(tmp_path: Path) -> None:
    """Named by mistake it gets neither files nor other permissions."""
    (tmp_path / "thesis.txt").write_text("all of it")
    tmp_path.chmod(0o755)
    with pytest.raises(UsageError, match="holds other things than a journal"):
        Journal.open(tmp_path, fsync="off")
    assert os.listdir(tmp_path) == ["thesis.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@contextmanager
def nobody() -> Iterator[None]:
    """Not root, whom no permission stops."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    """The system's own words; also where a file is in the way."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with nobody(), pytest.raises(PermissionError):
        Journal.open(closed / "journal", fsync="off")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        Journal.open(tmp_path / "file", fsync="off")
    with pytest.raises(ValueError, match="fsync must be"):
        Journal.open(tmp_path, fsync="always")  # type: ignore[arg-type]


@both_modes
async def test_a_torn_tail_is_cut_and_reported_and_the_log_goes_on(
    tmp_path: Path, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says at which offset and how many bytes; the next record takes their place."""
    journal = Journal.open(tmp_path, fsync=mode)
    journal.append((body(1),))
    journal.append((body(2),))
    await journal.close()
    log = tmp_path / LOG1
    data = log.read_bytes()
    log.write_bytes(data[:-3])
    end = HEADER_BYTES + 12 + len(body(1))
    with caplog.at_level(logging.WARNING, "aiopg.server.journal"):
        journal = Journal.open(tmp_path, fsync=mode)
    assert journal.torn == (LOG1, end, len(data) - 3 - end)
    assert f"cut a torn tail off {LOG1}, at byte {end}, {len(data) - 3 - end} bytes" in caplog.text
    assert log.stat().st_size == end
    assert count_of(journal) == 1
    journal.append((body(2),))
    await journal.close()
    assert log.read_bytes() == data


@both_modes
async def test_a_server_that_died_between_two_logs_begins_the_next(tmp_path: Path, mode: Mode) -> None:
    """The old one has its end mark; behind that nothing may be written."""
    journal = Journal.open(tmp_path, fsync=mode)
    journal.append((body(1),))
    await journal.close()
    with (tmp_path / LOG1).open("ab") as log:
        log.write(RecordEncoder(1, journal.epoch, 1).seal())
    journal = Journal.open(tmp_path, fsync=mode)
    assert count_of(journal) == 1
    journal.append((body(2),))
    await journal.close()
    assert (tmp_path / LOG2).stat().st_size == HEADER_BYTES + 12 + len(body(2))
    journal = Journal.open(tmp_path, fsync=mode)
    assert count_of(journal) == 2
    await journal.close()


async def test_a_damaged_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """The error names the file with its directory; the lock is free again."""
    journal = Journal.open(tmp_path, fsync="off")
    for number in (1, 2, 3):
        journal.append((body(number),))
    await journal.close()
    log = tmp_path / LOG1
    data = bytearray(log.read_bytes())
    data[HEADER_BYTES + 14] ^= 1
    log.write_bytes(data)
    for _ in range(2):
        with pytest.raises(JournalCorruptError) as caught:
            Journal.open(tmp_path, fsync="off")
        assert (caught.value.file, caught.value.offset) == (str(log), HEADER_BYTES)
        assert log.read_bytes() == data


async def test_records_are_those_found_at_open_also_while_more_are_written(tmp_path: Path) -> None:
    """They are read from disk when they are asked for."""
    journal = Journal.open(tmp_path, fsync="off")
    journal.append((body(1),))
    await journal.close()
    journal = Journal.open(tmp_path, fsync="off")
    journal.append((body(2),))
    await written(journal, 1)
    assert list(journal.records) == [body(1)]
    await journal.close()


@both_modes
async def test_close_writes_what_was_appended(tmp_path: Path, mode: Mode) -> None:
    """Also the rotation; then nothing more is taken. Closing twice is fine."""
    journal = Journal.open(tmp_path, fsync=mode)
    told: list[int] = []
    journal.on_written = lambda: told.append(journal.written)
    journal.append((body(1),))
    journal.rotate([b"1"])
    journal.append((body(2),))
    await asyncio.gather(journal.close(), journal.close())
    assert told == [2]
    with pytest.raises(UsageError, match="was closed"):
        journal.append((body(3),))
    with pytest.raises(UsageError, match="was closed"):
        journal.rotate([b"2"])
    journal = Journal.open(tmp_path, fsync=mode)
    assert (journal.snapshot, count_of(journal)) == (b"1", 2)
    await journal.close()


async def test_a_cancelled_close_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is not closed under the thread that writes it; the lock is free when all is written."""
    journal = Journal.open(tmp_path, fsync="batch")
    gate = Gate(monkeypatch, "log")
    journal.append((body(1),))
    closing = asyncio.create_task(journal.close())
    await gate.reached.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(UsageError, match="open in another server"):
        Journal.open(tmp_path, fsync="off")
    gate.open()
    await journal.close()
    assert journal.written == 1
    await Journal.open(tmp_path, fsync="off").close()


async def test_what_another_server_left_to_the_kernel_is_synced_at_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed, or had fsync="off"; clients are told again of what is there, and that must be durable now."""
    journal = Journal.open(tmp_path, fsync="off")
    journal.append((body(1),))
    await journal.close()
    synced: list[str] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    journal = Journal.open(tmp_path, fsync="batch")
    assert synced == [LOG1, tmp_path.name]
    await journal.close()


async def test_nothing_stays_open(tmp_path: Path) -> None:
    """No file and no thread is left of a journal that was closed, however often it rotated."""
    before, threads = os.listdir("/proc/self/fd"), threading.active_count()
    journal = rotating = Journal.open(tmp_path, fsync="batch")
    for number in range(1, 4):
        journal.append((body(number),))
        journal.rotate([str(number).encode()])
        await rotated(journal)
    await journal.close()
    journal = Journal.open(tmp_path, fsync="off")
    with pytest.raises(UsageError):
        Journal.open(tmp_path, fsync="off")
    await journal.close()
    assert os.listdir("/proc/self/fd") == before
    async with asyncio.timeout(20):
        while threading.active_count() > threads:  # noqa: ASYNC110 - threads end by themselves
            await asyncio.sleep(0.001)
    assert rotating.written == 3  # it is still held, so nothing was closed by being forgotten


# ---------------------------------------------------------------------------------------------------- failure


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows over it: what a full disk looks like (Python ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@both_modes
async def test_a_full_disk_ends_the_journal(tmp_path: Path, mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    """The owner is told once; nothing more is written or promised, and all that was promised is there."""
    journal = Journal.open(tmp_path, fsync=mode)
    failures: list[OSError] = []
    failed = asyncio.Event()

    def fail(error: OSError) -> None:
        failures.append(error)
        failed.set()

    journal.on_failed = fail
    count = 0
    with file_size_limit(300_000):
        async with asyncio.timeout(20):
            while not failed.is_set():
                count += 1
                journal.append((body(count),))
                await asyncio.sleep(0)
        promised, backlog = journal.written, journal.backlog
        size = (tmp_path / LOG1).stat().st_size
    # The disk has room again; what lies at the end of the file is not known any more.
    for _ in range(5):
        count += 1
        assert journal.append((body(count),)) == count
        journal.rotate([b"0"])
        await asyncio.sleep(0.001)
    await journal.close()
    assert (len(failures), journal.written, journal.rotating) == (1, promised, False)
    assert journal.backlog == backlog, "what is never written must not be kept"
    assert size == (tmp_path / LOG1).stat().st_size
    assert LOG2 not in os.listdir(tmp_path)
    assert "the journal cannot be written" in caplog.text
    journal = Journal.open(tmp_path, fsync=mode)
    assert 0 < promised <= count_of(journal) < count
    await journal.close()


async def test_a_snapshot_that_does_not_fit_ends_the_journal_and_loses_nothing(tmp_path: Path) -> None:
    """The logs before it are still there."""
    journal = Journal.open(tmp_path, fsync="batch")
    failures: list[OSError] = []
    journal.on_failed = failures.append
    for number in range(1, 4):
        journal.append((body(number),))
    with file_size_limit(300_000):
        journal.rotate([bytes(400_000)])
        journal.append((body(4),))
        await rotated(journal)
    await journal.close()
    assert len(failures) == 1
    assert SNAPSHOT2 + ".unfinished" in os.listdir(tmp_path)
    journal = Journal.open(tmp_path, fsync="batch")
    assert (journal.snapshot, count_of(journal)) == (None, 4)
    assert SNAPSHOT2 + ".unfinished" not in os.listdir(tmp_path)
    await journal.close()


async def test_nothing_is_told_any_more_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not of the batch that was under way when the snapshot failed."""
    loop = asyncio.get_running_loop()
    reached, failed, fail_now = asyncio.Event(), asyncio.Event(), threading.Event()

    def rename(*_: object) -> None:
        loop.call_soon_threadsafe(reached.set)
        assert fail_now.wait(20)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", rename)
    journal = Journal.open(tmp_path, fsync="batch")
    journal.on_failed = lambda error: failed.set()
    journal.append((body(1),))
    journal.rotate([b"1"])
    async with asyncio.timeout(20):
        await reached.wait()
        gate = Gate(monkeypatch, "log")
        journal.append((body(2),))
        await gate.reached.wait()
        fail_now.set()
        await failed.wait()
    gate.open()
    await journal.close()
    assert journal.written == 1


async def test_a_sync_that_fails_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may say yes without having written; so there is no next one."""
    journal = Journal.open(tmp_path, fsync="batch")
    calls: list[int] = []

    def fdatasync(file: int) -> None:
        calls.append(file)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    failed: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()
    journal.on_failed = failed.set_result
    journal.append((body(1),))
    async with asyncio.timeout(20):
        assert (await failed).errno == 5
    journal.append((body(2),))
    await journal.close()
    assert (journal.written, len(calls)) == (0, 1)
