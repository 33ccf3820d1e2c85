"""Who may look, and at which groups: by a token of the store, as members are let in by one.

Tools say it with each request (`Authorization: Bearer`). A browser says it once, in a form, and has a cookie from then
on in which there is no token: the time until which it is good, by this host's monotonic clock, and a proof that whoever
made it knew the token and a secret of this process. So it ends with this process, or with the token. Scripts cannot
read it, and no other site can have it sent (HttpOnly, SameSite=Strict).

Without tokens everybody who can reach the port may look, and that must not be a web page of strangers in a browser on
this host: they can have a name of theirs resolve to an address of ours. So requests must name an address, `localhost`,
this host or the name that the side port was told to listen on.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import time
from hashlib import sha256
from typing import Final

from aiopg._core.scopes import ANY_GROUP, Scope
from aiopg.server._guesses import Guesses
from aiopg.tokens import Token

__all__ = ["COOKIE_SECONDS", "Access"]

COOKIE_SECONDS: Final = 12 * 3600
"""A working day: then the browser asks for the token again."""

FAILED_LOGINS = 10
"""Wrong tokens of one address that are told so within a second, as at the store (`Limits.failed_logins`); all others
are told that these were too many."""

TEXT_CHARACTERS = 4096
"""A header, cookie or field longer than this is no token."""


class Access:
    """The tokens of the store, and the proofs that a browser knew one."""

    def __init__(self, tokens: tuple[Token, ...] = (), host: str = "", port: int = 0) -> None:
        """`host`: what the side port was told to listen on. `port`: where it does; browsers mix cookies of ports."""
        self.tokens = tokens
        self.cookie = f"aiopg_{port}"
        """Its name."""
        self._hosts = {"localhost", host.lower(), socket.gethostname().lower()}
        self._secret = secrets.token_bytes(32)
        self._guesses = Guesses(FAILED_LOGINS)

    @property
    def asks_token(self) -> bool:
        """Whether nobody may look without one."""
        return bool(self.tokens)

    def is_meant(self, host: str) -> bool:
        """Whether a request that names this host (with or without a port) is for us, where no token says so."""
        if self.asks_token:
            return True
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        try:
            ipaddress.ip_address(name.strip("[]").partition("%")[0])
        except ValueError:
            return name.lower() in self._hosts
        return True

    def scope(self, authorization: str | None, cookie: str | None) -> Scope | None:
        """The groups that who says this may see; None: he may see nothing."""
        if not self.asks_token:
            return ANY_GROUP
        if authorization is not None:
            scheme, _, said = authorization.partition(" ")
            token = self.find(said.strip()) if scheme.lower() == "bearer" else None
        else:
            token = self._find_cookie(cookie or "")
        return None if token is None else token.groups

    def find(self, said: str) -> Token | None:
        """The token with this secret, if it is still accepted."""
        found = None
        if len(said) <= TEXT_CHARACTERS:
            for token in self.tokens:  # to the end, so that the time does not tell which one it was
                if hmac.compare_digest(_digest(said), _digest(token.secret)) and not token.is_expired:
                    found = token
        return found

    def failed(self, address: str) -> bool:
        """A wrong token came from this address; whether it is to be told so."""
        return self._guesses.wrong(address, time.monotonic())

    def make_cookie(self, token: Token) -> str:
        """What a browser may show from now on in the place of this token, for `COOKIE_SECONDS`."""
        until = str(int(time.monotonic()) + COOKIE_SECONDS)
        return f"{until}.{self._proof(token, until)}"

    def _find_cookie(self, header: str) -> Token | None:
        # Not http.cookies: to that one odd cookie, of another program on this host, makes all of them none. And ours
        # has nothing in it that would be quoted.
        prefix = f"{self.cookie}="
        cookies = (cookie.strip() for cookie in header.split(";"))
        said = next((cookie.removeprefix(prefix) for cookie in cookies if cookie.startswith(prefix)), "")
        if len(said) > TEXT_CHARACTERS or not said.isascii():  # what is compared below must be ASCII
            return None
        until, _, proof = said.partition(".")
        found = None
        for token in self.tokens:
            if hmac.compare_digest(proof, self._proof(token, until)) and not token.is_expired:
                found = token
        return found if found is not None and until.isdigit() and time.monotonic() < int(until) else None

    def _proof(self, token: Token, until: str) -> str:
        return hmac.new(self._secret + token.key, until.encode(), sha256).hexdigest()


def _digest(text: str) -> bytes:
    # Of equal length, so that the comparison does not tell how long a token is.
    return sha256(text.encode(errors="surrogatepass")).digest()
