"""Whose keys they are: the store's own, or a group's."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod

from aiopg import forks
from aiopg.errors import ForkError, WrongThreadError
from aiopg.keys._observed import told_of
from aiopg.stores.base import StoreLink
from aiopg.stores.keys import KeyCall, Keys

__all__ = ["LinkSpace", "Space"]


class Space(ABC):
    """A key space and the way there, shared by all `AsyncStore`s that show it."""

    link: StoreLink

    @property
    @abstractmethod
    def shared(self) -> LinkSpace:
        """The store's own keys, over the same link."""

    @abstractmethod
    def check(self) -> None:
        """Raises unless this is the process and the event loop that the link belongs to."""

    @abstractmethod
    def keys(self) -> Keys | None:
        """Its verbs; None if the way there has to be made first."""

    @abstractmethod
    async def enter(self, call: KeyCall) -> Keys:
        """Make it, by the call's deadline. Calls go on in the order in which they came here."""

    @abstractmethod
    def describe(self) -> str:
        """Whose keys they are, for people."""


class LinkSpace(Space):
    """The keys of the store itself."""

    def __init__(self, link: StoreLink) -> None:
        self.link = link
        self._keys: Keys | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.forks = forks.count
        self._pid = os.getpid()

    def check(self) -> None:
        if self.forks != forks.count:
            raise ForkError(
                f"the store at {self.link.url} was opened by process {self._pid}, and this is its forked child "
                f"{os.getpid()}; open it anew here"
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongThreadError(
                f"the store at {self.link.url} belongs to another event loop than the one that runs here"
            )

    @property
    def shared(self) -> LinkSpace:
        return self

    def keys(self) -> Keys:
        if self._keys is None:
            self._keys = told_of(self.link.keys())
        return self._keys

    async def enter(self, call: KeyCall) -> Keys:
        return self.keys()

    def describe(self) -> str:
        return ""
