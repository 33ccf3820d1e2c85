"""What docs/keys.md says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiopg import AsyncStore
from aiopg.keys._verbs import KeyVerbs

PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TOLD = [["b'7'", "held with number 1", "get of 'model/size' timed out"], ["0 sees b'host-1:9000'", "1 sees"]]


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_its_programs_run(number: int) -> None:
    """As they stand, warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", PROGRAMS[number]]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert all(text in ran.stdout for text in TOLD[number])


def test_every_call_is_in_the_table() -> None:
    """By its name, and there is no other."""
    rows = "\n".join(re.findall(r"^\| `.*", PAGE, re.MULTILINE))
    told = set(re.findall(r"`(\w+)\(", rows))
    calls = {name for name, value in vars(KeyVerbs).items() if callable(value) and not name.startswith("_")}
    assert told == calls | {"with_prefix", "clone"}
    assert all(hasattr(AsyncStore, name) for name in told)
