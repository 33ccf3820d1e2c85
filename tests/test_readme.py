"""Every Python program in the README runs, and its links lead to files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .system.ranks import free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A block of the README as a process, warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    """What it printed; it must end well."""
    out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    return out


def test_the_first_program_is_seen_early() -> None:
    """The README shows a complete program within its first 25 lines."""
    assert README.splitlines().index("asyncio.run(main(int(sys.argv[1])))") <= 25


def test_the_pair_exchanges_objects() -> None:
    """The first program, started twice."""
    code = BLOCKS[0].replace("29500", str(free_port()))
    processes = [start(code, "0"), start(code, "1")]
    first, second = map(output, processes)
    assert "0 sees [{'rank': 0" in first
    assert "1 got b'an NCCL id'" in second


@pytest.mark.parametrize("block", range(1, len(BLOCKS)))
def test_the_other_programs_run(block: int) -> None:
    """Every other program, as it stands, on a port of its own."""
    out = output(start(BLOCKS[block].replace("29501", str(free_port()))))
    assert "weights" in out or "missing: rank 1; arrived: 0" in out


def test_every_link_leads_to_a_file() -> None:
    """Of those that stay in the repository."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert "docs/guarantees.md" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []
