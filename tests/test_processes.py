"""Who a process is, and being told when it ends: with real processes."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from aiopg import processes
from aiopg.processes import ProcessIdentity, ProcessWatch, describe_end, own_identity

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfds are Linux'")

Start = Callable[[], "subprocess.Popen[bytes]"]

SAY = """
import json, os
from aiopg import processes
def say():
    print(json.dumps(processes.own_identity()), flush=True)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes that do nothing; they are gone after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def one() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.wait()


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[ProcessWatch]:
    """A watch on the test's loop."""
    watch = ProcessWatch()
    yield watch
    watch.close()


def identity_of(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    """The identity of a child that runs."""
    start_time = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    return own_identity()._replace(pid=process.pid, start_time=start_time)


def wait_for_change(process: subprocess.Popen[bytes]) -> None:
    """Wait until a child has stopped or ended, and leave its exit code where it is."""
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def open_descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def no_descriptor_free() -> Iterator[None]:
    """No file descriptor can be opened meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def said(program: str, *keep: int, under: tuple[str, ...] = ()) -> list[ProcessIdentity]:
    """The identities that a program prints with say(), once its standard output is at its end; it keeps these files."""
    command = [*under, sys.executable, "-c", f"{SAY}\n{program}"]
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=30, pass_fds=keep).stdout
    return [ProcessIdentity(*json.loads(line)) for line in out.splitlines()]


async def expect(event: asyncio.Event) -> None:
    """Wait for it; the kernel tells, so it comes soon."""
    async with asyncio.timeout(5):
        await event.wait()


async def settle() -> None:
    """Let everything that the loop was told of already take effect, what select() has to say included."""
    for _ in range(5):
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------- identities


def test_own_identity_is_that_of_this_process() -> None:
    """Plain values, the same each time."""
    own = own_identity()
    assert own.pid == os.getpid()
    assert own.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert own.pid_namespace == os.stat("/proc/self/ns/pid").st_ino
    assert own.start_time > 0
    assert own_identity() is own
    assert ProcessIdentity(*json.loads(json.dumps(own))) == own


def test_a_child_knows_itself_as_its_parent_sees_it(start: Start) -> None:
    """Both are on one host and are not the same."""
    process = start()
    [child] = said("say()")
    assert child.same_host(own_identity())
    assert child.pid not in (process.pid, os.getpid())
    assert child.start_time >= identity_of(process).start_time


def test_a_forked_child_is_another_process() -> None:
    """What the parent knew of itself is read again."""
    parent, child = said("say()\nif os.fork() == 0:\n    say(); os._exit(0)\nos.wait()")
    assert child.pid != parent.pid
    assert child.start_time >= parent.start_time
    assert child.same_host(parent)


@pytest.mark.parametrize("name", ["a) S 1 (b", "(x) (y", ") 1 2 3 4 5", "new\nline) 7"])
def test_a_commands_name_may_hold_anything(name: str) -> None:
    """Only the last parenthesis ends it."""
    rename = f"open('/proc/self/comm', 'w').write({name!r})"
    before, after = said(f"say()\n{rename}\nprocesses._read_own_identity.cache_clear()\nsay()")
    assert after == before
    stat = f"77 ({name}) S 1 77 77 0 -1 4194304 102 0 0 0 0 0 0 0 20 0 1 0 120067 3133440 410".encode()
    assert processes._parse_stat(stat) == (77, 120067)


@pytest.mark.parametrize("missing", ["self/stat", "sys/kernel/random/boot_id", "self/ns/pid"])
def test_without_proc_a_process_is_nobody(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity that matches none, itself included; nothing raises."""
    own = own_identity()
    fake_proc(tmp_path, monkeypatch)
    (tmp_path / missing).unlink()
    nobody = own_identity()
    assert nobody == (0, 0, 0, "")
    assert not nobody.same_host(nobody)
    assert not nobody.same_host(own)
    assert not own.same_host(nobody)


def test_a_proc_of_another_namespace_makes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows other ids than this process uses, so nothing that it says of an id can be believed."""
    fake_proc(tmp_path, monkeypatch)
    assert own_identity().boot_id == "boot"
    processes._read_own_identity.cache_clear()
    (tmp_path / "self/stat").write_text((tmp_path / "self/stat").read_text().replace(str(os.getpid()), "1", 1))
    assert own_identity() == (0, 0, 0, "")


def fake_proc(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have identities read from files of our own."""
    for name in ("self/ns", "sys/kernel/random"):
        (root / name).mkdir(parents=True)
    (root / "self/stat").write_text(Path("/proc/self/stat").read_text())
    (root / "self/ns/pid").write_text("")
    (root / "sys/kernel/random/boot_id").write_text("boot\n")
    monkeypatch.setattr(processes, "_PROC", root)
    fresh = functools.cache(processes._read_own_identity.__wrapped__)
    monkeypatch.setattr(processes, "_read_own_identity", fresh)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_a_process_with_another_boot_time_is_nobody() -> None:
    """Its start times look different from outside, and it would be taken for dead."""
    assert said("say()", under=("unshare", "--time", "--boottime", "1000")) == [(0, 0, 0, "")]


def test_another_boot_or_namespace_is_another_host() -> None:
    """Each alone is enough."""
    own = own_identity()
    assert own.same_host(own._replace(pid=1, start_time=1))
    assert not own.same_host(own._replace(boot_id="other"))
    assert not own.same_host(own._replace(pid_namespace=1))


# ------------------------------------------------------------------------------------------------- watching


async def test_a_killed_process_is_told(start: Start, watch: ProcessWatch) -> None:
    """Once, by the kernel, though nobody has asked for its exit code."""
    process, ended, calls = start(), asyncio.Event(), list[int]()
    watch.watch(identity_of(process), lambda: calls.append(1))
    watch.watch(identity_of(process), ended.set)
    await settle()
    assert calls == []
    process.kill()
    await expect(ended)
    process.wait()
    await settle()
    assert calls == [1]
    assert repr(watch) == "<ProcessWatch processes=0 unwatched=0>"


async def test_a_stopped_process_is_alive(start: Start, watch: ProcessWatch) -> None:
    """Stopping and going on is no end."""
    process, ended = start(), asyncio.Event()
    watch.watch(identity_of(process), ended.set)
    process.send_signal(signal.SIGSTOP)
    wait_for_change(process)
    await settle()
    assert not ended.is_set()
    process.send_signal(signal.SIGCONT)
    process.terminate()
    await expect(ended)


async def test_a_process_that_is_no_child_is_watched(watch: ProcessWatch) -> None:
    """Ranks are no children of the store."""
    hold, release = os.pipe()
    [identity] = said(f"if os.fork() == 0:\n    say(); os.close(1); os.read({hold}, 1); os._exit(0)", hold)
    os.close(hold)
    ended = asyncio.Event()
    watch.watch(identity, ended.set)
    await settle()
    assert not ended.is_set()
    os.close(release)
    await expect(ended)


async def test_a_process_that_is_gone_is_told_at_once(start: Start, watch: ProcessWatch) -> None:
    """By the loop, not before watch() returns."""
    process, ended = start(), asyncio.Event()
    identity = identity_of(process)
    process.kill()
    process.wait()
    watch.watch(identity, ended.set)
    assert not ended.is_set()
    await settle()
    assert ended.is_set()
    assert watch.unwatched == 0


async def test_a_zombie_has_ended(start: Start, watch: ProcessWatch) -> None:
    """Also when it was one before it was watched."""
    process, ended = start(), asyncio.Event()
    identity = identity_of(process)
    process.kill()
    wait_for_change(process)
    watch.watch(identity, ended.set)
    await expect(ended)


async def test_a_process_id_that_is_used_again_is_told_at_once(start: Start, watch: ProcessWatch) -> None:
    """Another start time is another process; no descriptor is left behind."""
    identity, ended = identity_of(start()), asyncio.Event()
    before = open_descriptors()
    watch.watch(identity._replace(start_time=identity.start_time - 1), ended.set)
    assert not ended.is_set()
    await settle()
    assert ended.is_set()
    assert open_descriptors() == before


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**70])
async def test_a_process_id_that_cannot_be_has_ended(pid: int, watch: ProcessWatch) -> None:
    """A stranger may claim anything."""
    ended = asyncio.Event()
    watch.watch(own_identity()._replace(pid=pid), ended.set)
    await settle()
    assert ended.is_set()


