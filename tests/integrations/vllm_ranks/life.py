"""How groups begin and end."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from typing import Any

import torch
from vllm import plugins
from vllm.distributed import utils

import aiopg
from aiopg.integrations import vllm as integration
from tests.integrations.vllm_ranks.common import HOST, make, raises


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


def listening(rank: int, world_size: int, port: int) -> Any:
    """The socket that a program bound first is the one that is served on."""
    sock = None
    if rank == 0:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        sock.listen()
    with integration.stateless_group(HOST, port, rank, world_size, listen_socket=sock) as group:
        assert group.all_gather_obj(rank) == list(range(world_size))
        assert group.socket is sock


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
    theirs = utils.StatelessProcessGroup
    original = vars(theirs)["create"]
    for asked in (None, "", "0"):
        begin(asked)
        assert vars(theirs)["create"] is original
    with raises(ValueError, "AIOPG_PATCH_VLLM must be 1 or 0, not 'yes'"):
        begin("yes")
    begin("1")
    with theirs.create(HOST, port, rank, world_size) as group:
        assert type(group) is integration.StatelessProcessGroup


def begin(asked: str | None) -> None:
    """A process of vLLM's, with this in AIOPG_PATCH_VLLM."""
    os.environ.pop("AIOPG_PATCH_VLLM", None)
    if asked is not None:
        os.environ["AIOPG_PATCH_VLLM"] = asked
    plugins.plugins_loaded = False
    plugins.load_general_plugins()
