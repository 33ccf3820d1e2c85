"""Moving from vLLM's group to aiopg's, beside vLLM's own files."""

from __future__ import annotations

import difflib

from benchmarks.peers import VLLM_DIR

from tests.system.ranks import free_port

from .programs import EXAMPLES, StartProgram, example

RANKS = 2

BEFORE, AFTER = "from_vllm/before.py", "from_vllm/after.py"

PRINTED = [
    "rank 0: 2 engines share an id of 128 bytes",
    "rank 1: fetch blocks [0, 1, 2, 3] from port 14579",
]

WITH_VLLM = """
import logging, runpy, sys, types
logging.disable(logging.WARNING)
for name in ("vllm", "vllm.distributed"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [sys.argv[1] + "/" + name.replace(".", "/")]
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program beside the mere Python files of vLLM: its packages are entered without their `__init__`, which would
import the whole engine, and vLLM's warning that it is not installed is not heard."""


def printed(start: StartProgram, *arguments: str) -> list[str]:
    """What all ranks print together."""
    port = str(free_port())
    programs = [start(*arguments, str(rank), str(RANKS), port) for rank in range(RANKS)]
    return sorted(line for program in programs for line in program.lines())


def test_four_lines_differ() -> None:
    """Two are other lines and two are new."""
    before, after = (
        (EXAMPLES / name).read_text().splitlines() for name in ("from_vllm/before.py", "from_vllm/after.py")
    )
    changes = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert sum(line[0] == "-" for line in changes) == 2
    assert sum(line[0] == "+" for line in changes) == 4


def test_before_runs_on_vllm(start: StartProgram) -> None:
    """It prints what it is to print, with vLLM's own group."""
    assert VLLM_DIR.exists(), f"{VLLM_DIR} is not there; `make test` fetches it"
    assert printed(start, "-c", WITH_VLLM, str(VLLM_DIR), example(BEFORE)) == PRINTED


def test_after_prints_the_same(start: StartProgram) -> None:
    """With aiopg's group."""
    assert printed(start, example(AFTER)) == PRINTED
