"""torch.distributed with gloo."""

from __future__ import annotations

import io
import os
import runpy
import threading
from contextlib import redirect_stdout
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from aiopg import AuthenticationError, KeyTimeoutError, StatelessGroup, Store, StoreUnreachableError, Tls
from aiopg.integrations.torch import as_store
from aiopg.integrations.torch._store import TorchStore
from tests.integrations.torch_ranks.common import expected, initialized, work


def collectives(rank: int, world_size: int, url: str, token: str, cert: str, key: str, ca: str) -> list[str]:
    """All that a program does, over a store behind a token and TLS, which nobody holds but torch."""
    store = Store.connect(url, token=token, ssl=Tls(cert, key, ca), timeout=20)
    with initialized(rank, world_size, as_store(store, prefix="run 1")):
        assert work(rank, world_size) == expected(world_size)
        for ranks in ([0, 2], [1, 2, 3], list(range(world_size))):
            group = dist.new_group(ranks, timeout=timedelta(seconds=20))
            if rank in ranks:
                ones = torch.ones(1)
                dist.all_reduce(ones, group=group)
                assert ones.item() == len(ranks)
                told: list[Any] = [rank]
                dist.broadcast_object_list(told, src=ranks[-1], group=group)
                assert told == [ranks[-1]]
                dist.barrier(group=group)
        dist.barrier()
        assert store.num_keys() == len(store.list_keys("run 1/")) > world_size
        dist.barrier()
    store.close()
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("aiopg")]


def strangers(rank: int, world_size: int, url: str, cert: str, key: str, ca: str) -> None:
    """Who has no token, a wrong one, or no TLS, does not come in."""
    for token in (None, "a token of other tests"):
        try:
            Store.connect(url, token=token, ssl=Tls(cert, key, ca), timeout=20)
        except AuthenticationError:
            continue
        raise AssertionError("came in without the token")
    try:
        Store.connect(url, timeout=0.5)
    except StoreUnreachableError:
        return
    raise AssertionError("came in without TLS")


class Seen(TorchStore):
    """One that remembers which threads asked it for values."""

    threads: set[int]

    def get(self, key: str) -> bytes:
        """As ever."""
        self.threads.add(threading.get_native_id())
        return super().get(key)

    def multi_get(self, keys: Any) -> list[bytes]:
        """As ever."""
        self.threads.add(threading.get_native_id())
        return super().multi_get(keys)


def foreign_threads(rank: int, world_size: int, url: str) -> int:
    """gloo that connects when it has something to say, from threads of its own, many operations at once."""
    os.environ["TORCH_GLOO_LAZY_INIT"] = "1"
    with Store.connect(url, timeout=20) as store:
        seen = Seen(store.with_prefix("lazy"), timedelta(seconds=20))
        seen.threads = set()
        with initialized(rank, world_size, seen):
            groups = [dist.new_group(list(range(world_size))) for _ in range(4)]
            sums = [torch.tensor([float(rank)]) for _ in groups]
            works = [dist.all_reduce(one, group=group, async_op=True) for one, group in zip(sums, groups, strict=True)]
            for one in works:
                one.wait()
            assert [one.item() for one in sums] == [sum(range(world_size))] * len(groups)
            assert work(rank, world_size) == expected(world_size)
        return len(seen.threads - {threading.get_native_id()})


def again(rank: int, world_size: int, url: str) -> None:
    """Over a group's keys: a run with the same names, at the same store, meets nothing of the one before."""
    for _ in range(2):
        with StatelessGroup.connect(url, rank=rank, world_size=world_size, group="run", store_timeout=20) as group:
            with initialized(rank, world_size, as_store(group.store)):
                assert work(rank, world_size) == expected(world_size)
            group.barrier()


def incomplete(rank: int, world_size: int, url: str) -> str:
    """A rank is missing: the others are told at their deadline what they waited for."""
    with Store.connect(url, timeout=20) as store:
        try:
            with initialized(rank, world_size + 1, as_store(store, "incomplete"), timedelta(seconds=0.5)):
                raise AssertionError("it came about")
        except dist.DistStoreError as error:
            told = error
        assert isinstance(told.__cause__, KeyTimeoutError)
        assert store.num_keys() > 0  # and the store is as good as before
        return str(told)


def script(rank: int, world_size: int, path: str) -> list[str]:
    """A program that a launcher starts; the lines that it prints."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "GLOO_SOCKET_IFNAME": "lo"}
    with redirect_stdout(io.StringIO()) as output:
        runpy.run_path(path, run_name="__main__")
    return output.getvalue().splitlines()
