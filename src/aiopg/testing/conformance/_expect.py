"""What a check expects, said so that it can be read in a report. Not `assert`: that is nothing under `python -O`."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["BrokenRuleError", "Raises", "holds", "same"]

E = TypeVar("E", bound=BaseException)

SHOWN = 400
"""As many characters of a value are shown."""


class BrokenRuleError(AssertionError):
    """The store did something else than the rule says."""


def same(got: object, wanted: object, what: str) -> None:
    """Raises `BrokenRuleError` unless `got` equals `wanted`."""
    if got != wanted:
        raise BrokenRuleError(f"{what}: {_short(got)}, and it should be {_short(wanted)}")


def holds(condition: object, what: str) -> None:
    """Raises `BrokenRuleError` with this text unless the condition holds."""
    if not condition:
        raise BrokenRuleError(what)


class Raises(Generic[E]):
    """The block must raise an error of this kind; `error` has it afterwards.

    What the store does not offer (`NotImplementedError`) passes through: whoever runs the check is to know.
    """

    error: E

    def __init__(self, kind: type[E], what: str) -> None:
        self._kind, self._what = kind, what

    def __enter__(self) -> Raises[E]:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool:
        if isinstance(exc, self._kind):
            self.error = exc
            return True
        if exc is None:
            raise BrokenRuleError(f"{self._what}: no error, and it should raise {self._kind.__name__}")
        if isinstance(exc, Exception) and not isinstance(exc, NotImplementedError):
            told = f"{type(exc).__name__} ({_short(exc)})"
            raise BrokenRuleError(f"{self._what}: {told}, and it should raise {self._kind.__name__}") from exc
        return False


def _short(value: object) -> str:
    text = str(value) if isinstance(value, BaseException) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
