"""Tokens: what a store and its members both know, and prove to each other that they know (`_core.handshake`).

A token is a text of 16 bytes or more; `new_token` (and `aiopg token`) makes one of 32 random bytes. It is never sent,
logged or shown, and belongs in a file or in the environment (AIOPG_TOKEN), not on a command line, which every user of
the host can read.

A store may take several tokens at once: so one can be replaced by another while both are in use, and each can be
limited to groups of certain names, which makes one store serve tenants that know nothing of each other.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from aiopg._core.scopes import ANY_GROUP, Scope

__all__ = [
    "LEAST_BYTES",
    "VARIABLE",
    "Token",
    "Tokens",
    "accepted_tokens",
    "member_token",
    "new_token",
    "read_tokens",
]

VARIABLE: Final = "AIOPG_TOKEN"

LEAST_BYTES = 16
"""Who records a login may guess at the token for as long as he likes: it must not be a word that somebody chose."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that a store accepts.

    Raises `ValueError` for a secret under 16 bytes, a pattern with a star that is not at its end, or an expiry without
    a time zone.
    """

    secret: str = field(repr=False)
    groups: Scope = ANY_GROUP
    """Names of the groups that its members may join and see; one that ends in `*` stands for all that begin so."""
    expires: datetime | None = None
    """Not accepted from then on. Sessions that are open go on until their connection ends. None: never."""

    def __post_init__(self) -> None:
        check_secret(self.secret)
        for pattern in self.groups:
            if not pattern or "*" in pattern[:-1]:
                raise ValueError(f"a token's groups are names, or beginnings of names with a * behind, not {pattern!r}")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError(f"a token's expiry needs a time zone: {self.expires.isoformat()}")

    @property
    def key(self) -> bytes:
        """What the proofs are made with."""
        return self.secret.encode()

    @property
    def is_expired(self) -> bool:
        """Whether its time is over. This is the host's clock: an expiry is a date that people agreed on."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


Tokens: TypeAlias = str | Token | Iterable[str | Token]
"""What a store is given: one token or several, as text where nothing limits them."""


def new_token() -> str:
    """A token of 32 random bytes, as 64 hexadecimal digits."""
    return secrets.token_hex(32)


def check_secret(secret: str) -> None:
    """Raises `ValueError` for one that is too short to be one; the error does not show it."""
    if len(secret.encode()) < LEAST_BYTES:
        raise ValueError(
            f"a token has {LEAST_BYTES} bytes or more, not {len(secret.encode())}; `aiopg token` makes one"
        )


def accepted_tokens(tokens: Tokens | None) -> tuple[Token, ...]:
    """The tokens of a store. None: that of AIOPG_TOKEN, if set. An empty text or sequence: none at all.

    Raises `ValueError` as `Token` does, and for the same secret twice.
    """
    if tokens is None:
        tokens = os.environ.get(VARIABLE, "")
    if isinstance(tokens, str | Token):
        tokens = [tokens] if tokens else []
    accepted = tuple(token if isinstance(token, Token) else Token(token) for token in tokens)
    if len({token.secret for token in accepted}) < len(accepted):
        raise ValueError("two of the tokens have the same secret: name all groups of a token in one")
    return accepted


def member_token(token: str | None) -> bytes:
    """What a member proves that it knows; empty if nothing. None: AIOPG_TOKEN, if set.

    Raises `ValueError` for a token that is too short to be one.
    """
    if token is None:
        token = os.environ.get(VARIABLE, "")
    if token:
        check_secret(token)
    return token.encode()


def read_tokens(path: str | os.PathLike[str]) -> tuple[Token, ...]:
    """The tokens in a file: one a line, `SECRET [expires=2027-01-31T00:00+00:00] [GROUP ...]`; `#` begins a comment.

    Raises:
        ValueError: every user of the host may read the file; a line makes no sense (the error names it by its number
            only); there is no token in it.
        OSError: it cannot be read.
    """
    with Path(path).open(encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_mode & stat.S_IROTH:
            raise ValueError(f"every user of this host can read {path}; take that away: chmod 600 {path}")
        lines = file.read().splitlines()
    tokens: list[Token] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                tokens.append(_token(words))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    if not tokens:
        raise ValueError(f"there is no token in {path}; `aiopg token` makes one")
    return accepted_tokens(tokens)


def _token(words: list[str]) -> Token:
    secret, *rest = words
    dates = [word.removeprefix("expires=") for word in rest if word.startswith("expires=")]
    groups = tuple(word for word in rest if not word.startswith("expires="))
    if len(dates) > 1:
        raise ValueError("it expires more than once")
    return Token(secret, groups or ANY_GROUP, datetime.fromisoformat(dates[0]) if dates else None)
