"""Where groups under vLLM's face come from: `stateless_group`, or vLLM's own `create` while it is patched."""

from __future__ import annotations

import importlib
import os
import sys
from socket import socket as Socket
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aiopg.integrations.vllm._found import find_group_class

if TYPE_CHECKING:
    from aiopg.integrations.vllm._group import StatelessProcessGroup

__all__ = ["Patch", "group_class", "patch", "plugin", "stateless_group", "unpatch"]

SWITCH = "AIOPG_PATCH_VLLM"
"""The variable of the environment by which vLLM's own processes patch themselves."""

_ORIGINAL = "_create_before_aiopg"
"""What vLLM's class has its own `create` by while it is patched."""


def stateless_group(
    host: str,
    port: int,
    rank: int,
    world_size: int,
    data_expiration_seconds: float = 3600,
    store_timeout: float = 300,
    listen_socket: Socket | None = None,
    **options: Any,
) -> StatelessProcessGroup:
    """A group that is a `StatelessProcessGroup` of vLLM and does everything with aiopg.

    Returns when every rank has called it; rank 0 hosts the store on `host:port`.

    Args:
        host, port, rank, world_size, data_expiration_seconds, store_timeout, listen_socket: as
            `StatelessProcessGroup.create` of vLLM has them.
        options: further keyword arguments of `aiopg.StatelessGroup.create` (`group`, `token`, `ssl`, ...).

    Raises:
        ImportError: vLLM cannot be imported, or is another than the one that is known.
        AiopgError, ValueError, TypeError: as `aiopg.AsyncStatelessGroup.create`.
    """
    return group_class().create(
        host, port, rank, world_size, data_expiration_seconds, store_timeout, listen_socket, **options
    )


class Patch:
    """What `patch` returns: as a context manager, it puts back what was there before."""

    def __init__(self, theirs: Any, before: Any) -> None:
        self._theirs = theirs
        self._before = before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._before is _original(self._theirs):
            unpatch()
        else:
            self._theirs.create = self._before


def patch(**options: Any) -> Patch:
    """Have vLLM's own `StatelessProcessGroup.create` return groups of aiopg, in this process, from now on.

    Every rank of a group must do so. Groups that are there already stay what they are. Patching again only sets the
    options anew. Whoever imported vLLM's class before sees it, too: the class stays, its `create` is another.

    Args:
        options: for each group: keyword arguments of `aiopg.StatelessGroup.create` that vLLM's `create` does not have:
            `token`, `ssl`, `insecure`, `codec`, `reconnect_grace`, `store_host`, ...

    Returns:
        A context manager that undoes this call at the end of its block; without `with`, `unpatch()` undoes all.

    Raises:
        ImportError: vLLM cannot be imported, or is another than the one that is known: nothing was patched.
    """
    theirs = find_group_class()
    group_class()
    before = vars(theirs)["create"]

    def create(
        host: str,
        port: int,
        rank: int,
        world_size: int,
        data_expiration_seconds: int = 3600,
        store_timeout: int = 300,
        listen_socket: Socket | None = None,
    ) -> StatelessProcessGroup:
        """`aiopg.integrations.vllm.stateless_group`, by `patch()`."""
        return stateless_group(
            host, port, rank, world_size, data_expiration_seconds, store_timeout, listen_socket, **options
        )

    if _ORIGINAL not in vars(theirs):
        setattr(theirs, _ORIGINAL, before)
    theirs.create = staticmethod(create)
    return Patch(theirs, before)


def unpatch() -> None:
    """Give vLLM its own `create` back, however often it was patched; without a patch, nothing. Groups go on."""
    if "vllm.distributed.utils" not in sys.modules:
        return
    theirs = find_group_class()
    original = _original(theirs)
    if original is not None:
        theirs.create = original
        delattr(theirs, _ORIGINAL)


def plugin() -> None:
    """What vLLM calls in each of its processes (entry point `vllm.general_plugins`): `patch()` if it is asked for.

    It is where AIOPG_PATCH_VLLM in the environment is 1; where it is not set, or 0 or empty, nothing happens.

    Raises:
        ValueError: it is something else.
        ImportError: as `patch`.
    """
    asked = os.environ.get(SWITCH, "")
    if asked not in ("", "0", "1"):
        raise ValueError(f"{SWITCH} must be 1 or 0, not {asked!r}")
    if asked == "1":
        patch()


def _original(theirs: Any) -> Any:
    return vars(theirs).get(_ORIGINAL)


def group_class() -> type[StatelessProcessGroup]:
    """The class of groups. Imports vLLM, so it is not there before somebody asks. Raises `ImportError`."""
    find_group_class()  # says what is missing before torch is
    found: type[StatelessProcessGroup] = importlib.import_module("aiopg.integrations.vllm._group").StatelessProcessGroup
    return found
