"""`TorchStore`: what torch calls, and the calls of aiopg's store that it comes to.

torch's C++ code has the other half of each object here, and calls Python's half by name, from threads of its own too.
That half does not keep Python's alive, so the connection does (`Runner.keep`): in
`init_process_group(store=as_store(...))` nobody else has a reference. The timeout lies in C++'s half, because a
`PrefixStore` reads and sets it there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist

from aiopg._core.limits import Limits
from aiopg.errors import AiopgError, QueueEmptyError, StoreLostError, StoreUnreachableError
from aiopg.integrations.torch._spans import LEAST, seconds_of
from aiopg.keys import Value
from aiopg.keys._arguments import as_value
from aiopg.sync import Store

__all__ = ["TorchStore"]

KEYS_PER_CALL = Limits().keys_per_call


@contextmanager
def _as_torch_says() -> Iterator[None]:
    """Errors of aiopg in the block become those that torch's own code and its users catch, `from` the former."""
    try:
        yield
    except QueueEmptyError as error:
        raise dist.QueueEmptyError(str(error)) from error
    except (StoreLostError, StoreUnreachableError) as error:
        raise dist.DistNetworkError(str(error)) from error
    except AiopgError as error:
        raise dist.DistStoreError(str(error)) from error


class TorchStore(dist.Store):  # type: ignore[misc]
    """Made by `aiopg.integrations.torch.as_store`, which see.

    Attributes:
        aiopg_store: the `aiopg.Store` that it talks to.
        timeout: for how long calls wait that wait for others, a timedelta; 0 is no deadline. See `set_timeout`.
    """

    def __init__(self, store: Store, timeout: timedelta) -> None:
        super().__init__()
        self.set_timeout(timeout)
        self.aiopg_store = store
        store._runner.keep(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.aiopg_store!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled; hand its url on and make one there")

    def clone(self) -> TorchStore:
        """The same keys, with a timeout of its own that can be set.

        It uses the same connection: that serves any number of threads, no waiting call holds another one up, and torch
        would not close a second one.
        """
        return TorchStore(self.aiopg_store, self.timeout)

    def _seconds(self, timeout: timedelta | None = None) -> float:
        """How long a call may wait for others."""
        return seconds_of(self.timeout if timeout is None else timeout)

    # ---------------------------------------------------------------------------------------------- keys

    @_as_torch_says()
    def set(self, key: str, value: Value) -> None:
        """Give a key a value, whatever it held."""
        self.aiopg_store.set(key, value)

    @_as_torch_says()
    def get(self, key: str) -> bytes:
        """The value of a key, as soon as it is there."""
        return self.aiopg_store.get(key, timeout=self._seconds())

    @_as_torch_says()
    def add(self, key: str, value: int) -> int:
        """Add to the number that a key holds, 0 if it is not there; the sum."""
        return self.aiopg_store.add(key, value)

    @_as_torch_says()
    def compare_set(self, key: str, expected_value: Value, desired_value: Value) -> bytes:
        """Give a key a value if it holds the expected one, or if it is not there and "" is expected; what it holds now.

        As torch's stores say it: of a key that is not there, and stays so, the value that was expected.
        """
        if expected_value:
            _, held = self.aiopg_store.compare_set(key, expected_value, desired_value)
            return as_value("expected_value", expected_value) if held is None else held
        while True:
            done, held = self.aiopg_store.compare_set(key, None, desired_value)
            if not done and held == b"":  # it is there and holds what is expected
                _, held = self.aiopg_store.compare_set(key, b"", desired_value)
            if held is not None:  # else it was deleted in between
                return held

    @_as_torch_says()
    def delete_key(self, key: str) -> bool:
        """Delete a key, and the queue of that name; whether there was one."""
        return self.aiopg_store.delete_key(key)

    @_as_torch_says()
    def num_keys(self) -> int:
        """How many keys there are, and queues that hold something: none but those that somebody made."""
        return self.aiopg_store.num_keys()

    @_as_torch_says()
    def list_keys(self) -> list[str]:
        """Their names, sorted."""
        return self.aiopg_store.list_keys()

    @_as_torch_says()
    def check(self, keys: Sequence[str]) -> bool:
        """Whether each of these is there, as a key or as a queue that holds something. Waits for none."""
        return all(self.aiopg_store.check(part) for part in _parts(keys))

    @_as_torch_says()
    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until each of these is there."""
        for part, seconds in _in_time(keys, self._seconds(timeout)):
            self.aiopg_store.wait(part, timeout=seconds)

    # ---------------------------------------------------------------------------------------------- extended

    def has_extended_api(self) -> bool:
        """True: there are append, multi_get and multi_set."""
        return True

    @_as_torch_says()
    def append(self, key: str, value: Value) -> None:
        """Append to a key's value, or create it."""
        self.aiopg_store.append(key, value)

    @_as_torch_says()
    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        """The values of keys in their order, as soon as all are there; of 1,024 at a time at one moment."""
        got: list[bytes] = []
        for part, seconds in _in_time(keys, self._seconds()):
            got += self.aiopg_store.multi_get(part, timeout=seconds)
        return got

    @_as_torch_says()
    def multi_set(self, keys: Sequence[str], values: Sequence[Value]) -> None:
        """Give keys values; 1,024 keys at a time all at once. Of a key that is there twice the last value counts."""
        if len(keys) != len(values):
            raise ValueError(f"multi_set needs a value for each key, and got {len(keys)} keys and {len(values)} values")
        for first in range(0, len(keys), KEYS_PER_CALL):
            behind = first + KEYS_PER_CALL
            self.aiopg_store.multi_set(dict(zip(keys[first:behind], values[first:behind], strict=True)))

    # ---------------------------------------------------------------------------------------------- queues

    @_as_torch_says()
    def queue_push(self, key: str, value: Value) -> None:
        """Append an item to a queue."""
        self.aiopg_store.queue_push(key, value)

    @_as_torch_says()
    def queue_pop(self, key: str, block: bool = True) -> bytes:
        """Take the head of a queue; first come, first served."""
        return self.aiopg_store.queue_pop(key, block=block, timeout=self._seconds())

    @_as_torch_says()
    def queue_len(self, key: str) -> int:
        """How many items a queue holds."""
        return self.aiopg_store.queue_len(key)

    # ---------------------------------------------------------------------------------------------- together

    @_as_torch_says()
    def barrier(self, key: str, world_size: int, timeout: timedelta | None = None) -> None:
        """Wait until `world_size` callers have come to the barrier of this name; then it can be used again.

        It is no key. Who times out is taken out of it.
        """
        self.aiopg_store.barrier(key, world_size, timeout=self._seconds(timeout))

    # Under these names C++ asks Python's half for what Python calls delete_key and num_keys.
    deleteKey = delete_key
    getNumKeys = num_keys


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many keys at a time as one call takes."""
    if isinstance(keys, str | bytes):
        raise TypeError(f"keys must be a sequence of str, not the single {keys!r:.200}")
    return (keys[first : first + KEYS_PER_CALL] for first in range(0, len(keys), KEYS_PER_CALL))


def _in_time(keys: Sequence[str], seconds: float) -> Iterator[tuple[Sequence[str], float]]:
    """Those, and what is left of the time for each."""
    deadline, left = time.monotonic() + seconds, seconds
    for part in _parts(keys):
        yield part, left
        left = max(deadline - time.monotonic(), LEAST.total_seconds())
