"""Groups that share members, a store and a port: {A, B}, then {A, B, C, D}, then {B, D} out of the latter.

::

    aiopg run -n 4 -- python examples/overlapping_groups.py

A group is an object and not global state, so a process can be in as many as it likes, and use them at once. All that
a new group needs on a store that is in use is a name of its own.
"""

from __future__ import annotations

import asyncio
import os

from aiopg import AsyncStatelessGroup

ME = "ABCD"[int(os.environ["RANK"])]


async def form_pair() -> AsyncStatelessGroup | None:
    """A and B are there first."""
    if ME not in "AB":
        return None
    pair = await AsyncStatelessGroup.from_env(world_size=2, group="pair")
    print(f"{ME}: the pair is {''.join(await pair.all_gather(ME))}")
    return pair


async def use_all(
    pair: AsyncStatelessGroup | None, everyone: AsyncStatelessGroup, middle: AsyncStatelessGroup | None
) -> None:
    """Calls on all three groups wait at the same time, and none disturbs another."""
    calls = [group.all_gather(ME) for group in (pair, everyone, middle) if group is not None]
    print(f"{ME}: I am in {', '.join(''.join(names) for names in await asyncio.gather(*calls))}")


async def main() -> None:
    """What each of the four does."""
    pair = await form_pair()
    everyone = await AsyncStatelessGroup.from_env(group="everyone")
    print(f"{ME}: everyone is {''.join(await everyone.all_gather(ME))}")

    # Over the link that is there already; ranks are counted anew: B is 0, D is 1.
    middle = await everyone.subgroup([1, 3]) if ME in "BD" else None
    await use_all(pair, everyone, middle)
    await everyone.barrier()
    for group in (middle, everyone, pair):
        if group is not None:
            await group.close()


if __name__ == "__main__":
    asyncio.run(main())
