"""A certificate authority for tests and trials, made in memory by `cryptography` (the extra `aiopg-group[certs]`).

The authority's own key is never written: what it signed in one go is all it ever signs, so nobody can later make a
certificate that its friends would believe. Keys are on the curve P-256, which every TLS 1.3 end must know (RFC 8446,
section 9.1). Certificates follow RFC 5280: version 3, names in the subjectAltName, the purpose in extendedKeyUsage.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Pair", "Purpose"]

DAYS = 365
"""How long certificates are valid: these are for trials."""

EARLY = datetime.timedelta(hours=1)
"""They are valid from so long ago, for hosts whose clock is behind."""

Purpose: TypeAlias = Literal["store", "member"]
"""A store's certificate also serves as a member's, because rank 0 is both; a member's cannot be used by a store."""

_USAGES = {
    "store": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "member": [ExtendedKeyUsageOID.CLIENT_AUTH],
}


class Pair(NamedTuple):
    """A certificate and its private key, PEM."""

    cert: bytes
    key: bytes


class Authority:
    """An authority that lives as long as this object."""

    def __init__(self, name: str = "aiopg test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._name, self._key.public_key(), _now() - EARLY, _in_days(DAYS))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        self._cert = builder.sign(self._key, hashes.SHA256())

    @property
    def cert(self) -> bytes:
        """The authority's certificate, PEM: what its friends are given as `ca`."""
        return self._cert.public_bytes(serialization.Encoding.PEM)

    def issue(self, purpose: Purpose, names: Sequence[str] = (), *, days: float = DAYS) -> Pair:
        """A pair that is valid for so many days from now (negative: it has expired).

        Args:
            purpose: "store" or "member".
            names: host names and IP addresses that it is for; the first is also its common name.
            days: until when.

        Raises `ValueError` for a name that is none.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(names[0] if names else f"aiopg {purpose}")
        until = _in_days(days)
        builder = _builder(subject, self._name, key.public_key(), min(_now(), until) - EARLY, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_USAGES[purpose]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), False)
        cert = builder.sign(self._key, hashes.SHA256())
        return Pair(
            cert.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


# Certificates are about dates: this is the one place where the time of day is asked for.


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _in_days(days: float) -> datetime.datetime:
    return _now() + datetime.timedelta(days=days)
