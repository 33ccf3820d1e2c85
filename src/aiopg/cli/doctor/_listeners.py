"""Who listens on a port of this host, as Linux' /proc tells."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio

from aiopg.cli.doctor._findings import Finding, fault, fine, warning

__all__ = ["listeners", "look_at_listeners"]

LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""

ACCEPT_SECONDS = 0.3
"""What a store that runs has not accepted after so long, it does not accept."""


def listeners(port: int) -> dict[str, int]:
    """Addresses of this host on which somebody listens on that port, and how many connections wait to be accepted.

    Empty where the system does not tell.
    """
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, queues, *_ = line.split()
            raw, _, hex_port = local.partition(":")
            if state == LISTEN and int(hex_port, 16) == port:
                found[_decoded(raw)] = int(queues.partition(":")[2], 16)
    return found


async def look_at_listeners(port: int, hosts: Sequence[str]) -> AsyncIterator[Finding]:
    """Findings about a store on this host; none if it is on another one."""
    if not any(_is_ours(host) for host in hosts):
        return
    found = listeners(port)
    if found and any(found.values()):
        await anyio.sleep(ACCEPT_SECONDS)  # our own connection may be among them
        found = listeners(port)
    if not found:
        return
    said = f"on this host, port {port} is listened on at {', '.join(sorted(found))}"
    if any(ipaddress.ip_address(one).is_unspecified for one in found):
        yield fine("listening", f"{said}: by every address")
    elif not set(found) & set(hosts):
        yield fault("listening", f"{said} only", f"use that address, or serve on {hosts[0]}")
    else:
        yield fine("listening", said)
    if waiting := sum(found.values()):
        yield warning(
            "listening",
            f"{waiting} connections wait there to be accepted",
            "the process that listens is stopped, or has no processor, or has as many files open as it may",
        )


def _decoded(raw: str) -> str:
    """An address of /proc/net/tcp: words of 32 bits in the host's byte order."""
    words = [bytes.fromhex(raw[at : at + 8]) for at in range(0, len(raw), 8)]
    ordered = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(ordered))


def _is_ours(host: str) -> bool:
    """Whether this host has that address."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
