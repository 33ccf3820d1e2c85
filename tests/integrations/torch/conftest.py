"""Stores under torch's face: as Python calls them, and as C++ does."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from aiopg import KeyTimeoutError, Store
from aiopg.integrations.torch import as_store
from tests.system.ranks import serving

LONG = 20.0
"""Seconds that nothing here takes unless it is broken."""

SHORT = timedelta(milliseconds=100)

names = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A store of our own in a process of its own."""
    with serving() as (url, _):
        yield url


@pytest.fixture(params=["native", "memory"])
def keys(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Keys that nobody else uses, on a store of each kind."""
    name = f"torch-{next(names)}"
    url = f"memory://{name}" if request.param == "memory" else request.getfixturevalue("server")
    with Store.connect(url, timeout=LONG) as store:
        yield store.with_prefix(name)


@pytest.fixture(params=["python", "c++"])
def store(request: pytest.FixtureRequest, keys: Store) -> Any:
    """As Python calls it, and as C++ does: through torch's PrefixStore."""
    made = as_store(keys)
    return made if request.param == "python" else dist.PrefixStore("prefix", made)


@contextlib.contextmanager
def times_out(*words: str, seconds: float = 0.1) -> Iterator[None]:
    """The block raises, in time, what torch's stores raise at their deadline, `from` aiopg's; in it these words."""
    began = time.monotonic()
    with pytest.raises(dist.DistStoreError) as caught:
        yield
    assert seconds - 0.002 <= time.monotonic() - began < seconds + LONG / 2
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value.__cause__, KeyTimeoutError)
    for word in words:
        assert word in str(caught.value)


def later(call: Callable[..., object], *arguments: object) -> None:
    """Call this when what is called beside it waits, in all likelihood; the test holds if it does not, too."""
    time.sleep(0.05)
    call(*arguments)
