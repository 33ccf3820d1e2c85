"""The blocking group of whoever comes, and anew of those who are left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiopg import GroupClosedError, PeerLostError, StatelessGroup
from aiopg.testing import LocalStore

LONG = 20.0


@pytest.fixture
def url() -> Iterator[str]:
    """A store on a loop of its own."""
    with LocalStore() as store:
        yield store.url


def test_the_survivors_go_on_in_their_loop_threads(url: str) -> None:
    """The new group uses the loop thread of the old one, which is closed; closing the new one ends the thread."""
    with ThreadPoolExecutor(3) as pool:
        coming = [pool.submit(StatelessGroup.rendezvous, url, 3, timeout=LONG, metadata=n) for n in range(3)]
        groups = sorted((one.result() for one in coming), key=lambda group: group.rank)
        assert [sorted(group.metadata) for group in groups] == [[0, 1, 2]] * 3
        groups[1].close()
        with pytest.raises(PeerLostError):
            groups[0].barrier(timeout=LONG)
        anew = [one.result() for one in [pool.submit(groups[rank].reform, timeout=LONG) for rank in (0, 2)]]
        assert [(group.rank, group.world_size) for group in anew] == [(0, 2), (1, 2)]
        assert [one.result() for one in [pool.submit(group.all_gather, group.rank) for group in anew]] == [[0, 1]] * 2
        with pytest.raises(GroupClosedError):
            groups[0].barrier()
        groups[0].close()  # of no effect: its loop thread is the new group's
        pool.submit(anew[1].barrier, LONG)
        anew[0].barrier(LONG)
    for group in anew:
        group.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aiopg group")]
