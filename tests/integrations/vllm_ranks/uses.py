"""What is done with the group: by vLLM itself, by trainers, by scripts."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import runpy
import sys
import time
import types
from typing import Any

import torch
from vllm.distributed.device_communicators import pynccl, pynccl_wrapper

from aiopg.integrations import vllm as integration
from tests.integrations.vllm_ranks.common import HOST, make, same
from tests.system.ranks import resident_bytes


class Library:
    """NCCL as far as PyNcclCommunicator goes before it touches a GPU."""

    unique = bytes(range(128))

    def __init__(self, path: str | None) -> None:
        self.joined: tuple[int, bytes, int] | None = None

    def ncclGetRawVersion(self) -> int:
        return 22000

    def ncclGetVersion(self) -> str:
        return "2.20.0"

    def ncclGetUniqueId(self) -> Any:
        return pynccl_wrapper.ncclUniqueId.from_buffer_copy(self.unique)

    def ncclCommInitRank(self, world_size: int, unique_id: Any, rank: int) -> Any:
        assert type(unique_id) is pynccl_wrapper.ncclUniqueId
        self.joined = (world_size, bytes(unique_id), rank)


def communicator(rank: int, world_size: int, port: int) -> Any:
    """vLLM's PyNcclCommunicator takes the group, and all its ranks get rank 0's unique id."""
    group = make(rank, world_size, port)
    with_library: Any = pynccl
    with_library.NCCLLibrary = Library
    pynccl._warmup_tls.deferred = True  # the next thing would be an all_reduce on a GPU
    made = pynccl.PyNcclCommunicator(group, device="cpu")
    assert (made.rank, made.world_size, made.group) == (rank, world_size, group)
    assert made.nccl.joined == (world_size, Library.unique, rank)
    group.barrier()
    group.close()


def same_node(rank: int, world_size: int, port: int) -> Any:
    """vLLM's own functions over the group: who shares memory with whom, and a queue in shared memory."""
    from vllm.distributed import parallel_state
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    group = make(rank, world_size, port)
    assert parallel_state.in_the_same_node_as(group, source_rank=1) == [True] * world_size
    assert parallel_state._node_count(group) == 1
    metadata, _ = parallel_state._split_tensor_dict({"weights": torch.zeros(2, 3, dtype=torch.bfloat16), "n": 7})
    received = group.broadcast_obj(metadata if rank == 0 else None, 0)
    assert received == metadata
    assert type(received[0][1]) is parallel_state.TensorMetadata
    queue = MessageQueue.create_from_process_group(group, 1 << 16, 4)
    if rank == 0:
        queue.enqueue("to all")
    else:
        assert queue.dequeue(timeout=20) == "to all"
    group.barrier()
    group.close()


def stand_in(name: str, **attributes: object) -> None:
    """A module in the place of one that needs the whole of vLLM."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(attributes)


def coordinator(rank: int, world_size: int, port: int) -> Any:
    """vLLM's StatelessGroupCoordinator over a patched vLLM."""
    # The engine's configuration, of which there is none, and what needs a GPU and is not used.
    stand_in("vllm.config", get_current_vllm_config_or_none=lambda: None)
    stand_in("vllm.distributed.device_communicators.cuda_communicator", CudaCommunicator=object)
    integration.patch()
    from vllm.distributed.stateless_coordinator import StatelessGroupCoordinator

    store = torch.distributed.TCPStore(HOST, port, world_size, rank == 0)
    made = StatelessGroupCoordinator(
        [[*range(world_size)]], rank, "gloo", False, store, global_rank=rank, global_world_size=world_size
    )
    assert type(made.tcp_store_group) is integration.StatelessProcessGroup
    weights = {"layer": torch.arange(6).view(2, 3).to(torch.bfloat16), "empty": torch.zeros(0), "step": 7}
    received = [made.broadcast_tensor_dict(weights if rank == 0 else None, 0)]
    if rank == 0:
        made.send_tensor_dict(weights, 1)
        made.send_object({"text": "x"}, 1)
    elif rank == 1:
        received.append(made.recv_tensor_dict(0))
        assert made.recv_object(0) == {"text": "x"}
    for tensors in received:
        assert tensors.keys() == weights.keys()
        assert tensors["step"] == 7
        assert all(same(tensors[name], weights[name]) for name in ("layer", "empty"))
    assert made.broadcast_object_list([rank, "b"], 1) == [1, "b"]
    assert made.broadcast(torch.full((2,), rank), 1).tolist() == [1, 1]
    made.barrier()


def barriers(rank: int, world_size: int, port: int, count: int, store: int) -> Any:
    """A barrier for each parameter, as a trainer syncs weights: seconds, and memory of this rank and of the store.

    Memory is that in the middle (the store's recorder is full by then) and at the end.
    """
    group = make(rank, world_size, port)
    began = time.monotonic()
    memory = []
    for turn in range(1, count + 1):
        group.barrier()
        if turn in (count // 2, count):
            gc.collect()
            memory.append([resident_bytes(os.getpid()), resident_bytes(store)])
    seconds = time.monotonic() - began
    kept = len(group.entries)
    group.barrier()
    group.close()
    return {"seconds": seconds, "memory": memory, "entries": kept}


def script(rank: int, world_size: int, path: str, port: int) -> Any:
    """Run a script as its own program; the lines that it prints."""
    sys.argv = [path, str(rank), str(world_size), str(port)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(path, run_name="__main__")
    return printed.getvalue().splitlines()
