"""What docs/ says is so: its programs run, its lines can be copied, its tables have the limits that there are."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from aiopg import Limits
from aiopg.codec import MsgpackCodec
from aiopg.tokens import read_tokens

from .system.ranks import free_port

DOCS = Path(__file__).parents[1] / "docs"
SECURITY = (DOCS / "security.md").read_text()
LIMITS = (DOCS / "limits.md").read_text()
OBJECTS = (DOCS / "objects.md").read_text()

UNITS = {"": 1, "s": 1, "byte": 1, "bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def blocks(text: str, language: str) -> list[str]:
    """Its blocks of code."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def section(heading: str) -> list[str]:
    """The lines of one deployment: what comes before all, the store's, and each member's."""
    _, _, rest = SECURITY.partition(f"## {heading}")
    found = blocks(rest.partition("\n## ")[0], "sh")
    return ["", *found] if len(found) == 2 else found


@pytest.mark.parametrize("heading", ["One host", "A network that you trust", "A network that you do not trust"])
def test_the_lines_of_a_deployment_work(heading: str, tmp_path: Path) -> None:
    """As they stand, but for the host's name and the port."""
    (tmp_path / "member.py").write_text(blocks(SECURITY, "python")[0])
    port = free_port()
    once, store, member = (
        lines.replace("store.example:", "127.0.0.1:").replace("0.0.0.0", "127.0.0.1").replace("29400", str(port))
        for lines in section(heading)
    )
    user = environment(tmp_path)
    subprocess.run(["bash", "-euc", once], cwd=tmp_path, env=user, check=True, stdout=subprocess.DEVNULL)
    command = store.partition("\n")[2]  # behind the line that says whose it is
    serving = start(f"exec {command}", tmp_path, user)
    try:
        assert serving.stdout is not None
        assert "://" in serving.stdout.readline()
        members = [start(member, tmp_path, user | {"RANK": str(rank)}) for rank in range(2)]
        assert [process.communicate(timeout=50)[0] for process in members] == ["[0, 1]\n"] * 2
    finally:
        serving.terminate()
        serving.communicate(timeout=20)


def start(lines: str, directory: Path, user: dict[str, str]) -> subprocess.Popen[str]:
    """These lines of shell in a process."""
    return subprocess.Popen(["bash", "-euc", lines], cwd=directory, env=user, stdout=subprocess.PIPE, text=True)


def environment(directory: Path) -> dict[str, str]:
    """Of a user who has installed aiopg and said nothing of tokens and certificates."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AIOPG_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{mine['PATH']}"
    return mine | {"PATH": path, "XDG_RUNTIME_DIR": str(directory)}


def test_the_tokens_that_are_shown_are_read(tmp_path: Path) -> None:
    """As a file for --token-file."""
    path = tmp_path / "tokens"
    path.touch(0o600)
    path.write_text(blocks(SECURITY, "text")[0])
    first, second = read_tokens(str(path))
    assert first.groups == ("team-a/*", "team-b/lobby")
    assert second.expires is not None


def rows() -> dict[str, str]:
    """Name and default of each limit."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", LIMITS, re.MULTILINE))


def number(text: str) -> float:
    """What a cell of the table says."""
    digits, _, unit = text.partition(" ")
    return float(digits.replace(",", "")) * UNITS[unit]


def test_the_table_has_every_limit_with_its_default() -> None:
    """And no others."""
    told = rows()
    names = {field.name for field in fields(Limits)}
    assert {name: number(told.get(name, "0")) for name in names} == {name: getattr(Limits(), name) for name in names}
    for name in told.keys() - names:
        assert name in CODEC or name.isupper()


CODEC = {"max_depth": 128, "max_containers": 65536, "max_memory": 32 * 2**20}


def test_the_limits_of_the_codec_are_those_that_are_told() -> None:
    """The codec's own text has them, and so have its modules."""
    codec = repr(MsgpackCodec())
    for name, value in CODEC.items():
        assert number(rows()[name].partition(", and")[0]) == value
        assert f"{name}={value}" in codec
    modules = [
        importlib.import_module(f"aiopg.codec.{name}") for name in ("_collisions", "_elements", "_numpy", "_fields")
    ]
    for name, told in rows().items():
        if name.isupper():
            (value,) = (getattr(module, name) for module in modules if name in module.__all__)
            assert number(told) == value


def test_the_programs_about_objects_run(tmp_path: Path) -> None:
    """One behind another in one process, as torch takes its time to be imported."""
    programs = blocks(OBJECTS, "python")
    assert len(programs) == 4
    (tmp_path / "programs.py").write_text("\n".join(programs))
    command = [sys.executable, "-W", "error", "programs.py"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=50)
