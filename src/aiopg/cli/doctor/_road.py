"""The road to a store: its name, its address, a connection, and what the kernels say of each other."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from aiopg import liveness
from aiopg.address import Address
from aiopg.cli.doctor._findings import Finding, fault, fine, note, warning
from aiopg.cli.doctor._listeners import look_at_listeners
from aiopg.observe.words import duration

__all__ = ["Road", "look_at_road"]

SLOW_NAME_SECONDS = 1.0


@dataclass(slots=True)
class Road:
    """What is looked at."""

    address: Address
    timeout: float
    """Seconds for one connection."""
    hosts: Sequence[str] = ()
    """The addresses that its name has."""
    is_open: bool = False
    """Whether a connection could be made."""


async def look_at_road(road: Road) -> AsyncIterator[Finding]:
    """Findings; `road` knows more then."""
    if road.address.path:
        finding = await _look_at_file(road.address, road.timeout)
        road.is_open = finding.level != "FAULT"
        yield finding
        return
    async for finding in _look_at_name(road):
        yield finding
    outcomes = {host: await _connect(host, road.address.port, road.timeout) for host in road.hosts}
    road.is_open = any(isinstance(outcome, socket.socket) for outcome in outcomes.values())
    for host, outcome in outcomes.items():
        if isinstance(outcome, socket.socket):
            with outcome:
                for finding in _look_at_connection(outcome, host):
                    yield finding
            continue
        finding = _no_connection(host, road.address.port, outcome)
        # Members try every address of a name: one that answers is enough.
        if road.is_open:
            finding = note(finding.about, f"{finding.text}; members go on to the next address")
        yield finding
    async for finding in look_at_listeners(road.address.port, road.hosts):
        yield finding


# ----------------------------------------------------------------------------------------------------------- name


async def _look_at_name(road: Road) -> AsyncIterator[Finding]:
    address = road.address
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        yield fault(
            "name",
            f"{address.host} is not known here: {error.strerror}",
            f"see what `getent hosts {address.host}` says on this host; in Kubernetes the name is that of a headless "
            "Service, and comes when its pod is up",
        )
        return
    took = time.monotonic() - began
    hosts = road.hosts = list(dict.fromkeys(str(target[0]) for *_, target in found))
    said = f"{address.host} is {', '.join(hosts)}" if hosts != [address.host] else f"{address.host} is an address"
    if took > SLOW_NAME_SECONDS:
        yield warning(
            "name",
            f"{said}, which took {duration(took)} to find out",
            "the resolver of this host is slow: look at /etc/resolv.conf",
        )
    else:
        yield fine("name", said)
    for finding in _judge_addresses(address.host, hosts):
        yield finding


def _judge_addresses(name: str, hosts: Sequence[str]) -> Iterator[Finding]:
    found = [ipaddress.ip_address(host.partition("%")[0]) for host in hosts]
    if any(one.is_unspecified for one in found):
        yield warning(
            "address", f"{name} is an address to listen on, of every host its own",
            "give members the address or the name by which they reach the store's host",
        )  # fmt: skip
    elif all(one.is_loopback for one in found):
        if name in ("localhost", *hosts):
            yield note("address", f"{name} is this host: no other one reaches a store there")
        else:
            yield warning(
                "address", f"the name {name} is a loopback address on this host, and another one on others",
                "have it lead to the address that others reach: often /etc/hosts has a line 127.0.1.1 with it",
            )  # fmt: skip
    if len(found) > 1 and any(one.version == 6 for one in found) and any(one.version == 4 for one in found):
        yield note("address", "it has IPv4 and IPv6 addresses: a store that serves by it listens on the first IPv4 one")


# ----------------------------------------------------------------------------------------------------- connection


async def _connect(host: str, port: int, timeout: float) -> socket.socket | OSError:
    """A connection, or why there is none. The socket is the caller's."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        liveness.keep_alive(sock)
        liveness.limit_unanswered(sock)
        async with asyncio.timeout(timeout):
            await loop.sock_connect(sock, (host, port))
    except OSError as error:  # TimeoutError is one
        sock.close()
        return error
    except BaseException:
        sock.close()
        raise
    return sock


