"""aiopg's keys under the face of `torch.distributed.Store`. ::

    from aiopg.integrations.torch import as_store

    store = as_store(aiopg.Store.connect("aiopg://store:29400"), prefix="run-7")
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)

What a program gains over torch's own TCPStore: a token and TLS (`aiopg.Store.connect(url, token=, ssl=)`), connections
that are made anew when they break, and a store that does not end with rank 0. Over the keys of a group,
`as_store(group.store)`, a run that is started again finds none of the keys of the one before.

Importing this module does not import torch; `as_store` does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aiopg.group import AsyncStatelessGroup
from aiopg.integrations.torch._spans import as_span, seconds_of
from aiopg.keys import AsyncStore
from aiopg.sync import StatelessGroup, Store

if TYPE_CHECKING:
    from aiopg.integrations.torch._store import TorchStore

__all__ = ["as_store"]


def as_store(store: Store | str, prefix: str | None = None, timeout: float | timedelta | None = None) -> TorchStore:
    """A `torch.distributed.Store` over the keys of a store of aiopg.

    It has all methods of torch's stores, with torch's parameters, results and errors. Any number of threads may use it
    at once, torch's own among them, and any number of torch's `PrefixStore`s may lie over it. Whether the program keeps
    it or not, it is there until the aiopg store is closed.

    Args:
        store: an `aiopg.Store`, or the `store` of a `StatelessGroup`, which stays the caller's to close. Or a URL: it
            is connected to with the token and the certificates that the environment names, and closed when the program
            ends, or by `.aiopg_store.close()`.
        prefix: have all keys begin with this and "/". Runs that share a store need one each, or the keys of a group:
            torch takes what an earlier run left for its own. Queues and `list_keys` work behind it, which torch's
            `PrefixStore` passes on to its own stores only.
        timeout: seconds, or a timedelta, for which `get`, `multi_get`, `wait`, `queue_pop` and `barrier` wait; that
            of the store if not given. No deadline is `math.inf`, or a timedelta of 0. `set_timeout` changes it. Calls
            that wait for nobody have the timeout of the aiopg store.

    Errors of the methods, each `from` that of aiopg:
        torch.distributed.DistStoreError (a RuntimeError): the deadline passed, or the store refuses the call.
        torch.distributed.QueueEmptyError: `queue_pop(key, block=False)` of an empty queue.
        torch.distributed.DistNetworkError (a RuntimeError): the link to the store ended.

    Raises:
        ImportError: torch is not installed.
        TypeError, ValueError: an argument makes no sense.
        And for a URL what `aiopg.Store.connect` raises.
    """
    span = None if timeout is None else as_span(timeout)
    _check_store(store)
    make = _torch_store()
    if isinstance(store, Store):
        keys = store if prefix is None else store.with_prefix(prefix)
        return make(keys, as_span(keys.timeout) if span is None else span)
    opened = Store.connect(store) if span is None else Store.connect(store, timeout=seconds_of(span))
    try:
        return as_store(opened, prefix, timeout)
    except BaseException:
        opened.close()
        raise


def _check_store(store: Any) -> None:
    if isinstance(store, Store | str):
        return
    what = "an aiopg.Store or a URL"
    if isinstance(store, AsyncStore):
        raise TypeError(
            f"as_store takes {what}, and not an AsyncStore: torch's calls block, and would wait for the event loop in "
            f"which they stand; give it aiopg.Store.connect({store.url!r})"
        )
    if isinstance(store, StatelessGroup | AsyncStatelessGroup):
        raise TypeError(f"as_store takes {what}, and not a group; give it the .store of a StatelessGroup")
    raise TypeError(f"as_store takes {what}, not {store!r:.200}")


def _torch_store() -> type[TorchStore]:
    """The class, which is a subclass of torch's. Raises `ImportError`."""
    try:
        from torch import distributed
    except ImportError as error:
        raise ImportError(
            f"aiopg.integrations.torch needs torch, and it cannot be imported ({error}); "
            "run: pip install 'aiopg-group[torch]'"
        ) from error
    if not distributed.is_available():
        raise ImportError("this build of torch has no torch.distributed; run: pip install 'aiopg-group[torch]'")
    from aiopg.integrations.torch._store import TorchStore

    return TorchStore
