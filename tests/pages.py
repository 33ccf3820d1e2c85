"""The code in pages of the documentation, and how it is run.

Which blocks run:

- `python`: a program that must end well. One that begins with `# NAME.py` is a file of that name, for commands of the
  page; any other is run by itself.
- `console`: its lines with `$` are commands, run in the order of the page, in one shell and in one directory with the
  page's files; the other lines are what they say, in whatever order. `make`, `pip` and `git` are not run: the target
  and the extra that are named must be there.
- Anything else (`text`, `sh`, `diff`, ...) is to be read, or is run by a test of its own.

`with_free_ports` makes ports of 294xx and 295xx others, which are free.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from .system.ranks import free_port

__all__ = ["ROOT", "Page", "blocks", "run_program", "user_environment", "with_free_ports"]

ROOT = Path(__file__).parents[1]

PATIENCE = 50.0


def blocks(text: str, language: str) -> list[str]:
    """Its blocks of code."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def with_free_ports(text: str) -> str:
    """The text with other ports: each the same wherever it stands."""
    for port in sorted(set(re.findall(r"\b29[45]\d\d\b", text))):
        text = text.replace(port, str(free_port()))
    return text


class Page:
    """What is in the text of one page."""

    def __init__(self, text: str) -> None:
        self.programs: list[str] = []
        """Those that are run by themselves."""
        self.files: dict[str, str] = {}
        for code in blocks(text, "python"):
            if name := re.match(r"# (\w+\.py)\b", code):
                self.files[name[1]] = code
            else:
                self.programs.append(code)
        lines = "".join(blocks(text, "console")).splitlines()
        self.commands = [line[2:] for line in lines if line.startswith("$ ")]
        self.said = [line for line in lines if line and not line.startswith("$ ")]

    def run_commands(self, directory: Path) -> str:
        """Run its commands there; all that they printed. They must all end well, those with `&` too."""
        for name, code in self.files.items():
            (directory / name).write_text(code)
        script = ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"]
        waits: list[str] = []
        for number, command in enumerate(self.commands):
            if re.match(r"(make|pip|git)\b", command):
                check_only(command)
            elif command.endswith("&") and "aiopg serve" not in command:
                # What it says is shown when it has ended: two programs that write at once share lines.
                script.append(f"({command[:-1]}) > said{number} & job{number}=$!")
                waits.append(f"wait $job{number}; cat said{number}")
            else:
                script += [command, *waits]
                waits.clear()
        return output(["bash", "-c", "\n".join([*script, *waits])], directory)


def check_only(command: str) -> None:
    """A command of who installs or develops: what it names must be there."""
    words = command.partition("#")[0].split()
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), command
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"\[([\w,-]+)\]", command):
        assert set(names.split(",")) <= set(extras), command


def run_program(code: str, directory: Path) -> str:
    """Run a program, warnings as errors; it must end well. What it printed."""
    return output([sys.executable, "-W", "error", "-c", code], directory)


def output(command: list[str], directory: Path) -> str:
    """What a command printed that must end well."""
    ran = subprocess.run(
        command, cwd=directory, env=user_environment(directory), capture_output=True, text=True, timeout=PATIENCE
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def user_environment(directory: Path) -> dict[str, str]:
    """Of a user who has installed aiopg and said nothing of tokens and certificates."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AIOPG_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{mine['PATH']}"
    return mine | {"PATH": path, "XDG_RUNTIME_DIR": str(directory)}
