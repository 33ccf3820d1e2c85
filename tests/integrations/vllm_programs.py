"""What the ranks of the tests of `aiopg.integrations.vllm` do. Each program is called as (rank, world_size, ...)."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import os
import pickle
import runpy
import signal
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch.distributed import ReduceOp

import aiopg
from aiopg.integrations import vllm as integration
from tests.integrations import vllm_files
from tests.system.ranks import resident_bytes

vllm_files.enter()

from vllm.distributed import utils  # noqa: E402
from vllm.distributed.device_communicators import pynccl, pynccl_wrapper  # noqa: E402

HOST = "127.0.0.1"
DTYPES = ("bfloat16", "float16", "float32", "float64", "int8", "uint8", "int64", "bool", "complex64", "float8_e4m3fn")


@dataclasses.dataclass
class Note:
    """A class of a program."""

    text: str


aiopg.register_type(Note)


def make(rank: int, world_size: int, port: int, **options: Any) -> Any:
    return integration.stateless_group(HOST, port, rank, world_size, 3600, 30, **options)


@contextlib.contextmanager
def raises(kind: type[BaseException], *words: str) -> Iterator[None]:
    """The block raises an error of this kind, and its text has these words."""
    text = None
    try:
        yield
    except kind as error:
        text = str(error)
    assert text is not None, f"no {kind.__name__}"
    assert all(word in text for word in words), text


# ------------------------------------------------------------------------------------------------------- methods


def identity(rank: int, world_size: int, port: int) -> Any:
    """It is one of vLLM's, and has its attributes."""
    group = make(rank, world_size, port)
    assert isinstance(group, utils.StatelessProcessGroup)
    assert (group.rank, group.world_size, group.data_expiration_seconds) == (rank, world_size, 3600)
    for field in dataclasses.fields(utils.StatelessProcessGroup):
        assert hasattr(group, field.name), field.name
    assert group.store is group.store
    assert group in {group}
    assert f"StatelessProcessGroup 'default' rank {rank} of {world_size}" in repr(group)
    group.broadcast_obj("x", 0)
    if rank == 0:
        assert (group.socket, group.broadcast_send_counter) == (None, 1)
        group.send_obj("y", 1)
        assert group.send_dst_counter[1] == 1
        assert len(group.entries) == 2
    else:
        assert group.broadcast_recv_src_counter == {0: 1} | dict.fromkeys(range(1, world_size), 0)
    if rank == 1:
        assert group.recv_obj(0) == "y"
        assert group.recv_src_counter[0] == 1
    group.barrier()
    group.close()


def objects(rank: int, world_size: int, port: int) -> Any:
    """The methods for objects."""
    group = make(rank, world_size, port)
    before, after = (rank - 1) % world_size, (rank + 1) % world_size
    for turn in range(3):
        group.send_obj({"from": rank, "turn": turn}, after)
    assert [group.recv_obj(before) for _ in range(3)] == [{"from": before, "turn": turn} for turn in range(3)]
    # Of two that send to a third vLLM's group delivers one message twice and the other never.
    if rank:
        group.send_obj(("each", rank), 0)
    else:
        assert [group.recv_obj(src) for src in range(1, world_size)] == [("each", src) for src in range(1, world_size)]
    for src in range(world_size):
        obj = {"root": src, "data": [None, 1.5, b"x"]}
        given = obj if rank == src else None
        received = group.broadcast_obj(given, src)
        assert received == obj
        assert rank != src or received is given
    mine = Note(f"of {rank}")
    gathered = group.all_gather_obj(mine)
    assert gathered == [Note(f"of {src}") for src in range(world_size)]
    assert gathered[rank] is mine
    group.expire_data()
    group.barrier()
    group.barrier(timeout=5)
    group.close()


def tensor_of(dtype: str, rank: int) -> Any:
    base = torch.arange(24).reshape(2, 3, 4) + rank
    return (base % 2 == 0) if dtype == "bool" else base.to(torch.float32).to(getattr(torch, dtype))


