"""aiopg's blocking group, called from a plain script with no event loop of its own."""

from importlib.metadata import version

import aiopg
from benchmarks.contestants.base import FORM_SECONDS, BlockingContestant, BlockingGroup, Seat


class Sync(BlockingContestant):
    def __init__(self) -> None:
        self._group: aiopg.StatelessGroup | None = None

    def versions(self) -> dict[str, str]:
        return {"aiopg": version("aiopg-group")}

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
        return self._group

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None
