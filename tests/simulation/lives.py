"""The lives of a store: what its next one, after a crash, knows of the last one."""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random
from typing import Protocol, cast

from aiopg import StoreServer
from aiopg._core.compaction import compact
from aiopg._core.limits import Limits
from aiopg.server._sessions import Sessions
from aiopg.server.journal import Journal
from tests.simulation.disk import Disk, DiskJournal
from tests.simulation.network import SimNetwork

__all__ = ["Forgetful", "Journaled", "StoreLives"]


class StoreLives(Protocol):
    """Makes the store's lives, one after the other."""

    @property
    def journal(self) -> DiskJournal | None:
        """That of the present life, if it keeps one: then the next life goes on where this one ends."""

    def begin(self, limits: Limits) -> tuple[StoreServer, Sessions]:
        """The next life, begun."""

    def end(self) -> None:
        """The store's process was killed."""


class Forgetful:
    """A store without a journal: each life is a new store."""

    journal: DiskJournal | None = None

    def begin(self, limits: Limits) -> tuple[StoreServer, Sessions]:
        server = StoreServer(limits=limits)
        return server, server.begin()

    def end(self) -> None:
        pass


class Journaled:
    """A store with a journal on one disk."""

    def __init__(self, network: SimNetwork, random: Random, counts: Counter[str]) -> None:
        """`counts`: is told what was found at the start of a life."""
        self._network, self._random, self._counts = network, random, counts
        self._disk = Disk(random)
        self._sync = random.random() < 0.7
        self.journal: DiskJournal | None = None

    def begin(self, limits: Limits) -> tuple[StoreServer, Sessions]:
        network = self._network
        fold = partial(compact, limits=limits, about={})
        journal = DiskJournal(network.loop, self._disk, self._random, fold, sync=self._sync, note=network.note)
        self._counts["a journal recovered"] += journal.was_there
        self._counts["a torn tail cut"] += journal.torn is not None
        self._counts["a snapshot loaded"] += journal.has_snapshot
        self.journal = journal
        server = StoreServer(limits=limits)
        return server, server.begin(cast(Journal, journal))

    def end(self) -> None:
        assert self.journal is not None
        self._counts["a crash while a snapshot was made"] += self.journal.rotating
        self.journal.die()
