"""vLLM's own `StatelessProcessGroup`, unchanged.

`vllm/distributed/utils.py` needs only a few small modules of vLLM, but importing it the usual way runs
`vllm/__init__.py` and `vllm/distributed/__init__.py`, which pull in the whole engine and all it depends on.
So those two packages are entered by hand as plain folders: their `__init__.py` does not run, and every module
below them, `utils.py` first of all, is the file of the wheel.

The group keeps what was sent and broadcast for `data_expiration_seconds` (an hour by default), so nothing of
it is removed while a run lasts, in or out of the timed blocks. Its `all_reduce` is an `all_gather_obj` of tensors,
summed up by every rank. `join` is `create`, which hosts a store of its own in rank 0.
"""

import sys
import types
from pathlib import Path
from typing import Any

import torch

from benchmarks import payload, peers
from benchmarks.contestants.base import FORM_SECONDS, BlockingContestant, Leave, Seat


def _enter_as_folder(name: str, folder: Path) -> None:
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def _group_class() -> Any:
    root = peers.VLLM_DIR / "vllm"
    _enter_as_folder("vllm", root)
    _enter_as_folder("vllm.distributed", root / "distributed")
    from vllm.distributed.utils import StatelessProcessGroup

    return StatelessProcessGroup


class _PlainNames:
    """The group's object methods under the names that all contestants share.

    Each attribute is the group's bound method itself, so that a call costs no extra frame.
    """

    def __init__(self, group: Any) -> None:
        self.barrier = group.barrier
        self.all_gather = group.all_gather_obj
        self.broadcast = group.broadcast_obj
        self.send = group.send_obj
        self.recv = group.recv_obj
        self.all_reduce = group.all_reduce


class VllmGroup(BlockingContestant):
    def __init__(self) -> None:
        self._class = _group_class()
        self._group: Any = None

    def versions(self) -> dict[str, str]:
        return {"vllm": peers.VLLM_VERSION, "torch": torch.__version__}

    def numbers(self, rank: int) -> torch.Tensor:
        return torch.tensor(payload.numbers(rank), dtype=torch.float64)

    def form(self, seat: Seat) -> _PlainNames:
        self._group = self._create(seat)
        return _PlainNames(self._group)

    def join(self, seat: Seat) -> Leave:
        made = [self._create(seat)]
        return made.clear  # the last reference

    def _create(self, seat: Seat) -> Any:
        return self._class.create(
            seat.host,
            seat.port,
            seat.rank,
            seat.world_size,
            store_timeout=FORM_SECONDS,
            listen_socket=seat.listener,
        )

    def close(self) -> None:
        self._group = None  # it has no close(); the store ends with its last reference
