"""A script as they are written for vLLM's group: of `StatelessProcessGroup` alone, and of nothing of aiopg.

A trainer (rank 0) and its inference workers agree on the layout of some weights, hand them over, and check what
arrived. What each rank prints must not depend on whose group it is.
"""

import hashlib
import sys
from dataclasses import fields, is_dataclass

import torch
from torch.distributed import ReduceOp
from vllm.distributed.utils import StatelessProcessGroup

LAYERS = 4


def digest(tensor: torch.Tensor) -> str:
    """A short name for a tensor's bytes."""
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(raw).hexdigest()[:12]


def weights(layer: int) -> torch.Tensor:
    """The trainer's weights of one layer."""
    generator = torch.Generator().manual_seed(layer)
    return torch.randn(8, 16, generator=generator).to(torch.bfloat16)


def agree(group: StatelessProcessGroup) -> list[tuple[str, tuple[int, ...], str]]:
    """Everybody says who it is, and the trainer what comes."""
    hosts = group.all_gather_obj({"rank": group.rank, "role": "worker" if group.rank else "trainer"})
    print("together:", hosts)
    layout = [(f"layer.{i}", tuple(weights(i).shape), "bfloat16") for i in range(LAYERS)]
    layout = group.broadcast_obj(layout if group.rank == 0 else None, src=0)
    print("layout:", layout)
    return list(layout)


def appoint(group: StatelessProcessGroup) -> None:
    """The trainer makes worker 1 the one that answers for all, and everybody learns what it says.

    No rank gets messages from two others here: vLLM 0.33 mixes them up.
    """
    if group.rank == 0:
        group.send_obj({"speaker": True, "key": b"\x00\xff" * 8}, dst=1)
    task = group.recv_obj(src=0) if group.rank == 1 else None
    print("task:", task)
    answer = group.broadcast_obj({"ready": True, "ports": (14579, 14580)} if task else None, src=1)
    print("answer:", answer)


def hand_over(group: StatelessProcessGroup, layout: list[tuple[str, tuple[int, ...], str]]) -> dict[str, torch.Tensor]:
    """A broadcast and a barrier for each parameter, as trainers do it."""
    model = {}
    for i, (name, shape, dtype) in enumerate(layout):
        buffer = weights(i) if group.rank == 0 else torch.empty(shape, dtype=getattr(torch, dtype))
        model[name] = group.broadcast(buffer, src=0)
        group.barrier()
    print("model:", {name: digest(tensor) for name, tensor in model.items()})
    return model


def check(group: StatelessProcessGroup, model: dict[str, torch.Tensor]) -> None:
    """Sums over all ranks, and what the neighbour has."""
    total = group.all_reduce(torch.stack([tensor.float().sum() for tensor in model.values()]))
    print("sums:", digest(total))
    for op in (ReduceOp.SUM, ReduceOp.PRODUCT, ReduceOp.MAX, ReduceOp.MIN):
        print("reduced:", group.all_reduce(torch.tensor([group.rank + 1, 2]), op=op).tolist())
    after, before = (group.rank + 1) % group.world_size, (group.rank - 1) % group.world_size
    group.send_obj({"digest": digest(model["layer.0"]), "to": after}, dst=after)
    print("neighbour:", group.recv_obj(src=before))
    group.send(model["layer.1"][:, ::2], dst=after)
    target = torch.zeros(8, 8, dtype=torch.bfloat16)
    received = group.recv(target, src=before)
    print("half:", digest(target), received is target)


def count(group: StatelessProcessGroup) -> None:
    """What a dataclass of vLLM shows."""
    print("dataclass:", is_dataclass(group), [field.name for field in fields(group)][:3])
    print("place:", group.rank, group.world_size, group.data_expiration_seconds)
    after, before = (group.rank + 1) % group.world_size, (group.rank - 1) % group.world_size
    print("sent:", group.send_dst_counter[after], "received:", group.recv_src_counter[before])


def main(rank: int, world_size: int, port: int) -> None:
    """What each rank does."""
    group = StatelessProcessGroup.create(
        host="127.0.0.1",
        port=port,
        rank=rank,
        world_size=world_size,
        data_expiration_seconds=600,
        store_timeout=60,
    )
    layout = agree(group)
    appoint(group)
    model = hand_over(group, layout)
    check(group, model)
    count(group)
    group.expire_data()
    group.barrier(timeout=30.0)
    print("done")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
