"""The simulator is tried on bugs that were put in on purpose:

    python -m tests.simulation.planted [NAME ...]

tells at which seed each is found. One that is not found within `LIMIT` seeds means that the simulator is blind.
"""

from __future__ import annotations

import sys

from tests.simulation.bugs import BUGS
from tests.simulation.play import play

__all__ = ["LIMIT", "find"]

LIMIT = 10_000
"""The rarest of them shows in one seed of a thousand."""


def find(name: str, limit: int = LIMIT) -> tuple[int, str] | None:
    """The first seed that shows this bug by one of its signs and is clean without it, and what it shows.

    None: no seed within `limit` does.
    """
    bug = BUGS[name]
    for seed in range(1, limit + 1):
        if not bug.has_chance(seed):
            continue
        with bug.put_in():
            wrong = play(seed).wrong
        shown = next((what for what in wrong if any(sign in what for sign in bug.signs)), None)
        if shown is not None and not play(seed).wrong:
            return seed, shown
    return None


def main(names: list[str]) -> int:
    """Try these bugs, or all."""
    blind = 0
    for name in names or BUGS:
        found = find(name)
        blind += found is None
        what = f"seed {found[0]}: {found[1].splitlines()[0]:.200}" if found else f"not found in {LIMIT} seeds"
        print(f"{name}: {what}", flush=True)
    return 1 if blind else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
