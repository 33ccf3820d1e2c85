"""Test vectors: what the wire protocol's bytes are, for this implementation and for any other.

`*.json` beside this file are the vectors; docs/protocol.md says what they mean. The modules say what is in them, and
`python -m tests.vectors.generate` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["FOLDER", "Vector", "load"]

FOLDER = Path(__file__).parent

Vector: TypeAlias = dict[str, Any]


def load(file: str) -> dict[str, list[Vector]]:
    """The sections of one file of vectors; each vector has a name that is its own in its section."""
    content: dict[str, Any] = json.loads((FOLDER / f"{file}.json").read_text())
    return {section: vectors for section, vectors in content.items() if section != "about"}
