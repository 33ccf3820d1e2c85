"""What docs/launchers.md says is so: its table is that of `from_env()`, its scripts and its manifest are understood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiopg.group._environment import PLAIN, read_environment
from aiopg.group._launchers import LAUNCHERS

PAGE = (Path(__file__).parents[1] / "docs" / "launchers.md").read_text()

SRUN = """#!/bin/bash
# As Slurm's own does, on one host: as many tasks as the script asks for.
export SLURM_JOB_ID=$$ SLURM_STEP_ID=0 SLURM_STEP_NODELIST='127.0.0.[1-2]' SLURM_STEP_NUM_TASKS=3
for rank in 0 1 2; do SLURM_PROCID=$rank "$@" & done
wait
"""


def section(heading: str) -> str:
    """What is below a heading."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def block(text: str, language: str) -> str:
    """Its first block of code in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def table() -> list[list[str]]:
    """The cells of each launcher: its name, rank, world size, host and port."""
    lines = section("What is read").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows[2:] if len(row) == 5]


def names(cell: str) -> list[str]:
    """The variables in a cell."""
    return re.findall(r"`([A-Z]\w+)`", cell)


def test_the_table_names_what_is_read() -> None:
    """Every variable of each launcher, in the order in which they count, and nothing that is not read."""
    read = [(names(rank), names(size)) for _, rank, size, *_ in table()]
    assert read[:2] == [(["RANK"], ["WORLD_SIZE"])] * 2
    assert read[2:] == [([launcher.rank], [*launcher.sizes]) for launcher in LAUNCHERS]
    assert {*PLAIN} <= {*names(section("What is read"))}


@pytest.mark.parametrize(
    ("launcher", "variables"),
    [("MPICH", {"PMI_RANK": "0", "PMI_SIZE": "1"}), ("Kubernetes", {"JOB_COMPLETION_INDEX": "0"})],
)
def test_what_is_not_told_is_what_is_missing(launcher: str, variables: dict[str, str]) -> None:
    """`from_env()` asks for just that."""
    (cells,) = (row for row in table() if row[0].startswith(launcher))
    needs = zip(("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"), cells[2:], strict=True)
    missing = ", ".join(name for name, cell in needs if cell == "not told")
    with pytest.raises(ValueError, match=rf"^from_env\(\) found no {missing} in the environment"):
        read_environment(variables)


def test_the_batch_script_works(tmp_path: Path) -> None:
    """With an `srun` that is not Slurm's, and sets what that sets."""
    (tmp_path / "ranks.py").write_text(block(PAGE, "python"))
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o700)
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AIOPG_")}
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), mine["PATH"]])
    done = subprocess.run(
        ["bash", "-c", block(section("Slurm"), "sh")],
        cwd=tmp_path,
        env=mine | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ranks [0, 1, 2]\n", "")


def test_the_manifest_says_what_a_pod_needs() -> None:
    """Beside its index: pod 0 has the name that the Job and the Service give it."""
    manifest = block(section("Kubernetes"), "yaml")
    service, job = re.findall(r"^  name: (\S+)", manifest, re.MULTILINE)
    assert f"subdomain: {service}\n" in manifest
    assert f"job-name: {job}\n" in manifest
    variables = dict(re.findall(r'- name: (\w+)\n\s+value: "?([^"\n]+)"?', manifest))
    size = re.findall(r"(?:completions|parallelism): (\d+)", manifest)
    read = read_environment(variables | {"JOB_COMPLETION_INDEX": "3"})
    assert [str(read.world_size)] * 2 == size
    assert (read.rank, read.host, read.port) == (3, f"{job}-0.{service}", 29500)
