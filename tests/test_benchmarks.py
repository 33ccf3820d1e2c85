"""The benchmarks' arithmetic and page, and a short race of real processes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import tables
from benchmarks.contestants import ENTRIES
from benchmarks.figures import CONNECTIONS, GROUP, PAYLOAD, RATIOS, Figure, Results, read, write
from benchmarks.names import plot_name
from benchmarks.page import page
from benchmarks.plan import QUICK, parse
from benchmarks.styles import STYLES
from benchmarks.team import between
from benchmarks.turns import take_turns

ROOT = Path(__file__).parents[1]
VLLM, TCPSTORE, FLOOR = RATIOS


def figure(contestant: str, microseconds: list[float]) -> Figure:
    """Of a barrier of 8."""
    return Figure(GROUP, "barrier", 8, contestant, None, 3, microseconds)


def results(*figures: Figure) -> Results:
    """Of a short run."""
    plan = json.loads(json.dumps(dataclasses.asdict(QUICK) | {"object_bytes": 170}))
    left_out = {"redis": "redis-server is not installed"}
    return Results("2026-01-02T03:04:05+00:00", True, {"processors": 2}, plan, {"torch": "2"}, left_out, [*figures])


def test_a_ratio_is_taken_within_rounds() -> None:
    """A slow minute of the machine is in both, and so not in their ratio."""
    mine, vllm = figure("aiopg-uvloop", [10, 1000, 20]), figure("vllm", [20, 2000, 60])
    assert VLLM.of(mine, [mine, vllm]) == 2
    assert VLLM.of(mine, [mine]) is None


def test_a_contestant_that_failed_has_no_figure() -> None:
    """Neither a median nor a ratio, however many rounds it ran before."""
    mine, other = figure("aiopg-uvloop", [10, 20, 30]), figure("tcpstore", [10, 20])
    other.error = "rank 3 ended: KeyError"
    assert other.median is None
    assert TCPSTORE.of(mine, [mine, other]) is None
    text = tables.markdown(results(mine, other))
    assert "| 8 | torch TCPStore | failed | rank 3 ended: KeyError |" in text


def test_a_block_lasts_from_the_last_start_to_the_last_end() -> None:
    """Of each repetition, where they have times of their own."""
    slow, late = {"starts": [0, 100], "ends": [30, 200]}, {"starts": [10, 150], "ends": [20, 180]}
    assert between([slow, late]) == pytest.approx((20 + 50) / 1e9)


def test_everybody_runs_once_in_a_round_and_first_in_turn() -> None:
    """Nobody always runs behind the same neighbour's caches."""
    assert "".join(take_turns("abc", 3)) == "abcbcacab"


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    """And one of another version of the benchmarks is refused."""
    written = results(figure("vllm", [1.5, 2.5]))
    path = write(written, tmp_path)
    assert read(path) == written
    path.write_text('{"schema": 1}')
    with pytest.raises(ValueError, match="schema 2"):
        read(path)


def test_the_page_tells_of_a_short_run_and_of_who_was_left_out() -> None:
    """It has the plot and the table of each operation, and nothing that a reader could try to run."""
    figures = [
        figure("aiopg-uvloop", [10, 20, 30]),
        Figure(PAYLOAD, "broadcast", 4, "aiopg-uvloop", 2**20, 3, [1000.0]),
        Figure(CONNECTIONS, "join", 10_000, "tcpstore", left_out="a process may open 1,024 files here"),
    ]
    text = page(results(*figures))
    for expected in (
        "2026-01-02",
        "short run",
        "left out: Redis with scripts: redis-server is not installed",
        "| 8 | aiopg (uvloop) | 20.0 | 10.0 - 30.0 |",
        "| 1 MiB | aiopg (uvloop) | 1,000 | 1,000 - 1,000 | 1,048.6 |",
        "| 10,000 | torch TCPStore | left out | a process may open 1,024 files here |",
        *(f"(benchmarks/{plot_name(each.question, each.operation)})" for each in figures),
    ):
        assert expected in text
    assert "```" not in text


def test_the_page_in_the_docs_has_its_plots() -> None:
    """It was made together with them."""
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    shown = {line.partition("(benchmarks/")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert shown == {path.name for path in (ROOT / "docs" / "benchmarks").iterdir()}


def test_every_contestant_can_be_drawn() -> None:
    """Or the page of a long run could not be made."""
    assert STYLES.keys() == ENTRIES.keys()


def test_few_rounds_make_a_short_run() -> None:
    """Their medians are not to be quoted."""
    assert not parse([]).short
    assert parse(["--rounds", "3"]).short
    assert parse(["--quick"]).short
    with pytest.raises(SystemExit):
        parse(["--sizes", "1"])


def test_a_race_of_real_processes() -> None:
    """Every operation of aiopg's contestants gets a figure."""
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--questions",
        "group",
        "--sizes",
        "3",
        "--rounds",
        "1",
        "--block",
        "0.01",
    ]
    command += ["--contestants", "aiopg-sync", "aiopg-asyncio"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert run.returncode == 0, run.stderr
    for operation in ("barrier", "all_gather", "broadcast", "message", "all_reduce", "join"):
        assert f"### {operation}, microseconds" in run.stdout
    assert run.stdout.count("| 3 | aiopg sync | ") == 6
    path = Path(run.stderr.partition("written to ")[2].splitlines()[0])
    assert len(read(path).figures) == 12
    path.unlink()