def _no_connection(host: str, port: int, error: OSError) -> Finding:
    where = f"{host} port {port}"
    if isinstance(error, TimeoutError):
        return fault("connection", f"{where} does not answer",
                     "a firewall drops it, or the address is not that of a host that is up: allow the port, or correct "
                     "the address")  # fmt: skip
    if error.errno == errno.ECONNREFUSED:
        return fault("connection", f"nobody listens on {where}",
                     "start the store, or correct the port; one that listens on 127.0.0.1 is not reached from other "
                     "hosts: serve with --host and the address that they reach")  # fmt: skip
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return fault("connection", f"there is no way to {where}: {error.strerror}",
                     "join the network that it is in, or give an address that this host has a route to")  # fmt: skip
    return fault("connection", f"{where} cannot be reached: {error.strerror or error}", "correct the address")


def _look_at_connection(sock: socket.socket, host: str) -> Iterator[Finding]:
    if sock.getsockname() == sock.getpeername():
        yield fault("connection", f"nobody listens on {host}: the kernel led the connection to itself",
                    "start the store, or correct the port")  # fmt: skip
        return
    here, there = sock.getsockname()[0], sock.getpeername()[0]
    yield fine("connection", f"from {here} to {there}, port {sock.getpeername()[1]}")
    yield _look_at_keepalive(sock)


def _look_at_keepalive(sock: socket.socket) -> Finding:
    """Whether this kernel does what `liveness` asks of it."""
    asked = {
        "TCP_KEEPIDLE": liveness.KEEPALIVE_IDLE, "TCP_KEEPINTVL": liveness.KEEPALIVE_INTERVAL,
        "TCP_KEEPCNT": liveness.KEEPALIVE_COUNT, "TCP_USER_TIMEOUT": liveness.CLIENT_USER_TIMEOUT * 1000,
    }  # fmt: skip
    missing = [
        name for name, value in asked.items()
        if not hasattr(socket, name) or sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) != value
    ]  # fmt: skip
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        missing.insert(0, "SO_KEEPALIVE")
    if sys.platform == "linux" and liveness.tcp_info(sock) is None:
        missing.append("TCP_INFO")
    if missing:
        return warning("keepalive", f"this system does not take {', '.join(missing)}",
                       "a peer whose host dies without a word may be noticed late here: keep stores and members on "
                       "Linux, and out of sandboxes that have no such options")  # fmt: skip
    return fine(
        "keepalive",
        f"a store whose host dies without a word is noticed within {liveness.CLIENT_USER_TIMEOUT} s; the kernels probe "
        f"after {liveness.KEEPALIVE_IDLE} s of silence, which keeps firewalls and NAT from forgetting the connection",
    )


async def _look_at_file(address: Address, timeout: float) -> Finding:
    """A unix socket."""
    try:
        mode = os.stat(address.path).st_mode
        if not stat.S_ISSOCK(mode):
            return fault("socket", f"{address.path} is no socket", "name the file that `aiopg serve --unix` made")
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_unix_connection(address.path)
            writer.close()
    except FileNotFoundError:
        return fault("socket", f"there is no {address.path}", "start the store, or correct the path")
    except ConnectionRefusedError:
        return fault("socket", f"nobody listens on {address.path}: its store has died", "remove the file and start it")
    except PermissionError:
        return fault("socket", f"this user may not connect to {address.path}",
                     "run as the user whose store it is: it is for that one alone")  # fmt: skip
    except OSError as error:
        return fault("socket", f"{address.path} cannot be reached: {error.strerror or error}", "correct the path")
    return fine("socket", f"{address.path} is listened on; the kernel tells at once when its store is gone")
