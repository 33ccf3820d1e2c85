"""What `from_env()` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Environment", "read_environment"]


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
    """RANK, WORLD_SIZE and either AIOPG_URL or MASTER_ADDR and MASTER_PORT; AIOPG_GROUP and AIOPG_TIMEOUT if set.

    Raises `ValueError` that names what is missing or what has no sense.
    """
    env = os.environ if variables is None else variables
    url = env.get("AIOPG_URL") or None
    wanted = ["RANK", "WORLD_SIZE"] + ([] if url else ["MASTER_ADDR", "MASTER_PORT"])
    missing = [name for name in wanted if not env.get(name)]
    if missing:
        raise ValueError(
            f"from_env() found no {', '.join(missing)} in the environment; a launcher (aiopg run, torchrun) sets "
            "RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or AIOPG_URL for a store that already runs"
        )
    timeout = env.get("AIOPG_TIMEOUT")
    return Environment(
        rank=_integer(env, "RANK"),
        world_size=_integer(env, "WORLD_SIZE"),
        host=env.get("MASTER_ADDR", ""),
        port=0 if url else _integer(env, "MASTER_PORT"),
        url=url,
        group=env.get("AIOPG_GROUP") or "default",
        timeout=_seconds("AIOPG_TIMEOUT", timeout) if timeout else None,
    )


def _integer(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except ValueError:
        raise ValueError(f"{name} in the environment must be a whole number, not {env[name]!r}") from None


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} in the environment must be seconds, not {text!r}") from None
