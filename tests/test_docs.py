"""What docs/ says is so: its programs run, its lines can be copied, its tables have the limits that there are.

A page that is added is covered by itself: `pages` says which of its blocks run.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from aiopg import Limits
from aiopg.codec import MsgpackCodec
from aiopg.tokens import read_tokens

from .pages import ROOT, Page, blocks, run_program, user_environment, with_free_ports
from .system.ranks import free_port

DOCS = ROOT / "docs"
SECURITY = (DOCS / "security.md").read_text()
LIMITS = (DOCS / "limits.md").read_text()
OBJECTS = (DOCS / "objects.md").read_text()

UNITS = {"": 1, "s": 1, "byte": 1, "bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
ELSEWHERE = {
    "security.md": "tests/test_docs.py",
    "objects.md": "tests/test_docs.py",
    "launchers.md": "tests/test_docs_launchers.py",
    "testing.md": "tests/test_docs_testing.py",
    "protocol.md": "tests/test_protocol.py",
    "integrations.md": "tests/integrations/test_vllm.py",
}
"""Pages whose blocks are run in another way than others, and where that is."""

COVERED = {page: Page(text) for page, text in PAGES.items() if page not in ELSEWHERE}
PROGRAMS = [(name, number) for name, page in COVERED.items() for number in range(len(page.programs))]


@pytest.mark.parametrize(("page", "number"), PROGRAMS, ids=[f"{page}-{number}" for page, number in PROGRAMS])
def test_every_program_runs(page: str, number: int, tmp_path: Path) -> None:
    """As it stands, warnings as errors."""
    run_program(Page(with_free_ports(PAGES[page])).programs[number], tmp_path)


@pytest.mark.parametrize("page", [name for name, page in COVERED.items() if page.commands])
def test_every_command_says_what_the_page_shows(page: str, tmp_path: Path) -> None:
    """The commands of a page one after another, with the programs that the page has as files."""
    shown = Page(with_free_ports(PAGES[page]))
    said = shown.run_commands(tmp_path).splitlines()
    assert [line for line in shown.said if line not in said] == [], said


@pytest.mark.parametrize("page", COVERED)
def test_every_program_that_is_a_file_is_used(page: str) -> None:
    """By a command of its page; or nobody would have run it."""
    commands = COVERED[page].commands
    assert [name for name in COVERED[page].files if not any(name in command for command in commands)] == []


@pytest.mark.parametrize("page", sorted(ELSEWHERE.keys() & PAGES.keys()))
def test_every_other_page_has_a_test_of_its_own(page: str) -> None:
    """Which reads it."""
    assert f'/ "{page}"' in (ROOT / ELSEWHERE[page]).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_is_there(page: str) -> None:
    """`tests/FILE.py::NAME`: whoever doubts a promise can look."""
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGES[page]):
        assert re.search(rf"^(async )?def {name}\(" if name else "", (ROOT / file).read_text(), re.MULTILINE), name


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
    user = user_environment(tmp_path)
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
