"""docs/testing.md: its blocks are tests, and pass with the options that it shows."""

from __future__ import annotations

import re

import pytest

from aiopg import testing
from tests.pages import ROOT, blocks

pytest_plugins = ["pytester"]

PAGE = (ROOT / "docs" / "testing.md").read_text()


def test_the_tests_on_the_page_pass(pytester: pytest.Pytester) -> None:
    """Each block is a file of its own, so that none needs another; warnings are errors."""
    (options,) = blocks(PAGE, "ini")
    pytester.makeini(options)
    programs = blocks(PAGE, "python")
    for number, program in enumerate(programs):
        pytester.path.joinpath(f"test_block_{number}.py").write_text(program)
    tests = re.findall(r"^ *(?:async )?def test_", "".join(programs), re.MULTILINE)
    assert len(tests) >= len(programs)
    result = pytester.runpytest_subprocess("-W", "error", "--strict-config", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=len(tests))


def test_every_tool_is_on_the_page() -> None:
    """Those that a test makes itself."""
    for name in testing.__all__:
        assert f"`{name}`" in PAGE or f"import {name}" in PAGE or name == "RankProcesses"
