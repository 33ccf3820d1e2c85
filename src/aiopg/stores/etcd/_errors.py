"""What etcd refuses, and what is to be done about it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from aiopg.errors import AuthenticationError, StoreFullError

if TYPE_CHECKING:
    import grpc

__all__ = ["CompactedError", "LeaseGoneError", "RefusedError", "Remedy", "remedy"]


class RefusedError(Exception):
    """etcd understood a request and will never do it.

    Attributes:
        code: gRPC's name of the kind of error.
        reason: what etcd says.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"etcd refused a request: {reason} ({code})")
        self.code, self.reason = code, reason


class CompactedError(RefusedError):
    """What was asked for lies before the oldest revision that etcd keeps: it was compacted away.

    Attributes:
        oldest: the oldest revision that is there; 0 where etcd did not say.
    """

    def __init__(self, oldest: int, reason: str) -> None:
        super().__init__("OUT_OF_RANGE", reason)
        self.oldest = oldest


class LeaseGoneError(RefusedError):
    """The lease that the request names has expired, or was revoked."""


class Remedy(enum.Enum):
    """What to do about a request that failed."""

    MOVE = "send it again, at the next endpoint"
    WAIT = "send it again a little later"
    LOGIN = "log in again, then send it again"


def remedy(code: grpc.StatusCode, details: str, endpoint: str, size: int) -> Remedy:
    """What to do; `size` is the request's, in bytes.

    Raises:
        AuthenticationError: the login is wrong, missing, or not allowed to do this.
        StoreFullError: the space that etcd's own quota gives it is full.
        CompactedError, LeaseGoneError, RefusedError: as they say.
    """
    name = code.name
    match name:
        case "UNAUTHENTICATED":
            return Remedy.LOGIN
        case "INVALID_ARGUMENT" if "auth store is old" in details:
            return Remedy.LOGIN
        case "INVALID_ARGUMENT" if "user name is empty" in details:
            raise AuthenticationError(endpoint, "etcd asks for a user and password, and none were given")
        case "INVALID_ARGUMENT" if "authentication failed" in details:
            raise AuthenticationError(endpoint, "etcd does not know this user and password")
        case "PERMISSION_DENIED":
            raise AuthenticationError(endpoint, f"the user may not do this in etcd: {details}")
        case "RESOURCE_EXHAUSTED" if "database space exceeded" in details:
            raise StoreFullError("quota-backend-bytes", 0, "etcd (it refuses writes until it has space again)")
        case "RESOURCE_EXHAUSTED" if "too many requests" in details:
            return Remedy.WAIT
        case "OUT_OF_RANGE" if "compacted" in details:
            raise CompactedError(0, details)
        case "NOT_FOUND" if "lease not found" in details:
            raise LeaseGoneError(name, details)
        case "INVALID_ARGUMENT" | "RESOURCE_EXHAUSTED" if "too large" in details or "larger than max" in details:
            raise RefusedError(name, f"{details} (the request has {size} bytes)")
        case "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "CANCELLED" | "ABORTED" | "INTERNAL" | "UNKNOWN" | "DATA_LOSS":
            # The member or the road to it is in trouble, or it stops just now; the last ones are also what
            # broken connections look like, and what a member says of itself while it goes down.
            return Remedy.MOVE
    raise RefusedError(name, details)
