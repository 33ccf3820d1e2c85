"""TLS: encryption, and certificates by which the ends know each other.

`Tls` names files and makes the contexts of `ssl` from them: TLS 1.3 and nothing older, the store's certificate checked
against the name that the member asked for. With `ca` the store asks members for a certificate as well. On unix sockets
there is no TLS: the bytes never leave the kernel.

The login by token (`_core.handshake`) is bound to the TLS connection below it by `channel_binding`: so somebody in the
middle who has a certificate that the member believes, and ends one connection to begin another, cannot pass the proofs
on. The binding is the client's Finished message (RFC 8446, section 4.4.4): a MAC over the whole handshake, with both
ends' fresh keys and the server's certificate in it, under a key that only these two ends have. It is what RFC 5929
calls tls-unique. That was given up with TLS 1.3 (RFC 9266 has an exporter instead, which Python does not offer), since
before 1.3 two connections could be made to share it by resuming sessions. In TLS 1.3 every handshake has fresh keys in
it, and we resume none.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from typing import Final, TypeAlias

from aiopg.errors import ProtocolError, UsageError

__all__ = ["Encryption", "SHUTDOWN_SECONDS", "Tls", "channel_binding", "client_context", "server_context"]

CERT: Final = "AIOPG_TLS_CERT"
KEY: Final = "AIOPG_TLS_KEY"
CA: Final = "AIOPG_TLS_CA"
MUTUAL: Final = "AIOPG_TLS_MUTUAL"

SHUTDOWN_SECONDS = 2.0
"""How long an end waits for the other one's goodbye of TLS before it closes the connection."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files that TLS is made from. Raises `ValueError` where `cert` or `key` is missing beside the other."""

    cert: str | None = None
    """PEM file with this end's certificate, and those between it and the authority. A store needs one."""
    key: str | None = None
    """PEM file with its private key, which is not encrypted."""
    ca: str | None = None
    """PEM file with the authority whose certificates are believed. A member without one believes the system's."""
    mutual: bool = True
    """Whether a store that has a `ca` asks members for a certificate of it."""

    def __post_init__(self) -> None:
        if (self.cert is None) is not (self.key is None):
            raise ValueError("TLS needs a certificate and its key: give both cert and key, or neither")

    def server_context(self) -> ssl.SSLContext:
        """For a store. Raises `UsageError` that names the file that is missing or makes no sense."""
        if self.cert is None:
            raise UsageError("a store with TLS needs a certificate: give cert and key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._fill(context)
        if self.ca is not None and self.mutual:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a member. Raises as `server_context`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._fill(context)
        if self.ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context

    def environment(self) -> dict[str, str]:
        """Variables from which a child process has the same (`from_environment`)."""
        named = {CERT: self.cert, KEY: self.key, CA: self.ca, MUTUAL: "1" if self.mutual else "0"}
        return {name: value for name, value in named.items() if value is not None}

    def _fill(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.cert is not None and self.key is not None:
            for path in (self.cert, self.key):
                _check_readable(path)
            try:
                # With a password that is never right, so that nobody is asked for one at a terminal.
                context.load_cert_chain(self.cert, self.key, password="")
            except (ssl.SSLError, ValueError) as error:
                raise UsageError(f"{self.cert} and {self.key} are not a certificate and its key: {error}") from error
        if self.ca is not None:
            _check_readable(self.ca)
            try:
                context.load_verify_locations(self.ca)
            except ssl.SSLError as error:
                raise UsageError(f"{self.ca} holds no certificate of an authority: {error}") from error


Encryption: TypeAlias = Tls | ssl.SSLContext
"""What `ssl=` takes. A context is used as it is."""


def from_environment() -> Tls | None:
    """AIOPG_TLS_CERT, AIOPG_TLS_KEY, AIOPG_TLS_CA (file names) and AIOPG_TLS_MUTUAL (0: no certificates of members).

    None where none of them names a file. Raises `ValueError` for a certificate without key or the other way round.
    """
    cert, key, ca = (os.environ.get(name) or None for name in (CERT, KEY, CA))
    if cert is None and key is None and ca is None:
        return None
    if (cert is None) is not (key is None):
        raise ValueError(f"{CERT} and {KEY} belong together: set both or neither")
    return Tls(cert, key, ca, os.environ.get(MUTUAL) != "0")


def client_context(encryption: Encryption | None) -> ssl.SSLContext | None:
    """A member's context; None: what the environment says, and no TLS if it says nothing. Raises as `Tls` does."""
    encryption = from_environment() if encryption is None else encryption
    return encryption.client_context() if isinstance(encryption, Tls) else encryption


def server_context(encryption: Encryption | None) -> ssl.SSLContext | None:
    """A store's context; None: what the environment says, and no TLS if that names no certificate."""
    if encryption is None:
        encryption = from_environment()
        if isinstance(encryption, Tls) and encryption.cert is None:
            return None  # AIOPG_TLS_CA alone is for members
    return encryption.server_context() if isinstance(encryption, Tls) else encryption


def channel_binding(transport: asyncio.Transport) -> bytes:
    """The same at both ends of one TLS connection, other bytes on every other one; empty without TLS.

    Raises `ProtocolError` for one that has none: older than TLS 1.3, or going on with an old TLS session.
    """
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return b""
    binding: bytes | None = tls.get_channel_binding("tls-unique")
    if not binding or tls.version() != "TLSv1.3" or tls.session_reused:
        raise ProtocolError(f"a login by token needs a fresh TLS 1.3 connection, not {tls.version()}")
    return b"finished" + binding


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
