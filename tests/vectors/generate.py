"""Writes the vectors anew: `python -m tests.vectors.generate`.

Says which are new and which have changed. A vector that changed means that an end of another release would not be
understood: such a file is left as it is, unless `--accept-changes` is given, as it may be where no release has the old
bytes.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

from . import FOLDER, Vector, bodies, conversations, handshakes, load, messages, payloads

__all__ = ["FILES", "content", "main"]

FILES: dict[str, ModuleType] = {
    "handshakes": handshakes,
    "frames": messages,
    "conversations": conversations,
    "bodies": bodies,
    "payloads": payloads,
}


def content(file: str) -> dict[str, Any]:
    """What is to be in a file: as JSON reads it again."""
    module = FILES[file]
    made: dict[str, Any] = json.loads(json.dumps({"about": module.about, **module.sections()}))
    return made


def compare(file: str, made: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Names of the vectors that are new, changed, and gone."""
    before = _by_name(load(file)) if (FOLDER / f"{file}.json").exists() else {}
    after = _by_name({section: vectors for section, vectors in made.items() if section != "about"})
    new = [name for name in after if name not in before]
    changed = [name for name in after if name in before and after[name] != before[name]]
    return new, changed, [name for name in before if name not in after]


def _by_name(sections: dict[str, list[Vector]]) -> dict[str, Vector]:
    return {f"{section}: {vector['name']}": vector for section, vectors in sections.items() for vector in vectors}


def main(arguments: list[str]) -> int:
    """Write the files; the exit code is 1 if vectors changed that were not to."""
    accepts = arguments == ["--accept-changes"]
    code = 0
    for file in FILES:
        made = content(file)
        new, changed, gone = compare(file, made)
        for what, names in (("new", new), ("CHANGED", changed), ("GONE", gone)):
            for name in names:
                print(f"{file}.json: {what}: {name}")
        if (changed or gone) and not accepts:
            print(f"{file}.json: left as it was")
            code = 1
        else:
            (FOLDER / f"{file}.json").write_text(json.dumps(made, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