async def test_a_process_of_another_host_is_never_told(start: Start, watch: ProcessWatch) -> None:
    """Its process id says nothing here."""
    identity, ended = identity_of(start()), asyncio.Event()
    before = open_descriptors()
    handle = watch.watch(identity._replace(boot_id="other", start_time=1), ended.set)
    assert open_descriptors() == before
    await settle()
    assert not ended.is_set()
    assert watch.unwatched == 0
    handle.cancel()


async def test_watches_on_one_process_share_one_descriptor(start: Start, watch: ProcessWatch) -> None:
    """A thousand sessions of one process cost one; all are told, in the order of asking."""
    process, ended = start(), asyncio.Event()
    identity, told = identity_of(process), list[int]()
    before = open_descriptors()
    for number in range(1000):
        watch.watch(ProcessIdentity(*identity), lambda number=number: told.append(number))  # type: ignore[misc]
    watch.watch(identity, ended.set)
    assert open_descriptors() == before + 1
    process.kill()
    await expect(ended)
    assert told == list(range(1000))
    assert open_descriptors() == before


async def test_a_callback_that_raises_does_not_keep_the_others_from_being_told(
    start: Start, watch: ProcessWatch
) -> None:
    """The loop is told of the error."""
    process, ended, errors = start(), asyncio.Event(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    error = ZeroDivisionError("mine")

    def fail() -> None:
        raise error

    watch.watch(identity_of(process), fail)
    watch.watch(identity_of(process), ended.set)
    process.kill()
    await expect(ended)
    assert errors == [error]


async def test_a_cancelled_watch_is_not_told(start: Start, watch: ProcessWatch) -> None:
    """The others on the same process are; cancelling twice, or afterwards, is fine."""
    process, first, second = start(), asyncio.Event(), asyncio.Event()
    handle = watch.watch(identity_of(process), first.set)
    other = watch.watch(identity_of(process), second.set)
    handle.cancel()
    handle.cancel()
    process.kill()
    await expect(second)
    assert not first.is_set()
    other.cancel()


async def test_a_watch_is_cancelled_between_the_end_and_its_callback(start: Start, watch: ProcessWatch) -> None:
    """One callback may cancel the next, and a process may be gone already when its watch is cancelled."""
    process, second, third = start(), asyncio.Event(), asyncio.Event()
    identity = identity_of(process)
    watch.watch(identity, lambda: handle.cancel())
    handle = watch.watch(identity, second.set)
    watch.watch(identity, third.set)
    process.kill()
    await expect(third)
    process.wait()
    watch.watch(identity, second.set).cancel()
    await settle()
    assert not second.is_set()


async def test_the_last_cancel_frees_the_descriptor(start: Start, watch: ProcessWatch) -> None:
    """And the process can be watched again at once, on a descriptor of the same number."""
    process, ended = start(), asyncio.Event()
    before = open_descriptors()
    handles = [watch.watch(identity_of(process), ended.set) for _ in range(3)]
    for handle in handles:
        assert open_descriptors() == before + 1
        handle.cancel()
    assert open_descriptors() == before
    watch.watch(identity_of(process), ended.set)
    process.kill()
    await expect(ended)


async def test_nobody_is_told_after_close(start: Start, watch: ProcessWatch) -> None:
    """Nothing is left open; a process that has just ended, and a later watch, are silent too."""
    before = open_descriptors()
    running, gone, ended = start(), start(), asyncio.Event()
    identity = identity_of(gone)
    gone.kill()
    gone.wait()
    handle = watch.watch(identity_of(running), ended.set)
    watch.watch(identity, ended.set)
    watch.close()
    watch.close()
    assert open_descriptors() == before
    watch.watch(identity, ended.set)
    watch.watch(identity_of(running), ended.set)
    assert open_descriptors() == before
    running.kill()
    running.wait()
    await settle()
    assert not ended.is_set()
    handle.cancel()
    assert repr(watch) == "<ProcessWatch closed unwatched=0>"


async def test_without_a_free_descriptor_nothing_raises(
    start: Start, watch: ProcessWatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The watch is silent, counted and logged once; when one is free, a process can be watched again."""
    process, ended, never = start(), asyncio.Event(), asyncio.Event()
    identity = identity_of(process)
    with caplog.at_level(logging.WARNING), no_descriptor_free():
        handles = [watch.watch(identity, never.set) for _ in range(3)]
    assert watch.unwatched == 3
    assert [record.getMessage() for record in caplog.records if "Too many open files" in record.getMessage()] == [
        "a process of this host cannot be watched, its connection must tell its end: [Errno 24] Too many open files"
    ]
    watch.watch(identity, ended.set)
    for handle in handles:
        handle.cancel()
    process.kill()
    await expect(ended)
    assert not never.is_set()


def test_identity_is_asked_again_when_descriptors_are_free() -> None:
    """A moment's want of descriptors does not make a process nobody for ever."""
    processes._read_own_identity.cache_clear()
    with no_descriptor_free():
        assert own_identity() == (0, 0, 0, "")
    assert own_identity().pid == os.getpid()


async def test_without_pidfds_nothing_raises(
    start: Start, watch: ProcessWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older kernel or Python: silent and counted."""
    monkeypatch.delattr(os, "pidfd_open")
    ended = asyncio.Event()
    watch.watch(identity_of(start()), ended.set).cancel()
    assert watch.unwatched == 1


async def test_a_hidden_start_time_is_no_end(
    start: Start, watch: ProcessWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /proc shows only one's own processes, the pidfd alone decides."""
    process, ended = start(), asyncio.Event()
    identity = identity_of(process)
    own_identity()
    monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
    watch.watch(identity, ended.set)
    await settle()
    assert not ended.is_set()
    process.kill()
    await expect(ended)


# ---------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (-40, "was killed by signal 40"),
    ],
)
def test_an_end_in_words(returncode: int, words: str) -> None:
    """A signal by its name where it has one."""
    assert describe_end(returncode) == words


def test_a_real_end_in_words(start: Start) -> None:
    """As `Popen` tells it."""
    process = start()
    process.kill()
    assert describe_end(process.wait()) == "was killed by SIGKILL"
