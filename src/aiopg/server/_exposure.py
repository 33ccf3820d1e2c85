"""Safe by default: who could reach a store, and whether that is meant.

A store that asks for nothing is for the processes of one host. On an address that other hosts can reach it must ask for
a token or for a certificate, unless its owner says that the network itself keeps strangers out.
"""

from __future__ import annotations

import ipaddress
import logging
import os

from aiopg.address import Address
from aiopg.errors import UsageError

__all__ = ["check_exposure", "keep_private"]

logger = logging.getLogger("aiopg.server")

VARIABLE = "AIOPG_INSECURE"


def check_exposure(
    address: Address, *, asks_token: bool, asks_certificate: bool, is_encrypted: bool, insecure: bool
) -> None:
    """Raises `UsageError` for an address that other hosts can reach, where nothing keeps strangers out.

    `insecure` (or AIOPG_INSECURE=1 in the environment) lets it pass with a warning in the log.
    """
    if address.path or ipaddress.ip_address(address.host.partition("%")[0]).is_loopback:
        return
    if asks_token or asks_certificate:
        if not is_encrypted:
            logger.warning(
                "%s is not encrypted: the token keeps strangers out, and whoever is on the way between two hosts can "
                "read what is exchanged and take a connection over; encryption keeps him out too",
                address,
                extra={"address": str(address)},
            )
        return
    if insecure or os.environ.get(VARIABLE) == "1":
        logger.warning(
            "%s asks for no token and no certificate: whoever can reach it is a member",
            address,
            extra={"address": str(address)},
        )
        return
    raise UsageError(
        f"{address} can be reached from other hosts, and the store would let anybody in. Either\n"
        "    set AIOPG_TOKEN to the same secret on every rank (`aiopg token` makes one), or pass token=, or\n"
        "    pass insecure=True (--insecure, AIOPG_INSECURE=1) where the network itself keeps strangers out"
    )


def keep_private(path: str) -> None:
    """A socket's file that only this user (and root) can connect to. Before it listens, so that there is no gap."""
    os.chmod(path, 0o600)
