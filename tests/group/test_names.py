"""Host names that come to be while a group forms."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from aiopg import AsyncStatelessGroup, StoreUnreachableError
from tests.system.ranks import SLOW, free_port


@pytest.fixture
def _pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")


@pytest.mark.usefixtures("_pod")
def test_a_pod_waits_for_the_name_of_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is there some time after the pods are."""
    resolve, calls = socket.getaddrinfo, 0

    def late(host: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if host != "job-0.service":
            return resolve(host, *args, **kwargs)
        calls += 1
        if calls <= 4:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve("127.0.0.1", *args, **kwargs)

    async def form() -> list[list[int]]:
        port = free_port()
        groups = await asyncio.gather(
            *(AsyncStatelessGroup.create("job-0.service", port, rank, 2, store_timeout=20) for rank in range(2))
        )
        gathered = await asyncio.gather(*(group.all_gather(group.rank) for group in groups))
        await asyncio.gather(*(group.close() for group in groups))
        return gathered

    monkeypatch.setattr(socket, "getaddrinfo", late)
    assert asyncio.run(form()) == [[0, 1], [0, 1]]


@pytest.mark.usefixtures("_pod")
@pytest.mark.parametrize("rank", [0, 1])
async def test_a_name_that_never_comes_is_told_at_the_deadline(rank: int) -> None:
    """As what it is."""
    began = time.monotonic()
    with pytest.raises(StoreUnreachableError, match=r"nowhere\.invalid.*does not resolve"):
        await AsyncStatelessGroup.create("nowhere.invalid", free_port(), rank, 2, store_timeout=0.5)
    # uvloop counts in milliseconds.
    assert 0.498 <= time.monotonic() - began < 0.5 + 0.1 * SLOW
