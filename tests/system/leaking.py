"""What the ranks of `test_leaks` do; see `programs`."""

from __future__ import annotations

import os

from .programs import Place, main, say


async def forms_groups(place: Place) -> None:
    """Many groups, one after another; the file descriptors in use after the first, and after the last."""
    stores, descriptors = set(), []
    for number in range(int(place.options[0])):
        group = await place.create(group=f"group {number}")
        await group.send(number, (group.rank + 1) % group.world_size)
        assert await group.all_gather(group.rank) == list(range(group.world_size))
        stores.add(getattr(group.store.link, "server_pid", 0))
        await group.close()
        descriptors.append(len(os.listdir("/proc/self/fd")))
    say([sorted(stores), descriptors[0], descriptors[-1]])


async def is_killed(place: Place) -> None:
    """Join, leave a message that nobody reads, and wait to be killed."""
    group = await place.create(group="killed")
    await group.send("nobody reads this", (group.rank + 1) % group.world_size)
    await group.barrier()
    say("here")
    await group.recv(group.rank - 1, tag="never")


if __name__ == "__main__":
    main(globals())
