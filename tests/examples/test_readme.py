"""The list of the examples."""

from __future__ import annotations

import re

from .programs import EXAMPLES


def test_every_example_is_listed() -> None:
    """Each file or folder of examples/ has its line in the README there, and each line leads to one."""
    listed = re.findall(r"^\| \[.*?\]\((.*?)\) \| \S", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    there = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__", ".ipynb_checkpoints"}
    assert sorted(listed) == sorted(there)
