"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiopg.observe.plain import plain

__all__ = ["Finding", "Level", "fault", "fine", "note", "verdict", "warning"]

Level: TypeAlias = Literal["ok", "note", "warn", "FAULT"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    """"ok"; "note": good to know; "warn": it works, and will not always; "FAULT": it does not work."""
    about: str
    """A word."""
    text: str
    fix: str = ""
    """What to do."""

    def lines(self) -> list[str]:
        """For a terminal."""
        said = [f"{self.level:<5}  {self.about:<10} {plain(self.text)}"]
        return [*said, f"{'':<17} -> {plain(self.fix)}"] if self.fix else said

    def fields(self) -> dict[str, str]:
        """Plain values."""
        return {"level": self.level, "about": self.about, "text": self.text, "fix": self.fix}


def fine(about: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", about, text)


def note(about: str, text: str, fix: str = "") -> Finding:
    """Good to know."""
    return Finding("note", about, text, fix)


def warning(about: str, text: str, fix: str) -> Finding:
    """It works, and will not always."""
    return Finding("warn", about, text, fix)


def fault(about: str, text: str, fix: str) -> Finding:
    """It does not work."""
    return Finding("FAULT", about, text, fix)


def verdict(findings: list[Finding]) -> int:
    """The exit code: 0 for nothing to mend, 1 for warnings, 2 for a fault."""
    levels = {finding.level for finding in findings}
    return 2 if "FAULT" in levels else 1 if "warn" in levels else 0
