"""Says in the summary of a run which seeds it simulated."""

from __future__ import annotations

import sys

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line, if the simulator ran."""
    module = sys.modules.get("tests.simulation.test_simulation")
    if module is not None and module._all.seeds:
        first, count = module.BASE, module._all.seeds
        terminalreporter.write_line(f"simulated {count} seeds, from {first} to {first + count - 1}")
