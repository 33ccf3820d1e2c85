"""Large objects between real processes: whole, with nobody's event loop held up and no other group either.

The bounds are ten times what `make bench-large` is to show.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aiopg import StoreServer
from aiopg.loops import LoopThread

from .large import Lag
from .ranks import SLOW, Ranks

LARGE = "tests.system.large"

STANDS_STILL = 0.5 * SLOW
"""Seconds that no loop may stand still."""

BARRIER = 1.0 * SLOW
"""Seconds that no barrier of another group may take."""


@contextmanager
def probed() -> Iterator[tuple[str, Lag]]:
    """A store with default limits, on an event loop of which is known how long it stood still."""
    thread = LoopThread("store of the test")
    server, lag = StoreServer(), Lag()
    try:
        thread.submit(server.start()).result(10)
        thread.submit(lag.run())
        yield server.address, lag
    finally:
        thread.submit(server.close()).result(10)
        thread.stop()


def check(ranks: Ranks, lag: Lag) -> None:
    """All was whole, and no loop stood still."""
    results = ranks.results()
    assert all(result["whole"] for result in results.values())
    assert max(result["lag"] for result in results.values()) < STANDS_STILL, results
    assert lag.worst < STANDS_STILL


@pytest.mark.timeout(240)
def test_256_mib_pass_a_store_with_default_limits() -> None:
    """To two ranks, of which one does not read for a second; then from rank to rank."""
    with probed() as (url, lag), Ranks("broadcasts", 3, loop="mixed", at=url, programs=LARGE) as ranks:
        check(ranks.start(None, "256", "1.0"), lag)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_group_beside_large_objects_goes_on(loop: str) -> None:
    """Its barriers take a little longer. (Over TLS too.)"""
    with (
        probed() as (url, lag),
        Ranks("barriers", 2, loop=loop, at=url, programs=LARGE) as small,
        Ranks("broadcasts", 3, loop=loop, at=url, programs=LARGE) as ranks,
    ):
        small.start()
        for rank in range(2):
            assert small.line(rank) == "formed"
        check(ranks.start(None, "24", "0.2"), lag)
        small.go_on(0)
        for result in small.results().values():
            assert result["count"] > 10
            assert result["longest"] < BARRIER
