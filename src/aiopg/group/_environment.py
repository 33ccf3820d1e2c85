"""What `from_env()` reads. docs/launchers.md has it as a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from aiopg.group._launchers import LAUNCHERS, Variables, whole_number

__all__ = ["Environment", "read_environment"]


PLAIN = ("RANK", "WORLD_SIZE", "AIOPG_URL", "MASTER_ADDR", "AIOPG_PORT", "MASTER_PORT")
"""What torchrun and `aiopg run` set, and who sets variables by hand."""

HINT = (
    "start it with a launcher (aiopg run, torchrun, srun, mpirun), or set RANK, WORLD_SIZE, MASTER_ADDR and "
    "MASTER_PORT (or AIOPG_URL for a store that already runs)"
)


class Environment(NamedTuple):
    """A rank's place as a launcher says it."""

    rank: int
    world_size: int
    host: str
    port: int
    url: str | None
    """A store that already runs; then host and port do not matter."""
    group: str
    timeout: float | None


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """This process's place, and where its group meets. A variable that is empty is one that is not set.

    The place is RANK and WORLD_SIZE; or what Open MPI, MPICH, Slurm or a Kubernetes indexed Job says (the first of
    them that does), and there RANK or WORLD_SIZE may add what is missing, and must not contradict. The address is
    AIOPG_URL; or MASTER_ADDR, with AIOPG_PORT or MASTER_PORT; or of these two what is not set, from a launcher that
    says this very place. AIOPG_GROUP and AIOPG_TIMEOUT, if set.

    Raises `ValueError`: something is missing (the text says what was looked for and what was found), contradicts
    another variable, or makes no sense.
    """
    env = {name: value for name, value in (os.environ if variables is None else variables).items() if value}
    rank, size = _place(env)
    url = env.get("AIOPG_URL")
    host, port = ("", 0) if url else _address(env, rank, size)
    needs = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": host, "MASTER_PORT": port}
    missing = [name for name, found in needs.items() if found is None]
    if rank is None or size is None or host is None or port is None:
        raise ValueError(_refusal(env, missing))
    return Environment(
        *_checked_place(env, rank, size),
        host=host,
        port=whole_number(env, port) if isinstance(port, str) else port,
        url=url,
        group=env.get("AIOPG_GROUP", "default"),
        timeout=_seconds(env, "AIOPG_TIMEOUT"),
    )


def _place(env: Variables) -> tuple[str | None, str | None]:
    """The variables with the rank and with the world size, where there are any."""
    launcher = next((launcher for launcher in LAUNCHERS if launcher.rank in env), None)
    rank, size = ("RANK" if "RANK" in env else None), ("WORLD_SIZE" if "WORLD_SIZE" in env else None)
    if launcher is None or (rank and size):
        return rank, size
    for plain, own in ((rank, launcher.rank), (size, launcher.size(env))):
        if plain and own and whole_number(env, plain) != whole_number(env, own):
            raise ValueError(
                f"the environment contradicts itself: {plain}={env[plain]}, but {own}={env[own]} ({launcher.name}); "
                "set both RANK and WORLD_SIZE, or neither"
            )
    return rank or launcher.rank, size or launcher.size(env)


def _address(env: Variables, rank: str | None, size: str | None) -> tuple[str | None, str | int | None]:
    """Where rank 0 listens: the host, and the port or the variable that has it."""
    host = env.get("MASTER_ADDR")
    port: str | int | None = next((name for name in ("AIOPG_PORT", "MASTER_PORT") if name in env), None)
    for launcher in LAUNCHERS:
        own_size = launcher.size(env)
        # One that says another place counts other processes than these: torchrun may run once on each Slurm node.
        if rank and size and own_size and (env.get(launcher.rank), env[own_size]) == (env[rank], env[size]):
            host = launcher.host(env) if host is None else host
            port = launcher.port(env) if port is None else port
    return host, port


def _checked_place(env: Variables, rank: str, size: str) -> tuple[int, int]:
    own, world_size = whole_number(env, rank), whole_number(env, size)
    if not 0 <= own < world_size:
        raise ValueError(
            f"{rank}={own} and {size}={world_size} in the environment contradict each other: "
            f"a rank is from 0 to the world size less one"
        )
    return own, world_size


def _refusal(env: Variables, missing: list[str]) -> str:
    known = [*PLAIN, *(name for launcher in LAUNCHERS for name in launcher.variables)]
    started_by = next((launcher for launcher in LAUNCHERS if launcher.rank in env), None)
    return "\n    ".join(
        (
            f"from_env() found no {', '.join(missing)} in the environment",
            f"what to do: {f'under {started_by.name}, {started_by.hint}' if started_by else HINT}",
            f"found: {', '.join(f'{name}={env[name]}' for name in known if name in env) or 'nothing'}",
            f"looked for: {', '.join(PLAIN)}; "
            + "; ".join(f"of {launcher.name}: {', '.join(launcher.variables)}" for launcher in LAUNCHERS),
        )
    )


def _seconds(env: Variables, name: str) -> float | None:
    try:
        return float(env[name]) if name in env else None
    except ValueError:
        raise ValueError(f"{name} in the environment must be seconds, not {env[name]!r}") from None
