"""What a room needs of the link that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiopg._core.messages import Event
from aiopg.errors import AiopgError
from aiopg.stores.redis._script import Script

if TYPE_CHECKING:
    from redis.exceptions import MovedError

    from aiopg.stores.redis._room import RedisRoom

__all__ = ["Owner"]


class Owner(Protocol):
    """The link."""

    grace: float

    @property
    def url(self) -> str:
        """Of the store."""

    @property
    def is_over(self) -> bool:
        """Nobody waits for events any more."""

    def script(self) -> Script:
        """How the servers are called."""

    def event(self, event: Event) -> None:
        """For the calls."""

    def taken(self) -> None:
        """The server has taken commands."""

    def fail(self, error: AiopgError) -> None:
        """The link is over."""

    def load(self, room: RedisRoom) -> None:
        """Its server does not know the script: give it to it, and go on with `RedisRoom.call_again`."""

    def moved(self, room: RedisRoom, error: MovedError) -> None:
        """It is at another server: `RedisRoom.move` there."""

    def gone(self, room: RedisRoom) -> None:
        """It has ended."""
