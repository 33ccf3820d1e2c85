"""Contestants of the sweep over connections: many ranks in one process."""

import importlib
import socket
from abc import ABC, abstractmethod
from types import ModuleType

CROWDS = {"aiopg-uvloop": "aiopg_crowd", "tcpstore": "tcp_store_crowd"}
"""The module below this package, each with a class `Crowd`; by the name of the contestant."""


class BaseCrowd(ABC):
    """Some ranks of one group; the process calls these methods in this order, again and again."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages under test, for the report."""
        return {}

    @abstractmethod
    def host(self, listener: socket.socket, world_size: int) -> None:
        """Have a store serve on this socket, or keep it for the rank that does."""

    def prepare(self, ranks: int) -> None:
        """Get ready for so many ranks, with the clock off; most have nothing to do."""
        return

    @abstractmethod
    def join(self, port: int, ranks: range, world_size: int) -> None:
        """Return when these ranks have joined; on at least one process, when all have."""

    @abstractmethod
    def barrier(self, count: int) -> None:
        """Return when each of the ranks has passed `count` barriers."""

    @abstractmethod
    def leave(self) -> None: ...


def module(name: str) -> ModuleType:
    """Import the module of the named contestant."""
    return importlib.import_module(f"{__name__}.{CROWDS[name]}")


def load(name: str) -> BaseCrowd:
    """Make the named contestant's crowd."""
    crowd = module(name).Crowd()
    if not isinstance(crowd, BaseCrowd):
        raise TypeError(f"{CROWDS[name]} has no crowd")
    return crowd
