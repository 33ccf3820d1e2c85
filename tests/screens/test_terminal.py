"""`aiopg status` and `aiopg top` on a real terminal of 80 x 24."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.programs import Program
from tests.observe.crew import SLOW, WITHIN, Crew
from tests.screens.terminal import Pane

AIOPG = (sys.executable, "-m", "aiopg")

PATIENCE = 10 * SLOW


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with Crew(tmp_path) as crew:
        yield crew


@pytest.fixture
def pane(crew: Crew) -> Iterator[Pane]:
    with tempfile.TemporaryDirectory() as directory, Pane(Path(directory), environment=crew.environment) as pane:
        yield pane


def test_top_shows_who_is_awaited_within_a_second_and_ends_with_q(crew: Crew, pane: Pane) -> None:
    """Rank 5 of 8 sleeps before a barrier: the screen that was calm names it; q gives the terminal back."""
    pane.type("sh", "-c", f'{AIOPG[0]} -m aiopg top {crew.url}; echo "code $?"')
    pane.until(lambda line: "crew #1 live" in line, PATIENCE)
    calm = pane.lines()
    assert len(calm) <= 24
    assert not any("waits for" in line for line in calm)
    assert any("oooooooo" in line for line in calm)
    began = crew.go()
    found, seen = pane.until(lambda line: "waits for" in line, PATIENCE)
    assert "barrier number 6 (tag 0): waits for rank 5 for " in found
    assert seen - began < WITHIN
    pane.until(lambda line: "ooooo?oo" in line, PATIENCE)
    pane.until(lambda line: "for 1." in line, PATIENCE)  # it is live: the time goes on
    assert all(len(line) <= 80 for line in pane.lines())

    pane.resize(50, 8)
    pane.until(lambda line: line.startswith("  barrier number 6 (tag 0): waits for rank 5"), PATIENCE)
    assert len(pane.lines()) <= 8

    pane.press("q")
    pane.until(lambda line: line == "code 0", PATIENCE)
    pane.type("echo", "it ended")
    pane.until(lambda line: line.endswith("it ended") and "echo" not in line, PATIENCE)
    assert any("echo 'it ended'" in line for line in pane.lines())  # what is typed is shown again
    assert not any("NDELAY" in line for line in pane.lines())


def test_status_shows_who_is_awaited_within_a_second(crew: Crew, pane: Pane) -> None:
    """The call, and the rank in the list of all."""
    began = crew.go()
    pane.type(*AIOPG, "status", crew.url)
    found, seen = pane.until(lambda line: "waits for" in line, PATIENCE)
    assert "barrier number 6 (tag 0) waits for rank 5" in found
    assert seen - began < WITHIN
    pane.until(lambda line: line.startswith("  5 ") and line.endswith("<- awaited"), PATIENCE)


def test_top_says_that_a_store_is_silent_and_when_it_is_lost(tmp_path: Path) -> None:
    """It goes on showing the last that it knew; when the store has gone it ends with code 2."""
    server = Program("serve", environment={"AIOPG_TOKEN": ""})
    try:
        url = server.line()
        with (
            tempfile.TemporaryDirectory() as directory,
            Pane(Path(directory), environment={"AIOPG_TOKEN": ""}) as pane,
        ):
            pane.type("sh", "-c", f'{AIOPG[0]} -m aiopg top {url}; echo "code $?"')
            pane.until(lambda line: "no groups" in line, PATIENCE)
            server.send(signal.SIGSTOP)
            pane.until(lambda line: "no answer for" in line, PATIENCE)
            server.send(signal.SIGCONT)
            server.send(signal.SIGTERM)
            pane.until(lambda line: line == "code 2", PATIENCE)
            assert any(line.startswith("aiopg top: the store at aiopg://127.0.0.1") for line in pane.lines())
    finally:
        server.close()
