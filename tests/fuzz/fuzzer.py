"""The fuzzer: mutated inputs for one target, thousands a second, the same ones for the same seed.

It knows nothing of which lines ran. What it goes by is what an input came to (`Target.run`): whoever comes to something
new is kept, and mutated in turn.

Every input is checked for

- what the target checks, and errors that it does not expect;
- time: `CPU_SECONDS` of this process, after which the code is interrupted where it is;
- memory: every `MEASURED`th input, and all that are kept, run once more under tracemalloc and may allocate no more than
  `Target.memory`. For all others there is the bound on the whole process (`workers`).
"""

from __future__ import annotations

import hashlib
import random
import re
import signal
import time
import traceback
import tracemalloc
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Target

__all__ = ["Finding", "Fuzzer", "Report", "TookTooLong", "check", "one_at_a_time"]

CPU_SECONDS = 5.0
"""An input takes microseconds; the largest ones milliseconds."""

MEASURED = 256
KEPT = 4000
"""As many inputs at most are kept to be mutated."""

SHRINKING = 3000
"""As many runs at most are spent to make a failing input smaller."""


class TookTooLong(BaseException):
    """The input kept the processor for `CPU_SECONDS`. No Exception: what is under test shall not catch it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input at which something was wrong."""

    target: str
    data: bytes
    what: str
    """The error, its traceback included."""

    @property
    def kind(self) -> str:
        """What is the same for all inputs that find the same: the error's class, and where it was."""
        places = re.findall(r"^  File .*", self.what, re.MULTILINE)
        classes = re.findall(r"^([\w.]+)(?::|$)", self.what, re.MULTILINE)
        return f"{classes[-1:]} {places[-1:]}"

    @property
    def name(self) -> str:
        """The hash by which the input is known."""
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclass(slots=True)
class Report:
    """What came of some inputs of one target."""

    inputs: int = 0
    seconds: float = 0.0
    kept: int = 0
    peak_mib: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        a_second = self.inputs / self.seconds if self.seconds else 0.0
        return (
            f"{self.inputs} inputs in {self.seconds:.1f} s of one process ({a_second:.0f} a second), "
            f"{self.kept} kept, peak memory {self.peak_mib:.0f} MiB, {len(self.findings)} found"
        )

    def add(self, other: Report) -> None:
        """These as well; what was found before is not told twice."""
        self.inputs += other.inputs
        self.seconds += other.seconds
        self.kept = max(self.kept, other.kept)
        self.peak_mib = max(self.peak_mib, other.peak_mib)
        known = {finding.kind for finding in self.findings}
        self.findings += [finding for finding in other.findings if finding.kind not in known]


def _too_long(signum: int, frame: FrameType | None) -> NoReturn:
    raise TookTooLong(f"an input took more than {CPU_SECONDS} s of processor time")


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Inputs that take too long are interrupted in here."""
    before = signal.signal(signal.SIGVTALRM, _too_long)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def check(target: Target, data: bytes, measured: bool = True) -> tuple[Finding | None, Iterable[Hashable]]:
    """Run one input; what was wrong with it, and what it came to. To be called in `one_at_a_time`."""
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        outcome = target.run(data)
        if measured:
            _measure(target, data)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 (whatever it is, it is what was looked for)
        return Finding(target.name, data, traceback.format_exc()), ()
    return None, outcome


def _measure(target: Target, data: bytes) -> None:
    tracemalloc.start()
    try:
        target.parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = target.memory(len(data))
    assert peak <= allowed, f"{len(data)} bytes made it allocate {peak} bytes; {allowed} are allowed"


class Fuzzer:
    """One target and the inputs that follow from one seed."""

    def __init__(self, target: Target, seed: int | str, corpus: list[bytes]) -> None:
        self._target = target
        self._pool = [*target.seeds(), *corpus]
        self._large = target.large()
        self._firsts = [*self._pool, *self._large]
        self._mutator = Mutator(random.Random(seed), self._pool, target.tokens)
        self._seen: set[Hashable] = set()
        self.report = Report()

    def run(self, inputs: int, until: float, look: Callable[[bytes], None] = lambda data: None, most: int = 5) -> None:
        """Run so many inputs, or until that time (`time.monotonic`), or until so `most` things were found.

        `look` is shown every input before it runs.
        """
        started = time.monotonic()
        report = self.report
        with one_at_a_time():
            for count in range(inputs):
                data = self._firsts.pop() if self._firsts else self._mutator.next()
                look(data)
                finding, outcome = check(self._target, data, not count % MEASURED)
                report.inputs += 1
                if finding is None:
                    finding = self._keep(data, outcome)
                if finding is not None:
                    self._file(finding)
                    if len(report.findings) >= most:
                        break
                if not count % 64 and time.monotonic() > until:
                    break
        report.seconds += time.monotonic() - started
        report.kept = len(self._pool)

    def _keep(self, data: bytes, outcome: Iterable[Hashable]) -> Finding | None:
        """Keep an input that came to something new; what is wrong with the memory that it takes."""
        if self._seen.issuperset(outcome) or len(self._pool) >= KEPT:
            return None
        self._seen.update(outcome)
        if data not in self._large:
            self._pool.append(data)
        return check(self._target, data)[0]

    def _file(self, finding: Finding) -> None:
        if finding.kind not in {known.kind for known in self.report.findings}:
            self.report.findings.append(self._shrink(finding))

    def _shrink(self, finding: Finding) -> Finding:
        """The same with a smaller input, if one is found by taking pieces out."""
        best, runs, grain = finding, 0, self._target.grain
        sizes = [grain << power for power in range(12, -1, -1)] + ([] if grain == 1 else [1])
        for size in sizes:
            place = 1 if grain > 1 else 0  # before the grains there is a byte that says how they are read
            while place < len(best.data) and runs < SHRINKING:
                runs += 1
                smaller, _ = check(self._target, best.data[:place] + best.data[place + size :])
                if smaller is not None and smaller.kind == finding.kind:
                    best = smaller
                else:
                    place += size
        return best
