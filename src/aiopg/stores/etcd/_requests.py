"""Requests with one answer: sent again, at the next endpoint, until one answers.

A request whose answer did not come may have taken effect, and is sent again all the same. So a request must be such
that twice is as good as once; `send` says whether it was so.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiopg.errors import AuthenticationError, GroupClosedError
from aiopg.stores.etcd._calls import CallFailedError, Metadata, Stream, Unary
from aiopg.stores.etcd._endpoints import Endpoint, Endpoints
from aiopg.stores.etcd._errors import RefusedError, Remedy, remedy
from aiopg.stores.etcd._wire import Fields, string

__all__ = ["Login", "Requests"]

logger = logging.getLogger("aiopg.stores.etcd")

AUTHENTICATE: Final = "/etcdserverpb.Auth/Authenticate"

HAS_LEADER: Final = ("hasleader", "true")
"""Asks a member to refuse what it would only keep waiting, or answer from its old state, while it has no leader."""

LOGINS: Final = 3
"""So many fresh logins that are not taken in a row are no accident of a token that has just expired."""

WAIT_SECONDS: Final = 0.2
"""Until a request is sent again to an etcd that has too many."""


class Login:
    """User and password, and the token that etcd gave for them."""

    def __init__(self, user: str | None, password: str | None) -> None:
        if (user is None) is not (password is None):
            raise ValueError("a login at etcd is a user and a password: give both, or neither")
        self._user, self._password = user, password
        self.token = ""
        self._is_needed = user is not None

    def __repr__(self) -> str:
        return f"<Login of {self._user!r}>"

    @property
    def metadata(self) -> Metadata:
        """What goes with each request."""
        return (HAS_LEADER, ("token", self.token)) if self.token else (HAS_LEADER,)

    def request(self, endpoint: str) -> bytes:
        """The request that logs in. Raises `AuthenticationError` where there is nothing to log in with."""
        if self._user is None or self._password is None:
            raise AuthenticationError(endpoint, "etcd asks for a user and password, and none were given")
        return string(1, self._user.encode()) + string(2, self._password.encode())

    def granted(self, answer: bytes) -> None:
        """Take the token from the answer to it."""
        self.token = Fields(answer).text(2)

    def refused(self, reason: str) -> bool:
        """The request that logs in was refused: whether that is since etcd asks nobody to log in."""
        if "authentication is not enabled" not in reason:
            return False
        self._is_needed = False
        return True

    def again(self) -> Login:
        """The same for somebody else, with a token of its own."""
        return Login(self._user, self._password)

    @property
    def is_wanted(self) -> bool:
        """Whether there is a user, and no token yet."""
        return self._is_needed and not self.token


class Requests:
    """Sends requests. Belongs to one event loop."""

    def __init__(self, endpoints: Endpoints, login: Login) -> None:
        self.endpoints = endpoints
        self.login = login
        self.trouble = "nothing was tried"
        """What the last attempt that failed met."""
        self._logging_in = asyncio.Lock()
        self._streams: set[Stream] = set()
        self._closed = False

    async def send(self, method: str, request: bytes) -> tuple[bytes, bool]:
        """The answer, and whether an earlier sending may have taken effect.

        It goes on until an endpoint answers; cancel it to give up (it may have taken effect then). Raises:
        AuthenticationError, StoreFullError, CompactedError, LeaseGoneError, RefusedError, GroupClosedError.
        """
        resent, logins = False, 0
        while True:
            endpoint, token = self.endpoints.current, self.login.token
            metadata = self.login.metadata if method != AUTHENTICATE else (HAS_LEADER,)
            self.check_open()
            sent = Unary(endpoint.unary(method), request, self.endpoints.attempt_seconds, metadata)
            try:
                with self.endpoints.telling(sent.cancel):
                    answer = await sent.answer()
            except CallFailedError as error:
                self.check_open()
                what = remedy(error.code, error.details, endpoint.address, len(request))
                if what is Remedy.LOGIN:
                    logins += 1
                    await self.log_in_again(token, logins, endpoint)
                    continue
                resent = True
                await self.after_failure(endpoint, error, what)
            else:
                self.endpoints.worked()
                return answer, resent

    def stream(self, method: str, request: bytes, name: str) -> Stream:
        """A stream from the current endpoint, for `give_back`; `name` is that of its thread."""
        self.check_open()
        stream = Stream(self.endpoints.current.stream(method)(request, metadata=self.login.metadata), name)
        self._streams.add(stream)
        return stream

    def give_back(self, stream: Stream) -> None:
        """Nobody reads that stream any more."""
        stream.close()
        self._streams.discard(stream)

    async def log_in(self, stale: str) -> None:
        """Get a token, unless there is another one than the stale one already."""
        async with self._logging_in:
            if self.login.token != stale:
                return
            request = self.login.request(self.endpoints.current.address)
            try:
                answer, _ = await self.send(AUTHENTICATE, request)
            except RefusedError as error:
                if not self.login.refused(error.reason):
                    raise
            else:
                self.login.granted(answer)

    async def after_failure(self, endpoint: Endpoint, error: CallFailedError, what: Remedy) -> None:
        """Move on from the endpoint, if that is the remedy, and wait a little where due."""
        self.trouble = f"{endpoint.address}: {error}"
        logger.debug("etcd at %s failed: %s", endpoint.address, error)
        if what is Remedy.MOVE:
            self.endpoints.move(endpoint.address, error.code)
            await asyncio.sleep(self.endpoints.pause)
        else:
            await asyncio.sleep(WAIT_SECONDS)

    def shut(self) -> None:
        """Close the channels, at once: requests under way raise `GroupClosedError`."""
        self._closed = True
        for stream in self._streams:
            stream.close()
        for channel in self.endpoints.channels():
            channel.close()

    async def wait_closed(self) -> None:
        """Until the threads of streams that nobody gave back have ended."""
        streams, self._streams = self._streams, set()
        for stream in streams:
            await stream.wait_closed()

    def check_open(self) -> None:
        """Raise `GroupClosedError` once closed."""
        if self._closed:
            raise GroupClosedError("the connection to etcd was closed")

    async def log_in_again(self, token: str, logins: int, endpoint: Endpoint) -> None:
        """After a token was not taken, for the so manieth time. Raises `AuthenticationError`."""
        if logins > LOGINS:
            raise AuthenticationError(endpoint.address, "etcd takes none of the tokens that it gives")
        await self.log_in(token)
