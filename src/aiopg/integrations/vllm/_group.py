"""The group: vLLM's class on the outside, aiopg's inside."""

from __future__ import annotations

from collections import deque
from functools import cached_property
from socket import socket as Socket
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed

from aiopg.integrations.torch import as_store
from aiopg.integrations.vllm._dropped import await_dropped, close_with
from aiopg.integrations.vllm._found import find_group_class
from aiopg.integrations.vllm._tensors import (
    check_tensor,
    describe,
    on_host,
    received_tensor,
    reduce_tensors,
    reduction,
)
from aiopg.integrations.vllm._types import vllm_codec
from aiopg.sync import StatelessGroup

__all__ = ["StatelessProcessGroup"]

VllmGroup: Any = find_group_class()


class StatelessProcessGroup(VllmGroup):  # type: ignore[misc]
    """A `StatelessProcessGroup` of vLLM that does everything with an `aiopg.StatelessGroup`.

    Its methods take and return what vLLM's do. Each ends by a deadline (`store_timeout`, or the barrier's own), and
    raises aiopg's errors: `GroupTimeoutError` with the ranks that are missing, `PeerLostError` when a rank that it
    needs has died, `GroupAbortedError`, `CollectiveMismatchError` when ranks call different collectives, `CodecError`
    for what has no encoding, `StoreLostError`, `GroupClosedError`. A call that timed out or was interrupted took
    nothing, and can be made again.

    It leaves its place with its last reference, as vLLM's does, or earlier with `close()`. As a context manager it
    closes at the end of the block; an exception that leaves the block aborts the group on all ranks.

    Attributes:
        rank, world_size: this process's place.
        store: the group's key store.
        socket: the listening socket it was made with, if any.
        data_expiration_seconds: seconds for which what this rank sent and nobody took is kept.
        send_dst_counter, recv_src_counter: how many messages to and from each rank are done, objects and tensors.
        broadcast_send_counter, broadcast_recv_src_counter: how many broadcasts from this and from each rank are done.
        entries: the last sends and collectives that gave data: (what, `time.monotonic()`).
        aiopg_group: the group inside, for what vLLM's has not: `gather`, `scatter`, `abort`, `tag=`, `timeout=`, ...
            It is closed with this one.

    Args:
        rank, world_size: this process's place.
        store: URL of a store that runs, `aiopg://host:port` (`aiopg serve`). With `create`, rank 0 hosts one.
        data_expiration_seconds: see above.
        options: keyword arguments of `aiopg.StatelessGroup.connect`.
    """

    aiopg_group: StatelessGroup

    def __init__(
        self, rank: int, world_size: int, store: str, data_expiration_seconds: float = 3600, **options: Any
    ) -> None:
        if not isinstance(store, str):
            raise TypeError(
                f"store must be the URL of an aiopg store, not {type(store).__name__}: "
                "StatelessProcessGroup.create(host, port, rank, world_size) has rank 0 host one"
            )
        await_dropped()
        options.setdefault("codec", vllm_codec())
        self._hold(
            StatelessGroup.connect(
                store, rank=rank, world_size=world_size, data_expiration_seconds=data_expiration_seconds, **options
            )
        )

    @classmethod
    def create(
        cls,
        host: str,
        port: int,
        rank: int,
        world_size: int,
        data_expiration_seconds: float = 3600,
        store_timeout: float = 300,
        listen_socket: Socket | None = None,
        **options: Any,
    ) -> Self:
        """Form a group; returns when every rank has called it. Rank 0 hosts the store on `host:port`.

        Waits for groups first that this process dropped just now, so that a place can be taken again.

        Args:
            host, port, rank, world_size, data_expiration_seconds, store_timeout, listen_socket: as vLLM has them.
            options: further keyword arguments of `aiopg.StatelessGroup.create` (`group`, `token`, `ssl`, ...).

        Raises: as `aiopg.AsyncStatelessGroup.create`.
        """
        await_dropped()
        options.setdefault("codec", vllm_codec())
        return cls.over(
            StatelessGroup.create(
                host, port, rank, world_size, data_expiration_seconds, store_timeout,
                listen_socket=listen_socket, **options,
            )
        )  # fmt: skip

    @classmethod
    def over(cls, group: StatelessGroup) -> Self:
        """Over a group in hand, which is closed with this one.

        Objects are sent with the codec that it was made with: one without `codec=` knows no class of vLLM's.
        """
        self: Self = cls.__new__(cls)
        self._hold(group)
        return self

    def _hold(self, group: StatelessGroup) -> None:
        self.aiopg_group = group
        close_with(self, group)

    # ------------------------------------------------------------------------------------------------- objects

    def send_obj(self, obj: Any, dst: int) -> None:
        """Send an object to another rank; done when the store holds it."""
        self.aiopg_group.send(obj, dst)

    def recv_obj(self, src: int) -> Any:
        """Receive the next object from a rank."""
        return self.aiopg_group.recv(src)

    def broadcast_obj(self, obj: Any | None, src: int) -> Any:
        """Give rank `src`'s object to every rank; returns it. `src` does not wait."""
        return self.aiopg_group.broadcast(obj, src)

    def all_gather_obj(self, obj: Any) -> list[Any]:
        """Every rank's object, in rank order; this rank's own is the very one that was given."""
        gathered = self.aiopg_group.all_gather(obj)
        gathered[self.rank] = obj
        return gathered

    # ------------------------------------------------------------------------------------------------- tensors

    def broadcast(self, tensor: Any, src: int) -> Any:
        """Give rank `src`'s tensor to every rank; returns it.

        The tensors of the other ranks are not written to, and may be None or of any shape, as with vLLM. What is
        returned there is new, on the device of the tensor that was given, or on the host.

        Raises also `TypeError` (no dense tensor at `src`) and `CodecError` (`src` gave an object that is none).
        """
        if self.rank == src:
            self.aiopg_group.broadcast(on_host(tensor), src)
            return tensor
        received = received_tensor(self.aiopg_group.broadcast(None, src))
        return received.to(tensor.device) if isinstance(tensor, torch.Tensor) else received

    def send(self, tensor: Any, dst: int) -> None:
        """Send a tensor to another rank; done when the store holds it. Raises also `TypeError` (no dense tensor)."""
        self.aiopg_group.send(on_host(tensor), dst)

    def recv(self, tensor: Any, src: int) -> Any:
        """Receive the next tensor from a rank into `tensor`; returns that.

        Raises:
            TypeError: `tensor` is no dense tensor; nothing was received.
            ValueError: what came has another dtype or shape. It counts as received, and `tensor` is as it was.
            CodecError: `src` sent an object that is no tensor. It counts as received.
        """
        check_tensor(tensor)
        received = received_tensor(self.aiopg_group.recv(src))
        if (received.dtype, received.shape) != (tensor.dtype, tensor.shape):
            raise ValueError(
                f"rank {src} sent {describe(received)}, and the tensor to receive into is {describe(tensor)}"
            )
        with torch.no_grad():
            tensor.copy_(received)
        return tensor

    def all_reduce(self, tensor: Any, op: Any = torch.distributed.ReduceOp.SUM) -> Any:
        """All ranks' tensors reduced to one, in rank order, so that every rank has the same to the last bit.

        `tensor` is not written to, as with vLLM; what is returned is new, on its device.

        Raises:
            TypeError: no dense tensor; nothing was sent.
            ValueError: an op other than SUM, PRODUCT, MAX and MIN; nothing was sent. Or, on every rank, tensors that
                differ in dtype or shape.
            CodecError: a rank gave an object that is no tensor.
        """
        function = reduction(op)
        parts = self.aiopg_group.all_gather(on_host(tensor))
        return reduce_tensors([received_tensor(part) for part in parts], function).to(tensor.device)

    # ---------------------------------------------------------------------------------------------- life cycle

    def barrier(self, timeout: float = 30.0) -> None:
        """Wait until every rank has called it, at most `timeout` seconds for each of its phases."""
        self.aiopg_group.barrier(timeout)

    def expire_data(self) -> None:
        """Have the store drop what waited longer than `data_expiration_seconds`. It does so by itself, too."""
        self.aiopg_group.expire_data()

    def close(self) -> None:
        """Leave the group, within about 2 s. Closing twice is fine."""
        self.aiopg_group.close()

    def __enter__(self) -> Self:
        self.aiopg_group.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.aiopg_group.__exit__(exc_type, exc, tb)

    # A dataclass compares and shows its fields; two of these are equal if they are one.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return repr(self.aiopg_group).replace("StatelessGroup", type(self).__name__, 1)

    # ---------------------------------------------------------------------------------------------- attributes

    @property
    def rank(self) -> int:
        """This process's rank."""
        return self.aiopg_group.rank

    @property
    def world_size(self) -> int:
        """How many ranks the group has."""
        return self.aiopg_group.world_size

    @cached_property
    def store(self) -> Any:
        """The group's keys, as a `torch.distributed.Store`: torch's PrefixStore and vLLM's nixl buffers take it."""
        return as_store(self.aiopg_group.store)

    @property
    def socket(self) -> Socket | None:
        """The listening socket it was made with, if any."""
        return self.aiopg_group.socket

    @property
    def data_expiration_seconds(self) -> float:
        """Seconds for which what this rank sent and nobody took is kept; an int where they are whole, as vLLM's."""
        seconds = self.aiopg_group.data_expiration_seconds
        return int(seconds) if seconds.is_integer() else seconds

    @property
    def send_dst_counter(self) -> dict[int, int]:
        """How many messages to each rank are done."""
        return self.aiopg_group.send_dst_counter

    @property
    def recv_src_counter(self) -> dict[int, int]:
        """How many messages from each rank are done."""
        return self.aiopg_group.recv_src_counter

    @property
    def broadcast_send_counter(self) -> int:
        """How many broadcasts from this rank are done."""
        return self.aiopg_group.broadcast_send_counter

    @property
    def broadcast_recv_src_counter(self) -> dict[int, int]:
        """How many broadcasts from each rank are done."""
        return self.aiopg_group.broadcast_recv_src_counter

    @property
    def entries(self) -> deque[tuple[str, float]]:
        """The last sends and collectives that gave data."""
        return self.aiopg_group.entries
