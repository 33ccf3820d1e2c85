"""What launchers say about a process in its environment: its rank, how many there are, and where rank 0 is.

Each launcher is taken at its word only for what it promises. An address is one where rank 0 itself runs, since rank 0
listens there: so the host of `srun` (SLURM_LAUNCH_NODE_IPADDR) and that of `mpirun` (OMPI_MCA_orte_hnp_uri) are none.
A port that is derived is the same on every rank, differs between jobs that are likely to run beside each other, and
lies below those that the kernel gives to outgoing connections.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

__all__ = ["LAUNCHERS", "Launcher", "Variables", "first_host", "whole_number"]

Variables: TypeAlias = Mapping[str, str]
"""The environment, without variables that are empty."""

FIRST_PORT: Final = 20000
PORTS: Final = 12000
STEPS: Final = 10
"""Steps of one Slurm job that have ports of their own before those of the next job begin."""

LOOPBACK: Final = "127.0.0.1"


class Launcher(NamedTuple):
    """One that gives processes their ranks in variables of its own."""

    name: str
    rank: str
    """The variable with the rank; where it is set, this launcher started the process."""
    sizes: tuple[str, ...]
    """Variables with the world size; the first that is set counts."""
    host: Callable[[Variables], str | None]
    """Where rank 0 runs, if the launcher says so. Raises `ValueError` for what cannot be read."""
    port: Callable[[Variables], int | None]
    """A port for this job, if the launcher says what job it is. Raises `ValueError` likewise."""
    hint: str
    """What to set by hand where something is missing."""

    @property
    def variables(self) -> tuple[str, ...]:
        """What it is asked for."""
        return (self.rank, *self.sizes)

    def size(self, variables: Variables) -> str | None:
        """The variable that has the world size, if there is one."""
        return next((name for name in self.sizes if name in variables), None)


def whole_number(variables: Variables, name: str) -> int:
    """The value of a variable that is set. Raises `ValueError` that shows it."""
    try:
        return int(variables[name])
    except ValueError:
        raise ValueError(f"{name} in the environment must be a whole number, not {variables[name]!r}") from None


def first_host(nodes: str) -> str:
    """The first of a list of hosts as Slurm writes it: `gpu[07-09,12],login1` begins with `gpu07`.

    Raises `ValueError` for what is no such list.
    """
    found = re.match(r"(?:[^\s,\[\]]|\[[^\s\[\]]*\])+(?=[\s,]|$)", nodes)
    host = re.sub(r"\[([0-9A-Z]*)[^]]*\]", r"\1", found[0]) if found else ""
    if found is None or not re.fullmatch(r"[\w.-]+", host) or "[]" in found[0]:
        raise ValueError(f"{nodes!r:.200} is no list of hosts as Slurm writes it")
    return host


def _slurm_host(variables: Variables) -> str | None:
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"):
        if name in variables:
            try:
                return first_host(variables[name])
            except ValueError as error:
                raise ValueError(f"{name} in the environment: {error}; set MASTER_ADDR instead") from None
    return None


def _slurm_port(variables: Variables) -> int | None:
    if "SLURM_JOB_ID" not in variables:
        return None
    step = whole_number(variables, "SLURM_STEP_ID") if "SLURM_STEP_ID" in variables else 0
    return FIRST_PORT + (STEPS * whole_number(variables, "SLURM_JOB_ID") + step) % PORTS


def _open_mpi_host(variables: Variables) -> str | None:
    """This host, where all ranks are on it; else Open MPI does not say where rank 0 runs."""
    sizes = [variables.get(f"OMPI_COMM_WORLD_{local}SIZE") for local in ("", "LOCAL_")]
    return LOOPBACK if sizes[0] == sizes[1] else None


def _open_mpi_port(variables: Variables) -> int | None:
    job = variables.get("PMIX_NAMESPACE")
    return None if job is None else FIRST_PORT + zlib.crc32(job.encode(errors="replace")) % PORTS


def _unknown(variables: Variables) -> None:
    return None


LAUNCHERS: Final = (
    Launcher(
        name="Open MPI",
        rank="OMPI_COMM_WORLD_RANK",
        sizes=("OMPI_COMM_WORLD_SIZE",),
        host=_open_mpi_host,
        port=_open_mpi_port,
        hint="which does not say where rank 0 runs unless all ranks share one host, give mpirun "
        "-x MASTER_ADDR=HOST -x MASTER_PORT=PORT, with the host of rank 0 and a port that is free there",
    ),
    Launcher(
        name="MPICH or Intel MPI",
        rank="PMI_RANK",
        sizes=("PMI_SIZE",),
        host=_unknown,
        port=_unknown,
        hint="which does not say where rank 0 runs, give mpiexec -genv MASTER_ADDR HOST -genv MASTER_PORT PORT, "
        "with the host of rank 0 and a port that is free there",
    ),
    Launcher(
        name="Slurm",
        rank="SLURM_PROCID",
        sizes=("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
        host=_slurm_host,
        port=_slurm_port,
        hint="start the program with srun, which says all of it; or set what is missing in the batch script",
    ),
    Launcher(
        name="a Kubernetes indexed Job",
        rank="JOB_COMPLETION_INDEX",
        sizes=(),
        host=_unknown,
        port=_unknown,
        hint="set WORLD_SIZE to the completions of the Job, MASTER_ADDR to the name of its pod 0 in a headless Service "
        "(JOB-0.SERVICE), and MASTER_PORT to any port",
    ),
)
"""In order: who starts processes of its own inside of the next one comes first (mpirun runs inside of a Slurm job)."""
