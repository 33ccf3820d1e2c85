"""Says in the summary of a run from which seed was fuzzed, and how much."""

from __future__ import annotations

import sys

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each target that ran."""
    module = sys.modules.get("tests.fuzz.test_fuzz")
    if module is not None:
        for name, report in module.reports.items():
            terminalreporter.write_line(f"fuzzed {name} from seed {module.SEED}: {report}")
