"""torch's gloo backend: the object collectives of `torch.distributed` over a mesh of TCP connections on loopback.

barrier     `barrier()`
all_gather  `all_gather_object`: pickles, gathers the sizes, pads, gathers the bytes
broadcast   `broadcast_object_list` of one object: the size, then the bytes
message     `send_object_list` and `recv_object_list` of one object
all_reduce  `all_reduce` of a float64 tensor, on a copy, as it reduces in place
join        `new_group` of all ranks, on the group that runs
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from benchmarks import payload
from benchmarks.contestants.base import FORM_SECONDS, BlockingContestant, Leave, Seat


class _Calls:
    """The operations of one rank in the default group."""

    def __init__(self, world_size: int, rank: int) -> None:
        self._rank = rank
        self._world_size = world_size

    def barrier(self) -> None:
        dist.barrier()

    def all_gather(self, obj: Any) -> list[Any]:
        gathered = [None] * self._world_size
        dist.all_gather_object(gathered, obj)
        return gathered

    def broadcast(self, obj: Any, src: int) -> Any:
        objects = [obj]
        dist.broadcast_object_list(objects, src)
        return objects[0]

    def send(self, obj: Any, dst: int) -> None:
        dist.send_object_list([obj], dst)

    def recv(self, src: int) -> Any:
        objects = [None]
        dist.recv_object_list(objects, src)
        return objects[0]

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        result = values.clone()
        dist.all_reduce(result)
        return result


class Gloo(BlockingContestant):
    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def numbers(self, rank: int) -> torch.Tensor:
        return torch.tensor(payload.numbers(rank), dtype=torch.float64)

    def form(self, seat: Seat) -> _Calls:
        timeout = timedelta(seconds=FORM_SECONDS)
        store = dist.TCPStore(
            seat.host,
            seat.port,
            seat.world_size,
            is_master=seat.rank == 0,
            timeout=timeout,
            master_listen_fd=None if seat.listener is None else seat.listener.detach(),
        )
        dist.init_process_group("gloo", store=store, rank=seat.rank, world_size=seat.world_size, timeout=timeout)
        return _Calls(seat.world_size, seat.rank)

    def join(self, seat: Seat) -> Leave:
        if seat.listener is not None:
            seat.listener.close()  # the group that runs is the way to the new one
        group = dist.new_group(list(range(seat.world_size)))
        return lambda: dist.destroy_process_group(group)

    def close(self) -> None:
        dist.destroy_process_group()
