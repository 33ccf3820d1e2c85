"""Runs of the fuzzer in processes of their own, so that no input can take more than one of them down.

A worker runs one chunk of inputs, whose seed follows from that of the whole and the number of the chunk: what is run
does not depend on how many workers there are. It may use `MEMORY_MIB` more than it begins with, and never have more
than that resident; and it shows each input in a file before it runs it, so that when it dies of a crash in C its parent
knows of what. By the same file the parent sees who stands still, which the processor's clock of a worker does not. (A
thread in the worker that watched it would not do: a thread frees memory without the GIL when it starts, and CPython
3.11 corrupts its heap when `tracemalloc` is switched on or off at that moment.)
"""

from __future__ import annotations

import faulthandler
import hashlib
import mmap
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIGABRT

from tests.fuzz.fuzzer import Finding, Fuzzer, Report
from tests.fuzz.mutate import LONGEST
from tests.fuzz.targets import TARGETS

__all__ = ["CORPUS", "MEMORY_MIB", "corpus", "fuzz", "keep"]

CORPUS = Path(__file__).with_name("corpus")
"""What was found once: a directory for each target, in it inputs by their hashes."""

CHUNK = 100_000
MEMORY_MIB = 256
HANG_SECONDS = 120.0
"""So long a worker may be about one input, and about its start."""
LOOK_SECONDS = 1.0

MIB = 1024 * 1024
_COUNT, _LENGTH = 8, 4
FOREVER = 1e9
ENOUGH = 10


def corpus(name: str) -> list[bytes]:
    """The stored inputs of a target, in a fixed order."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def keep(directory: Path, data: bytes) -> Path:
    """Write an input to a file that is named by its hash."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


@dataclass
class _Worker:
    """A process at work on one chunk, as its parent sees it."""

    name: str
    number: int
    process: BaseProcess
    result: Connection
    shown: Path
    """How many inputs it has shown, the length of the last one, and that one."""
    count: int = 0
    since: float = field(default_factory=time.monotonic)
    hung: bool = False

    def look(self) -> None:
        """Abort it, which makes it tell where it is, when it stands still."""
        count = int.from_bytes(self.shown.read_bytes()[:_COUNT])
        if count != self.count:
            self.count, self.since = count, time.monotonic()
        elif not self.hung and time.monotonic() - self.since > HANG_SECONDS and self.process.pid is not None:
            self.hung = True
            os.kill(self.process.pid, SIGABRT)

    def report(self) -> Report:
        """What came of it, once it ended."""
        self.process.join()
        try:
            report: Report = self.result.recv()
        except EOFError:
            shown = self.shown.read_bytes()[_COUNT:]
            data = shown[_LENGTH : _LENGTH + int.from_bytes(shown[:_LENGTH])]
            how = f"stood still for {HANG_SECONDS} s" if self.hung else f"ended with {self.process.exitcode}"
            report = Report(findings=[Finding(self.name, data, f"the worker of chunk {self.number} {how}")])
        finally:
            self.result.close()
            self.shown.unlink()
        return report


def fuzz(names: Sequence[str], seed: int, inputs: int, seconds: float = FOREVER, jobs: int = 1) -> dict[str, Report]:
    """So many inputs for each of these targets, or for each so many seconds of one worker."""
    reports = {name: Report() for name in names}
    chunks = _chunks(names, inputs, CHUNK if seconds == FOREVER else inputs, reports)
    work: list[_Worker] = []
    with tempfile.TemporaryDirectory() as directory:
        while True:
            while len(work) < jobs and (chunk := next(chunks, None)) is not None:
                name, number, count = chunk
                work.append(
                    _start(name, number, f"{seed}/{number}", count, seconds, Path(directory, f"{name}-{number}"))
                )
            if not work:
                return reports
            wait([worker.process.sentinel for worker in work], LOOK_SECONDS)
            for worker in [*work]:
                if worker.process.exitcode is None:
                    worker.look()
                else:
                    work.remove(worker)
                    reports[worker.name].add(worker.report())


def _chunks(names: Sequence[str], inputs: int, size: int, reports: dict[str, Report]) -> Iterator[tuple[str, int, int]]:
    """(target, number of the chunk, inputs), the targets in turn; no more of a target in which much is wrong."""
    for number, start in enumerate(range(0, inputs, size)):
        for name in names:
            if len(reports[name].findings) < ENOUGH:
                yield name, number, min(size, inputs - start)


def _start(name: str, number: int, seed: str, count: int, seconds: float, shown: Path) -> _Worker:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    shown.write_bytes(bytes(_COUNT + _LENGTH + LONGEST))
    process = context.Process(target=_work, args=(name, seed, count, seconds, shown, sender))
    process.start()
    sender.close()
    return _Worker(name, number, process, receiver, shown)


def _work(name: str, seed: str, count: int, seconds: float, shown: Path, result: Connection) -> None:
    """The worker's side."""
    faulthandler.enable()
    fuzzer = Fuzzer(TARGETS[name](), seed, corpus(name))
    _limit_memory()
    with shown.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        fuzzer.run(count, time.monotonic() + seconds, _shower(memory))
    report = fuzzer.report
    report.peak_mib = _peak_mib()
    if report.peak_mib > MEMORY_MIB:
        what = f"this chunk took {report.peak_mib:.0f} MiB of memory; {MEMORY_MIB} are allowed; seed {seed}"
        report.findings.append(Finding(name, b"", what))
    result.send(report)


def _shower(memory: mmap.mmap) -> Callable[[bytes], None]:
    shown = 0

    def show(data: bytes) -> None:
        nonlocal shown
        shown += 1
        head = shown.to_bytes(_COUNT) + len(data).to_bytes(_LENGTH)
        memory[: len(head) + len(data)] = head + data

    return show


def _peak_mib() -> float:
    """As much memory as this process ever had resident. (`ru_maxrss` begins with that of the parent.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _limit_memory() -> None:
    """No more address space than there is, and `MEMORY_MIB`: what would allocate more gets a `MemoryError`."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_MIB * MIB, resource.RLIM_INFINITY))
