"""How a child of ours is started: a program of this package, in an interpreter like this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["child_environment", "module_command"]


def module_command(module: str, *arguments: str) -> list[str]:
    """Command that runs a module of this package."""
    return [sys.executable, "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """Environment in which a child imports this very package, also where it was found through a changed sys.path."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}
