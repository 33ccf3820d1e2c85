"""The methods of the group."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import torch
from torch.distributed import PrefixStore, ReduceOp
from vllm.distributed import utils
from vllm.distributed.device_communicators import pynccl_wrapper

import aiopg
from aiopg.integrations import vllm as integration
from tests.integrations.vllm_ranks.common import HOST, Note, make, raises, same, tensor_of

DTYPES = ("bfloat16", "float16", "float32", "float64", "int8", "uint8", "int64", "bool", "complex64", "float8_e4m3fn")


def identity(rank: int, world_size: int, port: int) -> Any:
    """It is one of vLLM's, and has its attributes."""
    group = make(rank, world_size, port)
    assert isinstance(group, utils.StatelessProcessGroup)
    assert (group.rank, group.world_size, group.data_expiration_seconds) == (rank, world_size, 3600)
    for field in dataclasses.fields(utils.StatelessProcessGroup):
        assert hasattr(group, field.name), field.name
    assert group.store is group.store
    keys = PrefixStore("nixl", group.store)  # as vLLM's buffers of nixl have it
    keys.set(f"agent {rank}", f"metadata of {rank}")
    assert keys.get(f"agent {(rank + 1) % world_size}") == f"metadata of {(rank + 1) % world_size}".encode()
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
    assert same(group.recv_obj(other), torch.zeros(1))  # where vLLM's would wait for an object of another key
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


def hostile(rank: int, world_size: int, port: int) -> Any:
    """What a member sends as vLLM's unique id that is none is refused."""
    unique_id = pynccl_wrapper.ncclUniqueId
    strange = aiopg.codec.TypeRegistry()
    strange.register(Note, name=f"{unique_id.__module__}.ncclUniqueId", encode=lambda note: b"short", decode=Note)
    if rank == 0:
        codec = aiopg.MsgpackCodec(strange)
        with aiopg.StatelessGroup.create(HOST, port, rank, world_size, codec=codec) as stranger:
            stranger.send(Note(""), 1)
            stranger.barrier()
        return
    with make(rank, world_size, port) as group:
        with raises(aiopg.CodecError, "128 bytes"):
            group.recv_obj(0)
        group.barrier()


def without_pickle(rank: int, world_size: int, port: int) -> Any:
    """All of it where pickle does not work."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("pickled")

    for name in ("dumps", "loads", "dump", "load", "Pickler", "Unpickler"):
        setattr(pickle, name, refuse)
    objects(rank, world_size, port)
    tensors(rank, world_size, port)
    reductions(rank, world_size, port)