def same(one: Any, other: Any) -> bool:
    """Equal in dtype, shape and every bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return bool(torch.equal(*bits))


def tensors(rank: int, world_size: int, port: int) -> Any:
    """The methods for tensors: every dtype, and whatever lies in memory in another order."""
    group = make(rank, world_size, port)
    before, after = (rank - 1) % world_size, (rank + 1) % world_size
    for dtype in DTYPES:
        mine, theirs = tensor_of(dtype, rank), tensor_of(dtype, before)
        root = tensor_of(dtype, world_size - 1)
        given = mine if rank == world_size - 1 else None
        received = group.broadcast(given, world_size - 1)
        assert same(received, root), dtype
        assert given is None or received is given
        group.send(mine, after)
        target = torch.zeros_like(mine)
        assert group.recv(target, before) is target
        assert same(target, theirs), dtype
    plain = tensor_of("float32", rank)
    for index, odd in enumerate((plain.transpose(0, 2), plain[:, ::2, 1:], plain.expand(5, 2, 3, 4), plain[0, 0, 0])):
        group.send(odd, after)
        target = torch.zeros_like(odd) if index % 2 else torch.zeros(*odd.shape[::-1]).permute(*range(odd.dim())[::-1])
        expected = group.recv(target, before) - before + rank
        assert same(expected, odd.contiguous()), index
    for empty in (torch.zeros(0), torch.zeros(3, 0, 2, dtype=torch.bfloat16)):
        assert same(group.broadcast(empty, 0), empty)
    parameter = torch.nn.Parameter(plain)
    group.send(parameter, after)
    assert same(group.recv(torch.nn.Parameter(torch.zeros(2, 3, 4)), before).detach(), tensor_of("float32", before))
    conjugated = torch.tensor([1 + 2j, 3 - 1j]).conj()
    assert same(group.broadcast(conjugated, 0).resolve_conj(), conjugated.resolve_conj())
    # As with vLLM, what the other ranks give is not written to.
    untouched = torch.zeros(1)
    group.broadcast(torch.ones(2, 2) if rank == 0 else untouched, 0)
    assert untouched.item() == 0
    group.close()


def reductions(rank: int, world_size: int, port: int) -> Any:
    """all_reduce, and that every rank has the same to the last bit."""
    group = make(rank, world_size, port)
    own = torch.full((3,), rank + 2)
    total = world_size * (world_size + 3) // 2
    product = int(torch.arange(2, world_size + 2).prod())
    assert group.all_reduce(own).tolist() == [total] * 3
    assert own.tolist() == [rank + 2] * 3
    expected = {ReduceOp.SUM: total, ReduceOp.PRODUCT: product, ReduceOp.MAX: world_size + 1, ReduceOp.MIN: 2}
    for op, value in expected.items():
        assert group.all_reduce(own, op).tolist() == [value] * 3
        assert group.all_reduce(own.to(torch.bfloat16), op=op).dtype == torch.bfloat16
    generator = torch.Generator().manual_seed(rank)
    noise = torch.randn(1000, generator=generator)
    result = group.all_reduce(noise)
    assert all(same(result, other) for other in group.all_gather_obj(result))
    # What vLLM's own method makes of the same tensors.
    parts = group.all_gather_obj(noise)
    reference = parts[0].clone()
    for part in parts[1:]:
        reference.add_(part)
    assert same(result, reference)
    group.close()


def large(rank: int, world_size: int, port: int) -> Any:
    """A tensor of 12 MB passes in the worker thread."""
    group = make(rank, world_size, port)
    weights = torch.arange(3_000_000, dtype=torch.int32).view(torch.bfloat16)
    received = group.broadcast(weights if rank == 0 else None, 0)
    assert same(received, weights)
    group.close()


def mistakes(rank: int, world_size: int, port: int) -> Any:
    """Each says what was wrong, and the group goes on."""
    group = make(rank, world_size, port)
    other = 1 - rank
    group.send(torch.zeros(2, 3), other)
    target = torch.ones(3, 2)
    with raises(ValueError, f"rank {other}", "float32 of shape (2, 3)", "float32 of shape (3, 2)"):
        group.recv(target, other)
    assert target.sum() == 6
    group.send(torch.zeros(2), other)
    with raises(ValueError, "torch.float32", "torch.bfloat16"):
        group.recv(torch.zeros(2, dtype=torch.bfloat16), other)
    with raises(TypeError, "not list"):
        group.send([1, 2], other)
    with raises(TypeError, "not NoneType"):
        group.recv(None, other)
    with raises(TypeError, "sparse"):
        group.broadcast(torch.eye(2).to_sparse(), rank)
    with raises(ValueError, "SUM, PRODUCT, MAX or MIN"):
        group.all_reduce(torch.zeros(1), ReduceOp.BAND)
    with raises(ValueError, "rank 0 gave torch.float32 of shape (1,)", "rank 1 gave torch.float32 of shape (2,)"):
        group.all_reduce(torch.zeros(rank + 1))
    group.send(torch.zeros(1), other)
    with raises(aiopg.CodecError, "a tensor where an object is due"):
        group.recv_obj(other)
    group.send_obj("text", other)
    with raises(aiopg.CodecError, "type str where a tensor is due"):
        group.recv(torch.zeros(1), other)
    with raises(aiopg.CodecError, "register_type"):
        group.send_obj(utils.logger, other)
    with raises(aiopg.GroupTimeoutError, f"missing: rank {other}"):
        group.aiopg_group.recv(other, timeout=0.2)
    with raises(TypeError, "URL of an aiopg store", "create"):
        integration.StatelessProcessGroup(rank, world_size, object())  # type: ignore[arg-type]
    assert group.all_gather_obj(rank) == [0, 1]
    if rank == 0:
        with raises(aiopg.GroupTimeoutError, "barrier", "missing: rank 1"):
            group.barrier(0.3)
        group.send_obj("now", 1)
        group.barrier()
    else:
        group.recv_obj(0)
        group.barrier()
    group.close()


def without_pickle(rank: int, world_size: int, port: int) -> Any:
    """All of it where pickle does not work."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("pickled")

    for name in ("dumps", "loads", "dump", "load", "Pickler", "Unpickler"):
        setattr(pickle, name, refuse)
    objects(rank, world_size, port)
    tensors(rank, world_size, port)
    reductions(rank, world_size, port)


