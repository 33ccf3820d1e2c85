"""Who may come in: strangers are few, quick and quiet, or they are put out; members never notice them.

A stranger is a connection that has not opened a session. It has `Limits.handshake_seconds` for the whole handshake, in
which it may say no more than the handshake's fixed bytes and one small frame, and costs no buffer before that. When
there are `Limits.strangers` of them (or they have half the descriptors of the process) the oldest is put out for the
newest: a member is a stranger for milliseconds, so whoever stays longest is the one to go (sshd drops at random, and so
refuses some of those who would log in). With TLS they are counted from when their TLS handshake is done.

From an address where `Limits.failed_logins` failed within a second, further wrong proofs are not answered in it. Right
ones are: whoever guesses, or has an old token, keeps no member out that comes from the same address. That makes no
guess more likely: a token has 16 bytes or more.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiopg._core.handshake import login_proofs
from aiopg._core.limits import Limits
from aiopg.server._guesses import Guesses
from aiopg.server.descriptors import for_strangers
from aiopg.tokens import Token

if TYPE_CHECKING:
    from aiopg.server._connection import ServerConnection

__all__ = ["Doorkeeper"]

logger = logging.getLogger("aiopg.server")

SAY_SECONDS = 10.0
"""One line in the log for all that was refused in this time."""


class Doorkeeper:
    """Strangers, and the tokens by which they become members."""

    def __init__(self, limits: Limits, tokens: tuple[Token, ...], now: Callable[[], float]) -> None:
        """`now`: monotonic seconds."""
        self.tokens = tokens
        self._most_strangers = min(limits.strangers, for_strangers())
        self._guesses = Guesses(limits.failed_logins)
        self._now = now
        self._strangers: dict[ServerConnection, None] = {}
        self._refused = 0
        self._said = -SAY_SECONDS

    @property
    def asks_token(self) -> bool:
        """Whether nobody comes in without one."""
        return bool(self.tokens)

    def came(self, stranger: ServerConnection) -> None:
        """A connection was made. The oldest may be cut for it."""
        if len(self._strangers) >= self._most_strangers:
            self._refuse(next(iter(self._strangers)), "there are too many connections that have not logged in")
        self._strangers[stranger] = None

    def gone(self, stranger: ServerConnection) -> None:
        """It has opened a session, or its connection is over."""
        self._strangers.pop(stranger, None)

    def login(self, proof: bytes, hello: bytes, welcome: bytes, binding: bytes) -> tuple[Token, bytes] | None:
        """Whose proof this is, and the store's own; None if no token fits that is still accepted."""
        found = None
        for token in self.tokens:  # to the end, so that the time does not tell which one it was
            proofs = login_proofs(token.key, hello, welcome, binding)
            if hmac.compare_digest(proof, proofs.member) and not token.is_expired:
                found = token, proofs.store
        return found

    def login_failed(self, address: str) -> bool:
        """A stranger did not know a token; whether it is to be told so."""
        self._say(f"a login from {address} failed")
        return self._guesses.wrong(address, self._now())

    def _refuse(self, stranger: ServerConnection, why: str) -> None:
        self._strangers.pop(stranger, None)
        stranger.cut(why)
        self._say(why)

    def _say(self, why: str) -> None:
        self._refused += 1
        now = self._now()
        if now >= self._said + SAY_SECONDS:
            logger.warning(
                "refused %d connections since this was last said; the last one: %s",
                self._refused,
                why,
                extra={"refused": self._refused, "reason": why},
            )
            self._refused, self._said = 0, now
