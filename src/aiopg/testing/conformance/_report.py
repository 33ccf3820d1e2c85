"""What `check_store` found."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from aiopg.stores.base import Capabilities

__all__ = ["CheckResult", "NotConformingError", "StoreReport", "Verdict"]


class Verdict(enum.Enum):
    """What a check came to."""

    PASSED = "passed"
    """The rule held."""
    FAILED = "failed"
    """It did not, or the check could not be carried out."""
    NOT_ASKED = "not asked"
    """The store does not offer what the check is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check of a store.

    Attributes:
        name: of the check, "MODULE.FUNCTION".
        rule: what it checks, in words.
        verdict: whether the rule held.
        reason: why not, or why it was not asked; "" if it passed.
        traceback: where it failed, as text; "" otherwise.
        seconds: how long it took.
    """

    name: str
    rule: str
    verdict: Verdict
    reason: str
    traceback: str
    seconds: float


class NotConformingError(AssertionError):
    """A store broke rules. Its text is the part of the report that failed.

    Attributes:
        report: the whole of it, a `StoreReport`.
    """

    def __init__(self, report: StoreReport) -> None:
        super().__init__(f"{report.summary}\n\n" + "\n\n".join(_told(result) for result in report.failed))
        self.report = report

    def __reduce__(self) -> tuple[type[NotConformingError], tuple[StoreReport]]:
        return type(self), (self.report,)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What `check_store` found, check by check. `str()` of it is for people.

    Attributes:
        url: of the store.
        capabilities: what the store says of itself; it decides what is asked.
        results: of all checks that were asked for, in the order of running, the ones that were not asked too.
    """

    url: str
    capabilities: Capabilities
    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def passed(self) -> tuple[CheckResult, ...]:
        """The checks whose rule held."""
        return self._those(Verdict.PASSED)

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks whose rule did not."""
        return self._those(Verdict.FAILED)

    @property
    def not_asked(self) -> tuple[CheckResult, ...]:
        """The checks of what the store does not offer."""
        return self._those(Verdict.NOT_ASKED)

    @property
    def summary(self) -> str:
        """One line: how many of each."""
        seconds = sum(result.seconds for result in self.results)
        return (
            f"{self.url}: {len(self.passed)} passed, {len(self.failed)} failed, {len(self.not_asked)} not asked, "
            f"{seconds:.1f} s"
        )

    def raise_failed(self) -> None:
        """Raises `NotConformingError` if a check failed: for tests."""
        if not self.ok:
            raise NotConformingError(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _those(self, verdict: Verdict) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.verdict is verdict)

    def _lines(self) -> Iterator[str]:
        yield f"{self.url}: {self.capabilities}"
        for result in self.results:
            yield f"{result.verdict.value:9} {result.name}: {result.rule}"
            if result.verdict is Verdict.NOT_ASKED:
                yield f"          {result.reason}"
        for result in self.failed:
            yield ""
            yield _told(result)
        yield ""
        yield self.summary


def _told(result: CheckResult) -> str:
    """A check that failed, for people."""
    return f"{result.name}: {result.rule}\n  {result.reason}\n{result.traceback}".rstrip()