# -------------------------------------------------------------------------------------------- what vLLM does with it


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
    """A barrier for each parameter, as a trainer syncs weights: seconds, and memory of this rank and of the store."""
    group = make(rank, world_size, port)
    began = time.monotonic()
    memory = []
    for turn in range(1, count + 1):
        group.barrier()
        if turn in (count // 5, count):
            gc.collect()
            memory.append([resident_bytes(os.getpid()), resident_bytes(store)])
    seconds = time.monotonic() - began
    kept = len(group.entries)
    group.barrier()
    group.close()
    return {"seconds": seconds, "memory": memory, "entries": kept}


# ------------------------------------------------------------------------------------------------------ life cycle


def dropped(rank: int, world_size: int, port: int) -> Any:
    """A group ends with its last reference; the same place can be taken again at once, however long leaving takes."""
    leave = aiopg.StatelessGroup.close

    def leave_slowly(group: aiopg.StatelessGroup) -> None:
        time.sleep(0.2)
        leave(group)

    setattr(aiopg.StatelessGroup, "close", leave_slowly)  # noqa: B010 - mypy would not have it
    for turn in range(4):
        group = make(rank, world_size, port)
        assert group.all_gather_obj([turn, rank]) == [[turn, src] for src in range(world_size)]
        if turn == 2:
            group.itself = group
        del group
        if turn == 2:
            gc.collect()  # which finds it


def death(rank: int, world_size: int, port: int, victim: int) -> Any:
    """A rank is killed while the others wait for it: seconds until they know."""
    group = make(rank, world_size, port)
    group.barrier()
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    began = time.monotonic()
    with raises(aiopg.PeerLostError, f"rank {victim}"):
        group.barrier()
    with raises(aiopg.PeerLostError, f"rank {victim}"):
        group.broadcast(None, victim)
    survivors = [src for src in range(world_size) if src != victim]
    for src in survivors:
        if src != rank:
            group.send_obj(f"{rank} lives", src)
    assert all(group.recv_obj(src) == f"{src} lives" for src in survivors if src != rank)
    group.close()
    return time.monotonic() - began


def at_a_store(rank: int, world_size: int, url: str) -> Any:
    """Over a store that runs, and over a group in hand."""
    with integration.StatelessProcessGroup(rank, world_size, url, 60, group="by url") as group:
        assert group.data_expiration_seconds == 60
        assert group.all_gather_obj(rank) == list(range(world_size))
    inside = aiopg.StatelessGroup.connect(url, rank=rank, world_size=world_size, group="in hand")
    over = integration.StatelessProcessGroup.over(inside)
    assert over.all_reduce(torch.tensor([1])).item() == world_size
    assert over.aiopg_group.gather(rank) == ([*range(world_size)] if rank == 0 else None)
    over.close()
    with raises(aiopg.GroupClosedError):
        inside.barrier()


def patched(rank: int, world_size: int, port: int) -> Any:
    """vLLM's own `create` makes our groups while it is patched, for whoever imported the class before."""
    theirs = utils.StatelessProcessGroup
    original = vars(theirs)["create"]
    integration.unpatch()
    assert vars(theirs)["create"] is original
    with integration.patch(group="one"):
        with theirs.create(host=HOST, port=port, rank=rank, world_size=world_size) as group:
            assert type(group) is integration.StatelessProcessGroup
            assert group.aiopg_group.name == "one"
        with integration.patch(group="two"):
            group = theirs.create(HOST, port, rank, world_size, 60, 30, None)
            assert group.aiopg_group.name == "two"
        with theirs.create(HOST, port, rank, world_size, store_timeout=20) as second:
            assert second.aiopg_group.name == "one"
    assert vars(theirs)["create"] is original
    integration.patch()
    integration.patch()
    integration.unpatch()
    assert vars(theirs)["create"] is original
    assert not [name for name in vars(theirs) if "aiopg" in name]
    group.barrier()
    group.close()


def plugged(rank: int, world_size: int, port: int) -> Any:
    """What vLLM's own processes do when they begin: nothing, or as the environment says."""
    from vllm import plugins

    theirs = utils.StatelessProcessGroup
    original = vars(theirs)["create"]
    for asked in (None, "", "0"):
        begin(plugins, asked)
        assert vars(theirs)["create"] is original
    with raises(ValueError, "AIOPG_PATCH_VLLM must be 1 or 0, not 'yes'"):
        begin(plugins, "yes")
    begin(plugins, "1")
    with theirs.create(HOST, port, rank, world_size) as group:
        assert type(group) is integration.StatelessProcessGroup


def begin(plugins: Any, asked: str | None) -> None:
    os.environ.pop("AIOPG_PATCH_VLLM", None)
    if asked is not None:
        os.environ["AIOPG_PATCH_VLLM"] = asked
    plugins.plugins_loaded = False
    plugins.load_general_plugins()


def hostile(rank: int, world_size: int, port: int) -> Any:
    """What a member sends as a tensor that is none is refused, and makes no room for what it only declares."""
    unique_id = pynccl_wrapper.ncclUniqueId
    strange = aiopg.codec.TypeRegistry()
    strange.register(Note, name=f"{unique_id.__module__}.ncclUniqueId", encode=lambda note: b"short", decode=Note)
    elements = torch.arange(8, dtype=torch.uint8).numpy()
    refused: list[tuple[Any, str]] = [
        (("torch.Tensor", "float32", (2,), b"bytes"), "no bytes"),
        (("torch.Tensor", "float32", (2,), elements.astype("f4")), "no bytes"),
        (("torch.Tensor", "float32", (3,), elements), "does not come to 8 bytes"),
        (("torch.Tensor", "float32", (-2, -1), elements), "no tuple of sizes"),
        (("torch.Tensor", "float32", [2], elements), "no tuple of sizes"),
        (("torch.Tensor", "float32", (True, 2), elements), "no tuple of sizes"),
        (("torch.Tensor", "float32", (1,) * 65 + (2,), elements), "no tuple of sizes"),
        (("torch.Tensor", "float32", (2**40, 2**40, 0), elements[:0]), "makes no tensor"),
        (("torch.Tensor", "float32", (2**70, 0), elements[:0]), "makes no tensor"),
        (("torch.Tensor", "quint8", (8,), elements), "no dtype 'quint8'"),
        (("torch.Tensor", "load", (8,), elements), "no dtype 'load'"),
        (("torch.Tensor", 7, (8,), elements), "no dtype 7"),
        (("torch.Tensor", "bool", (8,), elements), "neither 0 nor 1"),
    ]
    if rank == 0:
        codec = aiopg.MsgpackCodec(strange)
        with aiopg.StatelessGroup.create(HOST, port, rank, world_size, codec=codec) as stranger:
            for parts, _ in refused:
                stranger.send(parts, 1)
            stranger.send(Note(""), 1)
            stranger.barrier()
        return
    with make(rank, world_size, port) as group:
        for _, reason in refused:
            with raises(aiopg.CodecError, reason):
                group.recv(torch.zeros(8, dtype=torch.uint8), 0)
        with raises(aiopg.CodecError, "a ncclUniqueId has 128 bytes"):
            group.recv_obj(0)
        group.barrier()


def listening(rank: int, world_size: int, port: int) -> Any:
    """The socket that a program bound first is the one that is served on."""
    import socket

    sock = None
    if rank == 0:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        sock.listen()
    with integration.stateless_group(HOST, port, rank, world_size, listen_socket=sock) as group:
        assert group.all_gather_obj(rank) == list(range(world_size))
        assert group.socket is sock


def script(rank: int, world_size: int, path: str, port: int) -> Any:
    """Run a script as its own program; the lines that it prints."""
    sys.argv = [path, str(rank), str(world_size), str(port)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(path, run_name="__main__")
    return printed.getvalue().splitlines()
