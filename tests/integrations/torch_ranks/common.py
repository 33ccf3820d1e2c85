"""What the programs share."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# What programs that import torch do not see: a rank that is forked here has the filters of this process.
warnings.simplefilter("error")

PATIENCE = timedelta(seconds=20)


@contextmanager
def initialized(rank: int, world_size: int, store: Any, timeout: timedelta = PATIENCE) -> Iterator[None]:
    """In the block there is torch's default group, over gloo on loopback."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)
    del store
    gc.collect()  # if torch were to need Python's half of it, and nobody held that, it would be gone now
    try:
        yield
    finally:
        dist.destroy_process_group()


def work(rank: int, world_size: int) -> dict[str, Any]:
    """Each kind of collective; what came out."""
    total = torch.tensor([rank + 1.0])
    dist.all_reduce(total)
    told = torch.full((3,), float(rank))
    dist.broadcast(told, src=1)
    objects: list[Any] = [None] * world_size
    dist.all_gather_object(objects, {"rank": rank})
    dist.barrier()
    return {"all_reduce": total.item(), "broadcast": told.tolist(), "all_gather_object": objects}


def expected(world_size: int) -> dict[str, Any]:
    """What is to come out of `work`."""
    return {
        "all_reduce": world_size * (world_size + 1) / 2,
        "broadcast": [1.0] * 3,
        "all_gather_object": [{"rank": rank} for rank in range(world_size)],
    }
