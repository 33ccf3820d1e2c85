"""The store's certificate: whose it is, for which names, until when, and whether members believe it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

from aiopg.address import Address
from aiopg.cli.doctor._findings import Finding, fault, fine, note, warning
from aiopg.observe.words import duration

__all__ = ["look_at_tls"]

SOON_SECONDS = 14 * 86400.0
"""Certificates that end so soon are warned of."""

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for."""


class _Peer(NamedTuple):
    """The other end of a handshake."""

    version: str
    encoded: bytes
    """Its certificate as it came."""
    certificate: dict[str, Any]
    """The same taken apart; empty where it was not verified."""


async def look_at_tls(address: Address, context: ssl.SSLContext | None, timeout: float) -> AsyncIterator[Finding]:
    """Findings; the last one is a fault if no login can follow. `context`: that of members, None for no TLS."""
    if address.path:
        return
    if context is None:
        if await _speaks_tls(address, timeout):
            yield fault("TLS", "the store speaks TLS, and this command was told of none",
                        "give --tls-ca, or set AIOPG_TLS_CA (and AIOPG_TLS_CERT and AIOPG_TLS_KEY if it asks for a "
                        "certificate)")  # fmt: skip
        else:
            yield note("TLS", "none: who is on the way between two hosts can read along")
        return
    seen = await _certificate(address, timeout)
    if seen is None:
        yield fault("TLS", "what listens there does not speak TLS 1.3",
                    "leave away the --tls options and AIOPG_TLS_CA, or serve with TLS (--tls-cert)")  # fmt: skip
        return
    try:
        version = (await _handshake(address, context, timeout)).version
    except ssl.SSLCertVerificationError as error:
        yield _refused(address, error, seen)
        return
    except (OSError, EOFError) as error:
        yield fault("TLS", f"the handshake fails: {error}", "look at the certificates of both ends")
        return
    yield fine("TLS", f"{version}; the certificate of {_owner(seen)} is believed, and is for {_names(seen)}")
    for finding in _judge_end(seen):
        yield finding


def _refused(address: Address, error: ssl.SSLCertVerificationError, seen: dict[str, Any]) -> Finding:
    """Why members refuse it."""
    text = f"members refuse the certificate of {_owner(seen)}: {error.verify_message}"
    if error.verify_code in (18, 19, 20, 21):  # an authority that is not known
        return fault("TLS", f"{text}; it was issued by {_name(seen, 'issuer')}",
                     "give the file of that authority as --tls-ca or AIOPG_TLS_CA")  # fmt: skip
    if error.verify_code in (62, 64):  # another host, another address
        return fault("TLS", f"{text}; it is for {_names(seen)}",
                     f"connect by one of these names, or make a certificate that has {address.host} in it (aiopg certs "
                     f"--name {address.host})")  # fmt: skip
    if error.verify_code in (9, 10):  # not yet, no longer
        return fault("TLS", f"{text}; it is good from {seen.get('notBefore')} to {seen.get('notAfter')}",
                     "make a new certificate, or set the clock of this host")  # fmt: skip
    return fault("TLS", text, "make another certificate for the store")


def _judge_end(seen: dict[str, Any]) -> Iterator[Finding]:
    ends = ssl.cert_time_to_seconds(seen["notAfter"])
    left = ends - time.time()  # a certificate's end is a date: this is about the host's clock
    if left < SOON_SECONDS:
        yield warning("TLS", f"its certificate ends in {duration(left)}, on {seen['notAfter']}",
                      "give the store a new one and start it again; members come back by themselves if it has a "
                      "journal")  # fmt: skip
    else:
        yield fine("TLS", f"its certificate ends in {left / 86400:.0f} days, on {seen['notAfter']}")


# ------------------------------------------------------------------------------------------------------ handshakes


async def _certificate(address: Address, timeout: float) -> dict[str, Any] | None:
    """What is in the store's certificate, believed or not; None if it speaks no TLS 1.3."""
    try:
        encoded = (await _handshake(address, _unbelieving(), timeout)).encoded
        # Python takes certificates apart that it has verified: so this one is its own authority here.
        believing = _unbelieving()
        believing.load_verify_locations(cadata=encoded)
        believing.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(NO_CHECK_TIME)
        believing.verify_mode = ssl.CERT_REQUIRED
        return (await _handshake(address, believing, timeout)).certificate
    except (OSError, EOFError):
        return None


async def _speaks_tls(address: Address, timeout: float) -> bool:
    try:
        await _handshake(address, _unbelieving(), timeout)
    except (OSError, EOFError):
        return False
    return True


async def _handshake(address: Address, context: ssl.SSLContext, timeout: float) -> _Peer:
    """What both ends agree on, and no word more. Raises `OSError`, `ssl.SSLError` included, or `EOFError`."""
    async with asyncio.timeout(timeout):
        _, writer = await asyncio.open_connection(
            address.host, address.port, ssl=context, server_hostname=address.host, ssl_handshake_timeout=timeout
        )
    agreed = writer.get_extra_info("ssl_object")
    peer = _Peer(str(agreed.version()), agreed.getpeercert(True), agreed.getpeercert())
    writer.transport.abort()
    return peer


def _unbelieving() -> ssl.SSLContext:
    """A context for looking only: nothing is ever said over its connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# ----------------------------------------------------------------------------------------------------------- words


def _names(seen: dict[str, Any]) -> str:
    return ", ".join(str(name) for _, name in seen.get("subjectAltName", ())) or "no name"


def _owner(seen: dict[str, Any]) -> str:
    return _name(seen, "subject")


def _name(seen: dict[str, Any], whose: str) -> str:
    parts = [value for each in seen.get(whose, ()) for key, value in each if key == "commonName"]
    return repr(parts[0]) if parts else "somebody without a name"
