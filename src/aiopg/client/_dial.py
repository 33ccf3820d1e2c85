"""Finding a store: connect and open a session; again until the deadline while the store may still be coming up."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import random
import socket
import ssl

from aiopg._core.limits import Limits
from aiopg.address import NAMED_LATER, Address
from aiopg.client._client import Client
from aiopg.client._connection import CertificateRefusedError, SessionOverError
from aiopg.client._road import Road, take_road
from aiopg.errors import AuthenticationError, ProtocolError, StoreUnreachableError

__all__ = ["GRACE_SECONDS", "dial", "dial_once"]

logger = logging.getLogger("aiopg.client")

GRACE_SECONDS = 5.0
"""For so long a store keeps the session of a member whose connection broke, unless it asks for another time."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
"""Seconds between attempts, doubling, each drawn at random up to this: a thousand ranks do not come in step."""

REFUSALS = 3
"""So often in a row a store must look as if it refused this member's certificate (`CertificateRefusedError`)."""

NOT_YET = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOENT, errno.EPIPE, errno.EAGAIN})
"""Nobody serves there now; somebody may a moment later. Everything else (no route) is final."""


class UnknownHostError(ConnectionError):
    """The name of the store's host is not known, or not yet. Never leaves `client`."""


async def dial(
    address: Address, deadline: float, *, grace: float = GRACE_SECONDS, token: bytes = b"", road: Road = take_road
) -> Client:
    """An open session with the store at `address`; waits for it to come up until `deadline` (loop time).

    Args:
        address: where it is.
        deadline: loop time; `math.inf` for none.
        grace: seconds for which the store is to keep the session while no connection carries it.
        token: what both ends must prove to know; empty: the store must ask for nothing.
        road: how to get there.

    Raises:
        AuthenticationError: at once: store and member do not share a token, or one refuses the other's certificate.
        StoreUnreachableError: at once where no waiting helps: no route, something that is no store; at the deadline if
            the host name was not known by then.
        TimeoutError: it was not up by the deadline; the text says what the last attempt met that came to an end.
    """
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE
    met: ConnectionError | None = None
    while True:
        try:
            return await dial_once(address, deadline, grace=grace, token=token, road=road)
        except StoreUnreachableError:
            raise
        except TimeoutError as error:
            if met is None:
                raise
            # An attempt that the deadline cut short says less than the one before it.
            raise _too_late(address, met) from error
        except ConnectionError as error:
            if isinstance(error, UnknownHostError) and not isinstance(met, UnknownHostError):
                logger.warning(
                    "%s; it is tried again until the deadline, as the name may come later",
                    error,
                    extra={"address": str(address), "reason": str(error)},
                )
            met = error
            # The whole handshake is one unit: whatever broke it, it begins anew.
            wait = random.uniform(pause / 2, pause)
            if loop.time() + wait >= deadline:
                await asyncio.sleep(deadline - loop.time())
                raise _too_late(address, error) from error
        await asyncio.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE)


def _too_late(address: Address, met: ConnectionError) -> Exception:
    """The error of the deadline, after attempts of which the last met this."""
    if isinstance(met, UnknownHostError):
        return StoreUnreachableError(str(address), str(met))
    return TimeoutError(f"it did not come up in time ({met})")


async def dial_once(
    address: Address, deadline: float, *, grace: float = GRACE_SECONDS, token: bytes = b"", road: Road = take_road
) -> Client:
    """One attempt; as many as it takes to tell a store that refuses this member's certificate from one that is closing.

    Raises:
        AuthenticationError: store and member do not share a token, or one refuses the other's certificate.
        StoreUnreachableError: final, see `dial`.
        ConnectionError: nobody serves there now.
        TimeoutError: whoever is there had not answered by the deadline.
    """
    try:
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            for _ in range(REFUSALS - 1):
                try:
                    return await _attempt(address, grace, token, road)
                except CertificateRefusedError:
                    await asyncio.sleep(FIRST_PAUSE)
            return await _attempt(address, grace, token, road)
    except CertificateRefusedError as error:
        raise AuthenticationError(str(address), str(error)) from error
    except TimeoutError as error:
        raise TimeoutError("no answer in time") from error


async def _attempt(address: Address, grace: float, token: bytes, road: Road) -> Client:
    """Raises as `dial_once` does, and `CertificateRefusedError`."""
    name = str(address)
    client = Client(Limits(), address, road, grace=grace, token=token)
    try:
        await client.open()
    except ProtocolError as error:
        raise StoreUnreachableError(name, error.reason) from error
    except SessionOverError as error:
        raise ConnectionError(str(error)) from error  # it is just ending, or full: a moment later it may not be
    except (CertificateRefusedError, TimeoutError):
        raise
    except ssl.SSLCertVerificationError as error:
        raise AuthenticationError(
            name, f"this member refuses the store's certificate: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise StoreUnreachableError(name, f"no TLS connection can be made: {error.reason or error}") from error
    except socket.gaierror as error:
        if error.errno in NAMED_LATER:
            raise UnknownHostError(f"the host name {address.host!r} does not resolve: {error.strerror}") from error
        raise StoreUnreachableError(name, f"the host name does not resolve: {error.strerror}") from error
    except OSError as error:
        if error.errno in NOT_YET or (isinstance(error, ConnectionError) and error.errno is None):
            raise ConnectionError(str(error)) from error
        raise StoreUnreachableError(name, str(error)) from error
    return client
