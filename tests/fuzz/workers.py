"""Runs of the fuzzer in processes of their own, so that no input can take more than one of them down.

A worker runs one chunk of inputs, whose seed follows from that of the whole and the number of the chunk: what is run
does not depend on how many workers there are. It may use `MEMORY_MIB` more than it begins with, and never have more
than that resident; and it shows each input in a file before it runs it, so that when it dies (of a crash in C, or of
`faulthandler`'s watchdog, which sees what the processor's clock does not) its parent knows of what.
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
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.fuzz.fuzzer import Finding, Fuzzer, Report
from tests.fuzz.mutate import LONGEST
from tests.fuzz.targets import TARGETS

__all__ = ["CORPUS", "MEMORY_MIB", "corpus", "fuzz", "keep"]

CORPUS = Path(__file__).with_name("corpus")
"""What was found once: a directory for each target, in it inputs by their hashes."""

CHUNK = 100_000
MEMORY_MIB = 256
HANG_SECONDS = 120.0
"""So long a worker may be about `SHOWN_EVERY` inputs, which take it under a second."""
SHOWN_EVERY = 4096

MIB = 1024 * 1024
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


def fuzz(names: Sequence[str], seed: int, inputs: int, seconds: float = FOREVER, jobs: int = 1) -> dict[str, Report]:
    """So many inputs for each of these targets, or for each so many seconds of one worker."""
    reports = {name: Report() for name in names}
    chunks = _chunks(names, inputs, CHUNK if seconds == FOREVER else inputs, reports)
    work: dict[BaseProcess, tuple[str, int, Connection, Path]] = {}
    with tempfile.TemporaryDirectory() as directory:
        while True:
            while len(work) < jobs and (chunk := next(chunks, None)) is not None:
                name, number, count = chunk
                shown = Path(directory, f"{name}-{number}")
                process, end = _start(name, f"{seed}/{number}", count, seconds, shown)
                work[process] = name, number, end, shown
            if not work:
                return reports
            wait([process.sentinel for process in work])
            for process in [process for process in work if process.exitcode is not None]:
                name, number, end, shown = work.pop(process)
                reports[name].add(_result(process, name, number, end, shown))


def _chunks(names: Sequence[str], inputs: int, size: int, reports: dict[str, Report]) -> Iterator[tuple[str, int, int]]:
    """(target, number of the chunk, inputs), the targets in turn; no more of a target in which much is wrong."""
    for number, start in enumerate(range(0, inputs, size)):
        for name in names:
            if len(reports[name].findings) < ENOUGH:
                yield name, number, min(size, inputs - start)


def _start(name: str, seed: str, count: int, seconds: float, shown: Path) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    shown.write_bytes(bytes(4 + LONGEST))
    process = context.Process(target=_work, args=(name, seed, count, seconds, shown, sender))
    process.start()
    sender.close()
    return process, receiver


def _result(process: BaseProcess, name: str, number: int, end: Connection, shown: Path) -> Report:
    process.join()
    try:
        report: Report = end.recv()
    except EOFError:
        told = shown.read_bytes()
        data = told[4 : 4 + int.from_bytes(told[:4])]
        report = Report(findings=[Finding(name, data, f"the worker of chunk {number} ended with {process.exitcode}")])
    finally:
        end.close()
        shown.unlink()
    return report


def _work(name: str, seed: str, count: int, seconds: float, shown: Path, result: Connection) -> None:
    """The worker's side."""
    fuzzer = Fuzzer(TARGETS[name](), seed, corpus(name))
    _limit_memory()
    with shown.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        fuzzer.run(count, time.monotonic() + seconds, _shower(memory))
    faulthandler.cancel_dump_traceback_later()
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
        if not shown % SHOWN_EVERY:
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        shown += 1
        memory[: 4 + len(data)] = len(data).to_bytes(4) + data

    return show


def _peak_mib() -> float:
    """As much memory as this process ever had resident. (`ru_maxrss` begins with that of the parent.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _limit_memory() -> None:
    """No more address space than there is, and `MEMORY_MIB`: what would allocate more gets a `MemoryError`."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_MIB * MIB, resource.RLIM_INFINITY))
