"""aiopg's blocking group, called from a plain script with no event loop of its own."""

import itertools
from importlib.metadata import version

import numpy

import aiopg
from benchmarks import payload
from benchmarks.contestants.base import FORM_SECONDS, BlockingContestant, BlockingGroup, Leave, Seat


class Sync(BlockingContestant):
    def __init__(self) -> None:
        self._group: aiopg.StatelessGroup | None = None
        self._url = ""
        self._joined = itertools.count()

    def versions(self) -> dict[str, str]:
        return {"aiopg": version("aiopg-group")}

    def numbers(self, rank: int) -> numpy.ndarray:
        return numpy.array(payload.numbers(rank))

    def form(self, seat: Seat) -> BlockingGroup:
        self._group = aiopg.StatelessGroup.create(
            seat.host,
            seat.port,
            seat.rank,
            seat.world_size,
            store_timeout=FORM_SECONDS,
            group="bench",
            listen_socket=seat.listener,
        )
        self._joined = itertools.count()  # anew: not every rank was in the group before
        self._url = f"aiopg://{seat.host}:{seat.port}"
        return self._group

    def join(self, seat: Seat) -> Leave:
        if seat.listener is not None:
            seat.listener.close()  # the store that runs has a port
        name = f"join{next(self._joined)}"
        made = aiopg.StatelessGroup.connect(
            self._url, rank=seat.rank, world_size=seat.world_size, group=name, store_timeout=FORM_SECONDS
        )
        return made.close

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None
